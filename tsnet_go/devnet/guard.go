package devnet

import (
	"net/http"
	"runtime/debug"
)

// guarded answers 500 when a handler panics and keeps the process alive: the
// devnet runs inside Python, and what a client sent must not end it.
func (d *Devnet) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.handlers.Add(1)
		defer d.handlers.Done()
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
func (d *Devnet) goGuarded(what string, f func()) {
	d.goroutines.Add(1)
	go func() {
		defer d.goroutines.Done()
		defer func() {
			if p := recover(); p != nil {
				d.logf("devnet: panic in %s: %v\n%s", what, p, debug.Stack())
			}
		}()
		f()
	}()
}
