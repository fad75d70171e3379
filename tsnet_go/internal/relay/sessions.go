package relay

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// sweepInterval is how often sessions are checked for stalled writes.
const sweepInterval = 5 * time.Second

// openSessions counts the sessions of all Sessions in this process.
var openSessions atomic.Int64

// OpenSessions returns the number of open sessions in this process.
func OpenSessions() int64 { return openSessions.Load() }

// Sessions is the set of the open sessions of a listener or a forward.
type Sessions struct {
	limit     int
	perSource int // 0: no limit

	mu      sync.Mutex
	open    map[*Session]struct{}
	from    map[netip.Addr]int // how many of open have this source
	closed  bool
	empty   chan struct{} // closed when the last one leaves; nil while nothing waits
	sweeper *time.Timer   // nil while there is nothing to sweep
}

// NewSessions returns an empty set that accepts at most limit sessions, of which at
// most perSource have the same source address; 0 means no limit per source.
func NewSessions(limit, perSource int) *Sessions {
	return &Sessions{
		limit: limit, perSource: perSource,
		open: make(map[*Session]struct{}), from: make(map[netip.Addr]int),
	}
}

// IsFull reports whether Add would refuse another session with that source.
func (c *Sessions) IsFull(source netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isFullLocked(source)
}

func (c *Sessions) isFullLocked(source netip.Addr) bool {
	return len(c.open) >= c.limit || c.perSource > 0 && c.from[source] >= c.perSource
}

// Add adds a session. It reports false if the set is full or closed.
func (c *Sessions) Add(s *Session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.isFullLocked(s.Source) {
		return false
	}
	c.open[s] = struct{}{}
	c.from[s.Source]++
	openSessions.Add(1)
	if c.sweeper == nil {
		c.sweeper = time.AfterFunc(sweepInterval, c.sweepAndRepeat)
	}
	return true
}

// Remove removes a session that has ended.
func (c *Sessions) Remove(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[s]; !ok {
		return
	}
	delete(c.open, s)
	if c.from[s.Source]--; c.from[s.Source] == 0 {
		delete(c.from, s.Source)
	}
	openSessions.Add(-1)
	if len(c.open) == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// Len returns the number of open sessions.
func (c *Sessions) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *Sessions) all() []*Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Session, 0, len(c.open))
	for s := range c.open {
		all = append(all, s)
	}
	return all
}

// sweepAndRepeat runs in the sweeper's goroutine.
func (c *Sessions) sweepAndRepeat() {
	c.Sweep(time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweeper = nil
	if len(c.open) > 0 && !c.closed {
		c.sweeper = time.AfterFunc(sweepInterval, c.sweepAndRepeat)
	}
}

// Sweep aborts the sessions whose write to the tailnet is stalled. The sweeper calls it
// every sweepInterval, tests with a time of their choice.
func (c *Sessions) Sweep(now time.Time) {
	for _, s := range c.all() {
		func() {
			defer s.recoverPanic()
			s.sweep(now)
		}()
	}
}

// Close accepts no further session, gives the open ones drain to end, then aborts the
// rest and waits for them. It calls cancel, which must end what sessions wait for
// before they run, once they may no longer wait.
func (c *Sessions) Close(drain time.Duration, cancel func()) {
	c.mu.Lock()
	c.closed = true
	if c.sweeper != nil {
		c.sweeper.Stop()
		c.sweeper = nil
	}
	c.mu.Unlock()
	defer cancel()
	if drain > 0 && c.awaitDrained(drain) {
		return
	}
	cancel()
	for _, s := range c.all() {
		s.Abort()
	}
	c.await(time.Second)
}

// awaitDrained is await that shortens the time of sessions that only linger.
func (c *Sessions) awaitDrained(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		for _, s := range c.all() {
			s.shortenLinger()
		}
		left := time.Until(deadline)
		if c.await(min(left, drainLinger)) {
			return true
		}
		if left <= 0 {
			return false
		}
	}
}

// await waits until no session is open, and reports false if limit passes first.
func (c *Sessions) await(limit time.Duration) bool {
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
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-empty:
		return true
	case <-timer.C:
		return false
	}
}
