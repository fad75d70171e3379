package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// connections is the set of what is bridged now; the zero value is empty.
type connections struct {
	mu    sync.Mutex
	open  map[net.Conn]struct{}
	empty chan struct{} // closed when the last one leaves; nil when nobody waits
}

func (c *connections) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[net.Conn]struct{})
	}
	c.open[conn] = struct{}{}
	openConnections.Add(1)
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[conn]; !ok {
		return
	}
	delete(c.open, conn)
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

// drain waits until no connection is left, for at most the given time, then
// closes what is left and waits for that to be over.
func (c *connections) drain(most time.Duration) {
	if most > 0 && c.await(most) {
		return
	}
	c.mu.Lock()
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.await(time.Second)
}

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
	select {
	case <-empty:
		return true
	case <-time.After(most):
		return false
	}
}

// halfCloser is a connection whose two directions end apart, as TCP's and a
// Unix socket's do: a client may close its side and still wait for the answer.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// buffers hold one direction's bytes: a token's request and answer fit many
// times over, and 1024 connections hold 16 MB.
var buffers = sync.Pool{New: func() any { b := make([]byte, 8<<10); return &b }}

// join2 copies both ways until both sides have ended, or either fails. The
// caller closes both.
func join2(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if recover() != nil { // the connection is lost, the process is not
				a.Close()
				b.Close()
			}
		}()
		pump(a, b)
	}()
	pump(b, a)
	<-done
}

// pump copies from one connection to the other until from ends; a failure ends
// both connections at once, so that the other direction does not wait for nobody.
func pump(to, from net.Conn) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := from.Read(*buffer)
		if n > 0 {
			if _, writeErr := to.Write((*buffer)[:n]); writeErr != nil {
				err = writeErr
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			if half, ok := to.(halfCloser); ok && half.CloseWrite() == nil {
				return
			}
			to.Close()
			return
		default:
			to.Close()
			from.Close()
			return
		}
	}
}
