package main

import (
	"errors"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// An unrecovered panic in any goroutine ends the Python process. So every exported
// function, every goroutine of ours and every function that tailscale calls in its own
// goroutines recovers.

// protect runs an exported function and encodes its error. A panic becomes an error.
func protect(op string, call func() ([]byte, error)) (answer []byte, ok bool) {
	_, answer, ok = protectOpen(op, func() (int64, []byte, error) {
		answer, err := call()
		return 0, answer, err
	})
	return answer, ok
}

// protectOpen is protect for a function that also returns a handle.
func protectOpen(op string, call func() (int64, []byte, error)) (handle int64, answer []byte, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			handle, answer, ok = 0, tberr.FromPanic(op, r).JSON(), false
		}
	}()
	handle, answer, err := call()
	if err != nil {
		return 0, asError(op, err).JSON(), false
	}
	return handle, answer, true
}

// asError gives an error a code and the operation that failed, unless it has them.
func asError(op string, err error) *tberr.Error {
	var e *tberr.Error
	if errors.As(err, &e) {
		return e
	}
	var d *devnet.Error
	if errors.As(err, &d) {
		return tberr.Errorf(tberr.Code(d.Code), op, "%s", d.Message)
	}
	return tberr.Errorf(tberr.Internal, op, "%v", err)
}
