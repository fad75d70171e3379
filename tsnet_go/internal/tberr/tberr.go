// Package tberr defines the errors of the C interface: a stable code, the operation
// that failed, and a message.
package tberr

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tailbone/tailbone/tsnet_go/internal/redact"
)

// Code is a stable name for what went wrong. tailbone/tsnet maps each code to one
// class of exception.
type Code string

const (
	BadArgument    Code = "bad_argument"
	Closed         Code = "closed"
	Canceled       Code = "cancelled"
	Timeout        Code = "timeout"
	LoginRefused   Code = "login_refused"
	LoginNeeded    Code = "login_needed"
	ApprovalNeeded Code = "approval_needed"
	Unreachable    Code = "control_unreachable"
	LogsNeeded     Code = "logs_needed" // the tailnet accepts only nodes that upload logs
	NotFound       Code = "not_found"
	PeerNotFound   Code = "peer_not_found"
	AddressInUse   Code = "address_in_use"
	StateInUse     Code = "state_in_use" // another node uses the state directory
	NotRunning     Code = "not_running"
	Internal       Code = "internal"
	Panic          Code = "panic"
	UnknownHandle  Code = "unknown_handle"
)

// Error is the error of a failed call. Python receives it as JSON.
type Error struct {
	Code    Code   `json:"code"`
	Op      string `json:"op"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.Op, e.Message, e.Code) }

// JSON returns the error as Python receives it.
func (e *Error) JSON() []byte {
	b, err := json.Marshal(e)
	if err != nil { // three strings always encode
		return []byte(`{"code":"internal","op":"encode","message":"the error could not be encoded"}`)
	}
	return b
}

// Errorf returns an Error whose formatted message has every auth key removed.
func Errorf(code Code, op, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Message: redact.Text(fmt.Sprintf(format, args...))}
}

// FromPanic returns the Error for a recovered panic.
func FromPanic(op string, recovered any) *Error {
	return Errorf(Panic, op, "a fault in the native library: %v", recovered)
}

// CodeOf returns the code of err, Internal if err has none, and "" if err is nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return Internal
	}
}
