package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/events/eventstest"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// testSession is a session between loopback TCP, in place of the tailnet, and a Unix
// socket. The kernel's semantics of both are those that sessions rely on.
type testSession struct {
	*Session
	peer   *net.TCPConn  // the client
	server *net.UnixConn // the server's end
	ended  chan struct{}
}

func newSession(t *testing.T, tailnet TailnetConn, local LocalConn) *Session {
	t.Helper()
	discard, err := events.Open(-1, false)
	if err != nil {
		t.Fatal(err)
	}
	return &Session{Events: discard, tailnet: tailnet, local: local}
}

func startSession(t *testing.T) *testSession {
	t.Helper()
	near, far := tbtest.TCPPair(t)
	local, server := tbtest.UnixPair(t)
	s := &testSession{
		Session: newSession(t, near, local),
		peer:    far, server: server, ended: make(chan struct{}),
	}
	go func() { defer close(s.ended); s.Run() }()
	t.Cleanup(func() { s.Abort(); s.awaitEnd(t) })
	return s
}

func (s *testSession) awaitEnd(t *testing.T) {
	t.Helper()
	tbtest.Receive(t, "the session ends", s.ended)
}

// A client that ends its direction still receives its answer, and then the end.
func TestSessionHalfCloseByTheClient(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	tbtest.Write(t, s.peer, "question")
	if err := s.peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, s.server); got != "question" {
		t.Fatalf("the server got %q", got)
	}
	tbtest.Write(t, s.server, "answer")
	s.server.Close()
	if got := tbtest.ReadAll(t, s.peer); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	s.awaitEnd(t)
}

// A server that ends its direction still receives what the client sends afterwards.
func TestSessionHalfCloseByTheServer(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	tbtest.Write(t, s.server, "answer")
	if err := s.server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, s.peer); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	tbtest.Write(t, s.peer, "more")
	if err := s.peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, s.server); got != "more" {
		t.Fatalf("the server got %q", got)
	}
	s.awaitEnd(t)
}

// When the server closes, the client sees the end at once. A client that ignores it does
// not keep the session open.
func TestSessionEndsWithTheServer(t *testing.T) {
	for _, how := range []string{"closed", "half-closed first"} {
		t.Run(how, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			s := startSession(t)
			tbtest.Write(t, s.peer, "question")
			buffer := make([]byte, 8)
			if _, err := io.ReadFull(s.server, buffer); err != nil {
				t.Fatal(err)
			}
			tbtest.Write(t, s.server, "answer")
			if how == "half-closed first" {
				if err := s.server.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got := tbtest.ReadAll(t, s.peer); got != "answer" {
					t.Fatalf("the client got %q", got)
				}
				tbtest.Write(t, s.peer, "and more") // the session continues
				if _, err := io.ReadFull(s.server, buffer); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			s.server.Close()
			if how == "closed" {
				if got := tbtest.ReadAll(t, s.peer); got != "answer" {
					t.Fatalf("the client got %q", got)
				}
				if took := time.Since(begun); took > linger/2 {
					t.Errorf("the client saw the end after %v", took)
				}
			}
			s.awaitEnd(t)
			if took := time.Since(begun); took < linger/2 || took > tbtest.Limit/2 {
				t.Errorf("the session outlived its server by %v", took)
			}
		})
	}
}

