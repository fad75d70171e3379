package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much the heap may grow between two collections. The live heap
// of a node is about 10 MB: with Go's own 100, a server under load would hold 20 MB
// that nobody uses, and collecting more often costs no measurable time.
const gcPercent = 20

func init() {
	if os.Getenv("GOGC") == "" { // whoever sets Go's own variable knows better
		debug.SetGCPercent(gcPercent)
	}
}
