package main

import "sync"

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

// addPart adds a listener or a forward, unless its node was closed meanwhile: then
// nobody would take it out again.
func (h *handles) addPart(op string, part closer) (int64, error) {
	handle := h.add(part)
	if part.owner().isClosing() {
		h.remove(handle)
		return 0, errorf(codeClosed, op, "the node is closed")
	}
	return handle, nil
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

// find looks an object up, and tells whether its handle was given out once.
func (h *handles) find(handle int64) (object any, given bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[handle], handle > 0 && handle <= h.last
}

// lookup finds the object of type T behind handle.
func lookup[T any](op string, handle int64) (T, error) {
	object, given := registry.find(handle)
	value, right := object.(T)
	switch {
	case right:
		return value, nil
	case object != nil:
		return value, errorf(codeUnknownHandle, op, "handle %d is of another kind", handle)
	case given:
		return value, errorf(codeClosed, op, "already closed")
	default:
		return value, errorf(codeUnknownHandle, op, "no handle %d was ever given", handle)
	}
}

// closing closes the object behind handle. What is closed already is no error:
// every close can be called twice.
func closing[T any](op string, handle int64, end func(T) error) ([]byte, error) {
	object, err := lookup[T](op, handle)
	if err != nil {
		if asError(op, err).Code == codeClosed {
			return nothing, nil
		}
		return nil, err
	}
	defer registry.remove(handle)
	return nothing, end(object)
}