// An answer that was sent before everything was read, such as "too large", reaches a
// client that is still sending, although the server has closed.
func TestSessionDeliversAnEarlyAnswer(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		chunk := make([]byte, 64<<10)
		for range 64 {
			if _, err := s.peer.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.ReadFull(s.server, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	answer := bytes.Repeat([]byte("too large "), 1000)
	tbtest.Write(t, s.server, string(answer))
	s.server.Close()
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(s.peer, got); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("the client got %d bytes: %v", len(got), err)
	}
	tbtest.Receive(t, "the client has sent everything", sent)
	s.peer.Close()
	s.awaitEnd(t)
}

// A client's reset ends the server's connection at once.
func TestSessionEndsWithAReset(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	tbtest.Write(t, s.peer, "question")
	if _, err := io.ReadFull(s.server, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	Reset(s.peer)
	if got := tbtest.ReadAll(t, s.server); got != "" {
		t.Fatalf("the server got %q", got)
	}
	s.awaitEnd(t)
	if took := time.Since(begun); took > linger/2 {
		t.Errorf("it took %v", took)
	}
}

// Abort resets the client, so that it does not take a part of an answer for the whole.
func TestSessionAbortResets(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	tbtest.Write(t, s.server, "half an ans")
	if _, err := io.ReadFull(s.peer, make([]byte, 11)); err != nil {
		t.Fatal(err)
	}
	s.Abort()
	s.Abort()
	if _, err := io.ReadAll(s.peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	s.awaitEnd(t)
}

// A peer that accepts no bytes does not keep a session open whose server has closed.
func TestSweepAbortsAStalledWrite(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	fill(t, s)
	now := time.Now()
	s.sweep(now)
	s.sweep(now.Add(time.Hour))
	select {
	case <-s.ended:
		t.Fatal("the session was aborted although its server is open and there is no WriteTimeout")
	default:
	}
	s.server.Close()
	tbtest.Eventually(t, "the server has hung up", func() bool { return hasHungUp(s.local) })
	s.sweep(now.Add(time.Hour))
	s.awaitEnd(t)
	if _, err := io.Copy(io.Discard, s.peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}

// A peer that accepts nothing for WriteTimeout is reset.
func TestSweepAppliesTheWriteTimeout(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	s.WriteTimeout = 10 * time.Second // only sweep reads it
	fill(t, s)
	now := time.Now()
	s.sweep(now)
	s.sweep(now.Add(s.WriteTimeout - 1))
	select {
	case <-s.ended:
		t.Fatal("the session was aborted before its time")
	default:
	}
	s.sweep(now.Add(s.WriteTimeout))
	s.awaitEnd(t)
	if _, err := io.Copy(io.Discard, s.peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}

// fill sends from the server until every buffer on the way is full.
func fill(t *testing.T, s *testSession) {
	t.Helper()
	chunk := make([]byte, 64<<10)
	for {
		if err := s.server.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.server.Write(chunk); err != nil {
			return
		}
	}
}

// A panic while copying ends that connection and nothing else.
func TestSessionSurvivesAPanic(t *testing.T) {
	for _, side := range []string{"inbound", "outbound"} {
		t.Run(side, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			log, pipe := eventstest.Open(t)
			near, far := tbtest.TCPPair(t)
			local, server := tbtest.UnixPair(t)
			s := &Session{Events: pipe, tailnet: near, local: local}
			if side == "inbound" {
				s.tailnet = brokenConn{near}
			} else {
				s.local = brokenLocal{local}
			}
			s.Run()
			if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) && err != nil {
				t.Errorf("the client sees %v", err)
			}
			if got := tbtest.ReadAll(t, server); got != "" {
				t.Errorf("the server got %q", got)
			}
			tbtest.Eventually(t, "the panic is reported", func() bool { return log.HasType("fault") })
		})
	}
}

type brokenConn struct{ *net.TCPConn }

func (brokenConn) Read([]byte) (int, error) { panic("injected") }

type brokenLocal struct{ *net.UnixConn }

func (brokenLocal) Read([]byte) (int, error) { panic("injected") }

// When both directions end at once, poll reports a hang-up. The last answer is delivered
// all the same, every time.
func TestSessionBothDirectionsEndAtOnce(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	for range 200 {
		s := startSession(t)
		go func() {
			_, _ = io.WriteString(s.peer, "question")
			_ = s.peer.CloseWrite()
		}()
		if _, err := io.WriteString(s.server, "answer"); err != nil {
			t.Fatal(err)
		}
		s.server.CloseWrite()
		if got := tbtest.ReadAll(t, s.server); got != "question" {
			t.Fatalf("the server got %q", got)
		}
		s.server.Close()
		if got := tbtest.ReadAll(t, s.peer); got != "answer" {
			t.Fatalf("the client got %q", got)
		}
		s.awaitEnd(t)
	}
}

// Many bytes are copied unchanged in both directions.
func TestSessionCopiesEverything(t *testing.T) {
	tbtest.CheckNoLeaks(t)
	s := startSession(t)
	want := make([]byte, 5<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"in", s.peer, s.server}, {"out", s.server, s.peer}} {
		failed := make(chan error, 1)
		go func() { _, err := way.from.Write(want); failed <- err }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(way.to, got); err != nil {
			t.Fatal(err)
		}
		if err := tbtest.Receive(t, "the write ends", failed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: changed on the way", way.name)
		}
	}
}

// isTimeout recognizes the kernel's expired deadlines.
func TestIsTimeout(t *testing.T) {
	if !isTimeout(os.ErrDeadlineExceeded) || isTimeout(io.EOF) || isTimeout(syscall.ECONNRESET) {
		t.Error("only an expired deadline is a timeout")
	}
}
