package main

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// handles maps the integers that Python holds to Go objects. A number is never
// reused, so a stale one is an error and never somebody else's object.
type handles struct {
	mu   sync.Mutex
	last int64
	open map[int64]any
}

var registry = &handles{open: make(map[int64]any)}

func (h *handles) add(object any) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.open[h.last] = object
	return h.last
}

func (h *handles) remove(handle int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, handle)
}

// removeParts forgets the listeners and forwards of a node that was closed.
func (h *handles) removeParts(node *Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for handle, object := range h.open {
		if part, ok := object.(closer); ok && part.owner() == node {
			delete(h.open, handle)
		}
	}
}

func (h *handles) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// lookup finds the object of type T behind handle.
func lookup[T any](op string, handle int64) (T, error) {
	registry.mu.Lock()
	object, ok := registry.open[handle]
	last := registry.last
	registry.mu.Unlock()
	value, right := object.(T)
	switch {
	case ok && right:
		return value, nil
	case ok:
		return value, errorf(codeUnknownHandle, op, "handle %d is of another kind", handle)
	case handle > 0 && handle <= last:
		return value, errorf(codeClosed, op, "already closed")
	default:
		return value, errorf(codeUnknownHandle, op, "no handle %d was ever given", handle)
	}
}

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
	rejectedConnections atomic.Int64 // reset because a listener was full
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
