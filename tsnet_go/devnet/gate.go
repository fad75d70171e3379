package devnet

import (
	"net"
	"sync"
	"time"
)

// gate holds back the traffic of one listener and its connections. It simulates an outage
// that ends at once and does not close the port: clients of a closed port would back off
// for up to 10 s.
type gate struct {
	mu     sync.Mutex
	open   chan struct{} // closed while traffic may pass
	paused bool
	closed bool
	conns  map[*gatedConn]struct{}
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), conns: map[*gatedConn]struct{}{}}
	close(g.open)
	return g
}

func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused && !g.closed {
		g.paused = true
		g.open = make(chan struct{})
	}
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused {
		g.paused = false
		close(g.open)
	}
}

func (g *gate) isPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

func (g *gate) opened() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// drop closes every connection that is open now and returns how many there were.
func (g *gate) drop() int {
	g.mu.Lock()
	conns := make([]*gatedConn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	return len(conns)
}

// shut closes the gate for good: waiting calls fail, and connections end.
func (g *gate) shut() {
	g.mu.Lock()
	g.closed = true
	if g.paused {
		g.paused = false
		close(g.open)
	}
	g.mu.Unlock()
	g.drop()
}

// add adds a connection to the gate. It reports false if the gate is shut.
func (g *gate) add(c *gatedConn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *gate) remove(c *gatedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// gatedListener wraps the connections of a listener. While the gate is paused
// it accepts at most one more and returns none: the kernel queues the rest.
type gatedListener struct {
	net.Listener
	gate *gate
}

func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &gatedConn{Conn: raw, gate: l.gate, done: make(chan struct{})}
		if !l.gate.add(c) {
			raw.Close()
			return nil, net.ErrClosed
		}
		if _, err := c.pass(); err != nil {
			continue // dropped while it waited
		}
		return c, nil
	}
}

// gatedConn is a connection whose bytes pass only while the gate is open.
type gatedConn struct {
	net.Conn
	gate *gate

	closeOnce sync.Once
	closeErr  error
	done      chan struct{} // closed by Close

	mu            sync.Mutex
	writeDeadline time.Time
}

// pass waits until the gate is open and returns how long it waited.
func (c *gatedConn) pass() (waited time.Duration, err error) {
	open := c.gate.opened()
	select {
	case <-open:
		select {
		case <-c.done:
			return 0, net.ErrClosed
		default:
			return 0, nil
		}
	default:
	}
	start := time.Now()
	for {
		select {
		case <-c.done:
			return 0, net.ErrClosed
		case <-open:
		}
		// Paused again between the wake-up and now?
		next := c.gate.opened()
		if next == open {
			return time.Since(start), nil
		}
		open = next
	}
}

// Read holds back what arrived rather than not reading: a read that was already
// waiting when the pause began must not let its bytes through either.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if _, perr := c.pass(); perr != nil {
		return 0, perr
	}
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	waited, err := c.pass()
	if err != nil {
		return 0, err
	}
	if waited > 0 {
		c.extendWriteDeadline(waited)
	}
	return c.Conn.Write(p)
}

// extendWriteDeadline adds the time that a write spent at the gate to its deadline.
// The DERP server allows 2 s per write: without this every pause longer than
// that would break its TLS connections for good.
func (c *gatedConn) extendWriteDeadline(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writeDeadline.IsZero() {
		c.writeDeadline = c.writeDeadline.Add(by)
		c.Conn.SetWriteDeadline(c.writeDeadline)
	}
}

func (c *gatedConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	return c.Conn.SetDeadline(t)
}

func (c *gatedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	return c.Conn.SetWriteDeadline(t)
}

func (c *gatedConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.done)
		c.gate.remove(c)
		c.closeErr = c.Conn.Close()
	})
	return c.closeErr
}
