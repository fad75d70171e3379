// Package relay copies bytes between connections on the tailnet and connections on
// this machine, and bounds how many there are.
package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
)

const (
	// linger is how long the tailnet side may take to end after the local side has
	// closed: time to receive the last answer, and to close.
	linger = 2 * time.Second
	// drainLinger is linger while the Sessions are being closed.
	drainLinger = 200 * time.Millisecond
)

// TailnetConn is the side of a Session on the tailnet.
type TailnetConn interface {
	net.Conn
	CloseWrite() error
}

// LocalConn is the side of a Session on this machine: a Unix socket or loopback TCP.
type LocalConn interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// Session is one relayed connection. Set the exported fields and both connections
// before Run.
//
// Its two directions end separately: a client may end its side and still wait for the
// answer. When one side ends its direction, so does the other; when one side breaks,
// the other is reset at once.
//
// A Unix socket does not distinguish an abort from a close, so the end of the Python
// server's bytes counts as a regular end. It does distinguish a close from the end of
// one direction, and a session whose local side has closed must not wait for a peer
// that continues.
type Session struct {
	Events *events.Pipe // receives recovered panics

	// Source is the address that the connection counts against in Sessions.
	Source netip.Addr

	// WriteTimeout is how long the peer may accept no bytes; 0 means no limit.
	WriteTimeout time.Duration

	// OnArrival, if not nil, is called with the length of each piece of bytes from the
	// tailnet before it is handed on. Nothing is read meanwhile. If it reports false,
	// the session is aborted.
	OnArrival func(n int) bool

	mu      sync.Mutex // guards the next three until Run, and against Abort
	tailnet TailnetConn
	local   LocalConn
	ended   bool

	directionsEnded atomic.Int32  // directions that have ended regularly
	localGone       atomic.Bool   // the local side has closed: bytes for it are dropped
	lingerExpired   atomic.Bool   // the tailnet side did not end in time
	lingerShortened atomic.Bool   // drainLinger applies
	writes          atomic.Uint64 // odd while a write to the tailnet is in progress

	// sweep's own, which is called by one goroutine at a time.
	sweptWrites  uint64    // writes, as seen by the last sweep
	stalledSince time.Time // when a sweep first saw the write that is in progress
}

// SetTailnet sets the tailnet side. If the session was aborted, it resets conn and
// reports false.
func (s *Session) SetTailnet(conn TailnetConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		Reset(conn)
		return false
	}
	s.tailnet = conn
	return true
}

// SetLocal sets the local side. If the session was aborted, it resets conn and reports
// false.
func (s *Session) SetLocal(conn LocalConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		Reset(conn)
		return false
	}
	s.local = conn
	return true
}

// Abort resets both sides. It may be called at any time and from any goroutine, and
// does nothing once the session has ended.
func (s *Session) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if s.tailnet != nil {
		Reset(s.tailnet)
	}
	if s.local != nil {
		Reset(s.local)
	}
}

// close closes both sides after both directions have ended.
func (s *Session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if s.lingerExpired.Load() && !acknowledged(s.tailnet) {
		// A close would leave an unattended endpoint for as long as the peer keeps it.
		Reset(s.tailnet)
	}
	s.tailnet.Close()
	s.local.Close()
}

// Run copies in both directions until both have ended or one side breaks.
func (s *Session) Run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.recoverPanic()
		s.copyToTailnet()
	}()
	func() {
		defer s.recoverPanic()
		s.copyToLocal()
	}()
	<-done
	s.close()
}

// recoverPanic must be deferred directly.
func (s *Session) recoverPanic() {
	if r := recover(); r != nil {
		s.Events.ReportPanic(r)
		s.Abort()
	}
}

// buffers holds one direction's bytes. A token's request and answer fit many times
// over, and 1024 connections hold 8 MB.
var buffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// copyToLocal copies from the tailnet to the local side.
func (s *Session) copyToLocal() {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := s.tailnet.Read(*buffer)
		if n > 0 && !s.localGone.Load() {
			if s.OnArrival != nil && !s.OnArrival(n) {
				s.Abort()
				return
			}
			if _, err := s.local.Write((*buffer)[:n]); err != nil {
				// The local side reads no more. What it sent before may still be on its
				// way: copyToTailnet finishes it and then ends the session.
				s.localGone.Store(true)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if s.directionsEnded.Add(1) == 2 {
				s.local.Close() // wakes copyToTailnet, which waits for the local side to hang up
				return
			}
			_ = s.local.CloseWrite() // fails only if the local side has gone
			return
		case isTimeout(err):
			s.lingerExpired.Store(true)
			return
		default:
			s.Abort()
			return
		}
	}
}

// copyToTailnet copies from the local side to the tailnet.
func (s *Session) copyToTailnet() {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := s.local.Read(*buffer)
		if n > 0 {
			s.writes.Add(1)
			_, writeErr := s.tailnet.Write((*buffer)[:n])
			s.writes.Add(1)
			if writeErr != nil {
				s.Abort()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			s.endTailnet(false)
			return
		case errors.Is(err, syscall.ECONNRESET) && !isTCP(s.local):
			// A Unix socket that was closed before everything was read. The answer was
			// sent nevertheless: "too large" is sent that way.
			s.endTailnet(true)
			return
		default:
			s.Abort()
			return
		}
	}
}

// endTailnet ends the direction to the tailnet. If the local side has hung up, or once
// it does, the peer gets a short time to end its own direction.
func (s *Session) endTailnet(hungUp bool) {
	if s.tailnet.CloseWrite() != nil {
		s.Abort()
		return
	}
	if s.directionsEnded.Add(1) == 2 {
		return
	}
	if !hungUp && !awaitHangUp(s.local) {
		return // copyToLocal has ended
	}
	if isTCP(s.local) {
		s.Abort() // while one direction is open, TCP hangs up by a reset only
		return
	}
	s.localGone.Store(true)
	s.setLinger(linger)
}

func (s *Session) setLinger(limit time.Duration) {
	_ = s.tailnet.SetReadDeadline(time.Now().Add(limit)) // gonet's never fails
}

// shortenLinger shortens the time of a session that lingers.
func (s *Session) shortenLinger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.localGone.Load() && s.directionsEnded.Load() > 0 && !s.lingerShortened.Swap(true) {
		s.setLinger(drainLinger)
	}
}

// sweep aborts the session if one write to the tailnet has been in progress since an
// earlier sweep, and either WriteTimeout has passed or the local side has hung up.
// Nothing else would notice the hang-up: the local side is not read meanwhile.
func (s *Session) sweep(now time.Time) {
	s.mu.Lock()
	local := s.local
	s.mu.Unlock()
	writes := s.writes.Load()
	if writes%2 == 0 || writes != s.sweptWrites {
		s.sweptWrites, s.stalledSince = writes, now
		return
	}
	if s.WriteTimeout > 0 && now.Sub(s.stalledSince) >= s.WriteTimeout || hasHungUp(local) {
		s.Abort()
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
