package main

import (
	"fmt"
	"runtime/debug"
)

// An unrecovered panic in any goroutine ends the Python process. So every export,
// every goroutine of ours and every function that tailscale calls in its own
// goroutines recovers.

// guarded runs what an export does and encodes its result or its error; a panic
// becomes an error.
func guarded(op string, call func() ([]byte, error)) (answer []byte, ok bool) {
	_, answer, ok = guardedOpen(op, func() (int64, []byte, error) {
		answer, err := call()
		return 0, answer, err
	})
	return answer, ok
}

// guardedOpen is guarded for a call that also gives a handle.
func guardedOpen(op string, call func() (int64, []byte, error)) (handle int64, answer []byte, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			handle, answer, ok = 0, panicError(op, r).encode(), false
		}
	}()
	handle, answer, err := call()
	if err != nil {
		return 0, asError(op, err).encode(), false
	}
	return handle, answer, true
}

func panicError(op string, recovered any) *Error {
	return errorf(codePanic, op, "a fault in the native library: %s", fmt.Sprint(recovered))
}

// recoverGoroutine is deferred where a panic must not end the process; what ended
// instead is told by an event.
func recoverGoroutine(ev *events) {
	if r := recover(); r != nil {
		ev.fault(r)
	}
}

// fault tells of a recovered panic, with as much of its stack as an event holds.
func (e *events) fault(recovered any) {
	e.send(event{Type: "fault", Line: redact(fmt.Sprintf("%v\n%s", recovered, debug.Stack()))})
}
