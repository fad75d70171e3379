package main

import (
	"sync"
	"time"
)

// tellRejectionsEvery is how often a listener tells that it is full: under a flood
// a line for each connection would be a second one.
const tellRejectionsEvery = 10 * time.Second

// rejections counts the connections that a listener has reset and not told of yet.
type rejections struct {
	mu     sync.Mutex
	untold int
	told   time.Time
}

// add counts one more, and returns how many are to be told of now: mostly none.
func (r *rejections) add(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untold++
	if !r.told.IsZero() && now.Sub(r.told) < tellRejectionsEvery {
		return 0
	}
	untold := r.untold
	r.untold, r.told = 0, now
	return untold
}
