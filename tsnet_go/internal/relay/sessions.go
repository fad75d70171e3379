package main

import (
	"net/netip"
	"sync"
	"time"
)

// sweepEvery is how often pairs are looked at that may be stuck.
const sweepEvery = 5 * time.Second

// leastShare is the smallest share of a listener's connections that one source address
// has: programs of one peer open several at once.
const leastShare = 16

// connections is the set of the pairs of a listener or a forward, of which there are
// at most limit, and of one source address at most share. The zero value takes none.
type connections struct {
	limit int
	share int // 0: no limit of its own

	mu     sync.Mutex
	open   map[*pair]struct{}
	from   map[netip.Addr]int // how many of open have this source
	shut   bool
	empty  chan struct{} // closed when the last one leaves; nil when nobody waits
	sweeps *time.Timer   // nil while there is nothing to sweep
}

// shareOf returns how many of limit connections one source address may have: a
// quarter, so that no single peer can take every place, and leastShare where a quarter
// is less.
func shareOf(limit int) int { return max(limit/4, leastShare) }

// isFull reports whether another pair with that source would be one too many.
func (c *connections) isFull(source netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isFullLocked(source)
}

func (c *connections) isFullLocked(source netip.Addr) bool {
	return len(c.open) >= c.limit || c.share > 0 && c.from[source] >= c.share
}

// add takes a pair in, unless that would be one too many, or the set is shut.
func (c *connections) add(p *pair) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.isFullLocked(p.source) {
		return false
	}
	if c.open == nil {
		c.open, c.from = make(map[*pair]struct{}), make(map[netip.Addr]int)
	}
	c.open[p] = struct{}{}
	c.from[p.source]++
	openConnections.Add(1)
	if c.sweeps == nil {
		c.sweeps = time.AfterFunc(sweepEvery, c.sweep)
	}
	return true
}

func (c *connections) remove(p *pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[p]; !ok {
		return
	}
	delete(c.open, p)
	if c.from[p.source]--; c.from[p.source] == 0 {
		delete(c.from, p.source)
	}
	openConnections.Add(-1)
	if len(c.open) == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *connections) pairs() []*pair {
	c.mu.Lock()
	defer c.mu.Unlock()
	pairs := make([]*pair, 0, len(c.open))
	for p := range c.open {
		pairs = append(pairs, p)
	}
	return pairs
}

// sweep runs in a goroutine of its own for as long as there is a pair.
func (c *connections) sweep() {
	now := time.Now()
	for _, p := range c.pairs() {
		sweepGuarded(p, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweeps = nil
	if len(c.open) > 0 && !c.shut {
		c.sweeps = time.AfterFunc(sweepEvery, c.sweep)
	}
}

func sweepGuarded(p *pair, now time.Time) {
	defer p.recovered()
	p.sweep(now)
}

// close takes no further pair, gives those there are the time to end, then kills
// what is left and waits for that to be over; end stops what pairs wait for before
// they are complete.
func (c *connections) close(drain time.Duration, end func()) {
	c.mu.Lock()
	c.shut = true
	if c.sweeps != nil {
		c.sweeps.Stop()
		c.sweeps = nil
	}
	c.mu.Unlock()
	defer end()
	if drain > 0 && c.drained(drain) {
		return
	}
	end()
	for _, p := range c.pairs() {
		p.kill()
	}
	c.await(time.Second)
}

// drained is await for pairs of which those that only linger are to hurry.
func (c *connections) drained(most time.Duration) bool {
	for end := time.Now().Add(most); ; {
		for _, p := range c.pairs() {
			p.hurry()
		}
		left := time.Until(end)
		if c.await(min(left, hurryFor)) {
			return true
		}
		if left <= 0 {
			return false
		}
	}
}

// await waits until no pair is left.
func (c *connections) await(most time.Duration) bool {
	c.mu.Lock()
	if len(c.open) == 0 {
		c.mu.Unlock()
		return true
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	empty := c.empty
	c.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-empty:
		return true
	case <-timer.C:
		return false
	}
}
