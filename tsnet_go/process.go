package main

import (
	"os"
	"runtime/debug"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
)

// gcPercent is how much the heap may grow between two collections. The live heap of a
// node is about 10 MB: with Go's default of 100, a server under load would hold 20 MB
// that nothing uses. Collecting more often costs no measurable time.
const gcPercent = 20

// memoryLimit is the size from which Go collects more often and returns freed memory to
// the system, so that a flood of connections leaves no unused heap behind.
const memoryLimit = 128 << 20

// init runs after the init functions of all imported packages. So the message with which
// tailscale's envknob ends the process over a malformed variable still reaches standard
// error, where tailbone/tsnet/environment.py reads it.
func init() {
	events.CaptureStandardLog()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" { // Go's own variable takes precedence
		debug.SetGCPercent(gcPercent)
	}
}
