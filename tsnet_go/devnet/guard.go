package devnet

import (
	"net/http"
	"runtime/debug"
	"sync"
)

// inflight counts calls in flight, so that Stop can wait for them. Unlike a
// sync.WaitGroup it admits no new call once the wait has begun.
type inflight struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when closed and n is 0
}

func newInflight() *inflight { return &inflight{idle: make(chan struct{})} }

// begin reports whether a call may begin; if so, end must follow.
func (f *inflight) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.n++
	return true
}

func (f *inflight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	if f.closed && f.n == 0 {
		close(f.idle)
	}
}

// closeAndWait admits no further calls and waits for those in flight. It is called
// once.
func (f *inflight) closeAndWait() {
	f.mu.Lock()
	f.closed = true
	if f.n == 0 {
		close(f.idle)
	}
	f.mu.Unlock()
	<-f.idle
}

// guarded answers 500 when a handler panics and keeps the process alive: the
// devnet runs inside Python, and no client may end it.
func (d *Devnet) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.inflight.begin() {
			http.Error(w, errStopped.Error(), http.StatusServiceUnavailable)
			return
		}
		defer d.inflight.end()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				d.logf("devnet: panic in %s: %v\n%s", r.URL.Path, p, debug.Stack())
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		h.ServeHTTP(w, r)
	})
}

// goGuarded runs f in a goroutine that Stop waits for and whose panic is logged.
// After Stop it does nothing.
func (d *Devnet) goGuarded(what string, f func()) {
	if !d.inflight.begin() {
		return
	}
	go func() {
		defer d.inflight.end()
		defer d.logPanic(what)
		f()
	}()
}

// logPanic logs a panic; it must be deferred.
func (d *Devnet) logPanic(what string) {
	if p := recover(); p != nil {
		d.logf("devnet: panic in %s: %v\n%s", what, p, debug.Stack())
	}
}
