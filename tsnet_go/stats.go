package main

import (
	"runtime"
	"sync/atomic"
)

// Stats counts what is alive, so that tests can prove that nothing leaks.
type Stats struct {
	Handles     int   `json:"handles"`
	Connections int64 `json:"connections"`
	Rejected    int64 `json:"rejected"`
	Dropped     int64 `json:"dropped_events"`
	Goroutines  int   `json:"goroutines"`
	MaxProcs    int   `json:"max_procs"`
}

var (
	openConnections     atomic.Int64 // bridged now, in both directions
	rejectedConnections atomic.Int64 // reset because a listener or a forward was full
	droppedEvents       atomic.Int64 // lines the events pipe had no room for
)

func stats() Stats {
	return Stats{
		Handles:     registry.count(),
		Connections: openConnections.Load(),
		Rejected:    rejectedConnections.Load(),
		Dropped:     droppedEvents.Load(),
		Goroutines:  runtime.NumGoroutine(),
		MaxProcs:    runtime.GOMAXPROCS(0),
	}
}
