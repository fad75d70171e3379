package devnet

import (
	"errors"
	"fmt"
)

// Code is a stable name for what went wrong; callers act on it, never on the message.
type Code string

const (
	CodeBadCommand      Code = "bad_command"      // not JSON, an unknown op or field, or a value out of range
	CodeUnknownNode     Code = "unknown_node"     // no node has this id, name or address
	CodeUnknownKey      Code = "unknown_key"      // this devnet issued no such auth key
	CodeUnknownLogin    Code = "unknown_login"    // no node waits for this login URL
	CodeAddressInUse    Code = "address_in_use"   // a port given by number is in use
	CodeStateInUse      Code = "state_in_use"     // another devnet runs on the state directory
	CodeStateUnreadable Code = "state_unreadable" // the state directory cannot be used
	CodeStateNotSaved   Code = "state_not_saved"  // done in memory, but the disk refused it
	CodeClosed          Code = "closed"           // the devnet was stopped
	CodeTimeout         Code = "timeout"          // the context ended first
	CodeInternal        Code = "internal"         // a bug in the devnet itself
)

// Error is every error that this package returns.
type Error struct {
	Code    Code   `json:"code"`
	Op      string `json:"op"`
	Message string `json:"message"`

	cause error
}

func (e *Error) Error() string { return fmt.Sprintf("devnet: %s: %s", e.Op, e.Message) }
func (e *Error) Unwrap() error { return e.cause }

// fail builds an Error. A %w in format is kept for errors.Is.
func fail(code Code, op, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Op: op, Message: err.Error(), cause: errors.Unwrap(err)}
}
