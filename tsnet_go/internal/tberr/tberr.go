package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

// Codes of the errors that cross to Python. They are stable: tailbone/tsnet maps
// each of them to one class of exception.
const (
	codeBadArgument   = "bad_argument"
	codeClosed        = "closed"
	codeCancelled     = "cancelled"
	codeTimeout       = "timeout"
	codeLoginRefused  = "login_refused"
	codeLoginNeeded   = "login_needed"
	codeApproval      = "approval_needed"
	codeUnreachable   = "control_unreachable"
	codeLogsNeeded    = "logs_needed" // the tailnet takes only nodes that upload logs
	codeNotFound      = "not_found"
	codePeerNotFound  = "peer_not_found"
	codeAddressInUse  = "address_in_use"
	codeStateInUse    = "state_in_use" // another node runs on the state directory
	codeNotRunning    = "not_running"
	codeInternal      = "internal"
	codePanic         = "panic"
	codeUnknownHandle = "unknown_handle"
)

// Error is what a failed call hands to Python, as JSON.
type Error struct {
	Code    string `json:"code"`
	Op      string `json:"op"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.Op, e.Message, e.Code) }

func errorf(code, op, format string, args ...any) *Error {
	return &Error{Code: code, Op: op, Message: redact(fmt.Sprintf(format, args...))}
}

// asError gives any error a code and the name of the operation that failed.
func asError(op string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var d *devnet.Error
	if errors.As(err, &d) {
		return errorf(string(d.Code), op, "%s", d.Message)
	}
	return errorf(codeInternal, op, "%v", err)
}

func (e *Error) encode() []byte {
	b, err := json.Marshal(e)
	if err != nil { // three strings always encode
		return []byte(`{"code":"internal","op":"encode","message":"the error could not be encoded"}`)
	}
	return b
}
