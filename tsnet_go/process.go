package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much the heap may grow between two collections. The live heap
// of a node is about 10 MB: with Go's own 100, a server under load would hold 20 MB
// that nobody uses, and collecting more often costs no measurable time.
const gcPercent = 20

// memoryLimit is where Go collects sooner and returns what it has freed to the system,
// so that a flood of connections leaves no heap behind that nobody uses.
const memoryLimit = 160 << 20

func init() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" { // Go's own variable takes precedence
		debug.SetGCPercent(gcPercent)
	}
}
