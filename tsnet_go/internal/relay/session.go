package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// lingerFor is how long the tailnet side may take to end after the local side is
	// gone: to get its last answer, and to say goodbye.
	lingerFor = 2 * time.Second
	// hurryFor is lingerFor while the listener closes.
	hurryFor = 200 * time.Millisecond
)

// tailnetConn is the side of a pair on the tailnet.
type tailnetConn interface {
	net.Conn
	CloseWrite() error
}

// localConn is the side of a pair on this machine: a Unix socket or loopback TCP.
type localConn interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// pair is one bridged connection. Its two directions end apart: a client may end
// its side and still wait for the answer. What one side ends, the other ends; what
// breaks on one side, breaks on the other, at once.
//
// A Unix socket does not tell an abort from a close, so what comes from Python is
// taken for a regular end. But it does tell a close from the end of one direction,
// and a pair whose local side is closed must not wait for a peer that goes on.
type pair struct {
	events    *events
	source    netip.Addr    // who is behind it, in a listener
	patience  time.Duration // how long the peer may take nothing of a write; 0 means any time
	onArrival func()        // called for each piece from the tailnet before it is handed on; may be nil

	mu      sync.Mutex // guards what follows until run, and against kill
	tailnet tailnetConn
	local   localConn
	dead    bool

	ended   atomic.Int32  // directions that have ended well
	gone    atomic.Bool   // the local side is gone: what still comes for it is dropped
	late    atomic.Bool   // the tailnet side did not end in the time that it got
	hurried atomic.Bool   // that time was shortened
	writing atomic.Uint64 // odd while a write to the tailnet is under way
	swept   uint64        // writing, as the last sweep saw it
	stuckAt time.Time     // when a sweep first saw the write that is under way
}

// setTailnet completes a pair; not if it was killed meanwhile: then it ends conn.
func (p *pair) setTailnet(conn tailnetConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		reset(conn)
		return false
	}
	p.tailnet = conn
	return true
}

// setLocal is setTailnet for the other side.
func (p *pair) setLocal(conn localConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		reset(conn)
		return false
	}
	p.local = conn
	return true
}

// kill ends both sides with a reset. It may be called at any time, by anybody.
func (p *pair) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return
	}
	p.dead = true
	if p.tailnet != nil {
		reset(p.tailnet)
	}
	if p.local != nil {
		reset(p.local)
	}
}

// close ends both sides in peace, after both directions have ended.
func (p *pair) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return
	}
	p.dead = true
	if p.late.Load() && !delivered(p.tailnet) {
		// It would be an endpoint that nobody looks after, for as long as its peer
		// cares to keep it.
		reset(p.tailnet)
	}
	p.tailnet.Close()
	p.local.Close()
}

// run copies both ways until both directions have ended, or something broke.
func (p *pair) run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer p.recovered()
		p.outbound()
	}()
	p.guardedInbound()
	<-done
	p.close()
}

func (p *pair) guardedInbound() {
	defer p.recovered()
	p.inbound()
}

func (p *pair) recovered() {
	if r := recover(); r != nil {
		p.events.fault(r)
		p.kill()
	}
}

// buffers hold one direction's bytes: a token's request and answer fit many
// times over, and 1024 connections hold 16 MB.
var buffers = sync.Pool{New: func() any { b := make([]byte, 8<<10); return &b }}

// inbound copies from the tailnet to the local side.
func (p *pair) inbound() {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := p.tailnet.Read(*buffer)
		if n > 0 && !p.gone.Load() {
			if p.onArrival != nil {
				p.onArrival()
			}
			if _, err := p.local.Write((*buffer)[:n]); err != nil {
				// The local side wants no more. What it said before that may still be
				// on its way: outbound comes to its end, and then ends the pair.
				p.gone.Store(true)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if p.ended.Add(1) == 2 {
				p.local.Close() // wakes outbound, which waits for it to hang up
				return
			}
			_ = p.local.CloseWrite() // fails only if the local side is gone
			return
		case isTimeout(err):
			p.late.Store(true)
			return
		default:
			p.kill()
			return
		}
	}
}

// outbound copies from the local side to the tailnet.
func (p *pair) outbound() {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := p.local.Read(*buffer)
		if n > 0 {
			p.writing.Add(1)
			_, writeErr := p.tailnet.Write((*buffer)[:n])
			p.writing.Add(1)
			if writeErr != nil {
				p.kill()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			p.endOutbound(false)
			return
		case errors.Is(err, syscall.ECONNRESET) && !isTCP(p.local):
			// A Unix socket that was closed before everything was read. The answer
			// was sent nevertheless: "too large" is one that is sent so.
			p.endOutbound(true)
			return
		default:
			p.kill()
			return
		}
	}
}

// endOutbound ends the tailnet's side of what the local side has ended. If the local
// side is closed, or once it is, the peer gets a short time to end its own.
func (p *pair) endOutbound(hungUp bool) {
	if p.tailnet.CloseWrite() != nil {
		p.kill()
		return
	}
	if p.ended.Add(1) == 2 {
		return
	}
	if !hungUp && !awaitHangUp(p.local) {
		return // inbound has come to its end
	}
	if isTCP(p.local) {
		p.kill() // TCP hangs up by a reset only, while one direction is open
		return
	}
	p.gone.Store(true)
	p.linger(lingerFor)
}

func (p *pair) linger(most time.Duration) {
	_ = p.tailnet.SetReadDeadline(time.Now().Add(most)) // gonet's never fails
}

// hurry shortens the time of a pair that lingers.
func (p *pair) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone.Load() && p.ended.Load() > 0 && !p.hurried.Swap(true) {
		p.linger(hurryFor)
	}
}

// sweep kills the pair if one write to the tailnet has been under way since an earlier
// sweep, and either that was longer ago than the peer may take nothing, or the local
// side is gone. Nobody else would notice: nobody reads the local side meanwhile.
func (p *pair) sweep(now time.Time) {
	p.mu.Lock()
	local := p.local
	p.mu.Unlock()
	writing := p.writing.Load()
	if writing%2 == 0 || writing != p.swept {
		p.swept, p.stuckAt = writing, now
		return
	}
	if p.patience > 0 && now.Sub(p.stuckAt) >= p.patience || hasHungUp(local) {
		p.kill()
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func isTCP(conn net.Conn) bool {
	_, ok := conn.(*net.TCPConn)
	return ok
}
