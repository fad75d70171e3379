package main

import (
	"sync"

	"github.com/tailbone/tailbone/tsnet_go/internal/tailnode"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// handles maps the integers that Python holds to Go objects. A number is never reused,
// so a stale one is an error and never another object.
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

// addBridge adds a listener or a forward. It fails if the node was closed in the
// meantime, since nothing would remove the handle again.
func (h *handles) addBridge(op string, bridge tailnode.Bridge) (int64, error) {
	handle := h.add(bridge)
	if bridge.Node().IsClosed() {
		h.remove(handle)
		return 0, tberr.Errorf(tberr.Closed, op, "the node is closed")
	}
	return handle, nil
}

func (h *handles) remove(handle int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, handle)
}

// removeBridges removes the listeners and forwards of a closed node.
func (h *handles) removeBridges(node *tailnode.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for handle, object := range h.open {
		if bridge, ok := object.(tailnode.Bridge); ok && bridge.Node() == node {
			delete(h.open, handle)
		}
	}
}

func (h *handles) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// find returns the object of an open handle, and reports whether the handle was ever
// returned to Python.
func (h *handles) find(handle int64) (object any, existed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[handle], handle > 0 && handle <= h.last
}

// lookup returns the object of type T behind handle.
func lookup[T any](op string, handle int64) (T, error) {
	object, existed := registry.find(handle)
	value, ok := object.(T)
	switch {
	case ok:
		return value, nil
	case object != nil:
		return value, tberr.Errorf(tberr.UnknownHandle, op, "handle %d has another type", handle)
	case existed:
		return value, tberr.Errorf(tberr.Closed, op, "already closed")
	default:
		return value, tberr.Errorf(tberr.UnknownHandle, op, "unknown handle %d", handle)
	}
}

// closeHandle closes the object behind handle. Closing it again is not an error.
func closeHandle[T any](op string, handle int64, closeObject func(T) error) ([]byte, error) {
	object, err := lookup[T](op, handle)
	switch {
	case tberr.CodeOf(err) == tberr.Closed:
		return noResult, nil
	case err != nil:
		return nil, err
	}
	defer registry.remove(handle)
	return noResult, closeObject(object)
}
