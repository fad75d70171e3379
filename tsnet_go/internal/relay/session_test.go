package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pair between loopback TCP, in the place of the tailnet, and a Unix socket: the
// kernel's semantics of both are those that the bridge relies on.
type testPair struct {
	*pair
	peer   *net.TCPConn  // who calls over the "tailnet"
	server *net.UnixConn // the Python server's end
	ended  chan struct{}
}

func startPair(t *testing.T) *testPair {
	t.Helper()
	near, far := tcpPair(t)
	local, server := unixPair(t)
	p := &testPair{
		pair: &pair{events: &events{fd: -1}, tailnet: near, local: local},
		peer: far, server: server, ended: make(chan struct{}),
	}
	go func() { defer close(p.ended); p.run() }()
	t.Cleanup(func() { p.kill(); <-p.ended })
	return p
}

func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if far, err = net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if near, err = listener.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	limit(t, near, far)
	return near, far
}

func unixPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	accepted := make(chan *net.UnixConn, 1)
	server := startUnixServer(t, func(conn *net.UnixConn) {
		raw, err := conn.File()
		if err != nil {
			t.Error(err)
			return
		}
		defer raw.Close()
		own, err := net.FileConn(raw) // the server closes its own copy
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- own.(*net.UnixConn)
	})
	near, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: server.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	limit(t, far)
	return near, far
}

// limit bounds the ends that a test uses, and closes them.
func limit(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, conn := range conns {
		if err := conn.SetDeadline(time.Now().Add(waitLimit)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
}

func (p *testPair) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(waitLimit):
		t.Fatal("the pair did not end")
	}
}

func readAll(t *testing.T, conn net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// A client that ends its side still gets its answer, and then the end.
func TestPairHalfCloseByTheClient(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	write(t, p.peer, "question")
	if err := p.peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, p.server); got != "question" {
		t.Fatalf("the server got %q", got)
	}
	write(t, p.server, "answer")
	p.server.Close()
	if got := readAll(t, p.peer); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	p.awaitEnd(t)
}

// A server that ends its side still gets what the client goes on to say.
func TestPairHalfCloseByTheServer(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	write(t, p.server, "answer")
	if err := p.server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, p.peer); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	write(t, p.peer, "more")
	if err := p.peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, p.server); got != "more" {
		t.Fatalf("the server got %q", got)
	}
	p.awaitEnd(t)
}

// When the server closes, the client gets the end at once; a client that ignores it
// does not keep the pair.
func TestPairEndsWithTheServer(t *testing.T) {
	for _, how := range []string{"closed", "half-closed first"} {
		t.Run(how, func(t *testing.T) {
			checkNoLeaks(t)
			p := startPair(t)
			write(t, p.peer, "question")
			buffer := make([]byte, 8)
			if _, err := io.ReadFull(p.server, buffer); err != nil {
				t.Fatal(err)
			}
			write(t, p.server, "answer")
			if how == "half-closed first" {
				if err := p.server.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, p.peer); got != "answer" {
					t.Fatalf("the client got %q", got)
				}
				write(t, p.peer, "and more") // the pair goes on
				if _, err := io.ReadFull(p.server, buffer); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			p.server.Close()
			if how == "closed" {
				if got := readAll(t, p.peer); got != "answer" {
					t.Fatalf("the client got %q", got)
				}
				if took := time.Since(begun); took > lingerFor/2 {
					t.Errorf("the client heard of the end after %v", took)
				}
			}
			p.awaitEnd(t)
			if took := time.Since(begun); took < lingerFor/2 || took > waitLimit/2 {
				t.Errorf("the pair lasted %v beyond its server", took)
			}
		})
	}
}

// An answer that was sent before everything was read, such as "too large", reaches a
// client that is still sending, though the server has closed.
func TestPairDeliversAnAnswerThatCameEarly(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		chunk := make([]byte, 64<<10)
		for range 64 {
			if _, err := p.peer.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.ReadFull(p.server, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	answer := bytes.Repeat([]byte("too large "), 1000)
	write(t, p.server, string(answer))
	p.server.Close()
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(p.peer, got); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("the client got %d bytes: %v", len(got), err)
	}
	<-sent
	p.peer.Close()
	p.awaitEnd(t)
}

// A client's reset ends the server's connection at once.
func TestPairEndsWithAReset(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	write(t, p.peer, "question")
	if _, err := io.ReadFull(p.server, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	reset(p.peer)
	if got := readAll(t, p.server); got != "" {
		t.Fatalf("the server got %q", got)
	}
	p.awaitEnd(t)
	if took := time.Since(begun); took > lingerFor/2 {
		t.Errorf("it took %v", took)
	}
}

// kill resets the client, so that it does not take what it has for the whole.
func TestPairKillResets(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	write(t, p.server, "half an ans")
	if _, err := io.ReadFull(p.peer, make([]byte, 11)); err != nil {
		t.Fatal(err)
	}
	p.kill()
	p.kill()
	if _, err := io.ReadAll(p.peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	p.awaitEnd(t)
}

// A peer that takes nothing does not keep a pair whose server is gone.
func TestPairSweepEndsAStuckWrite(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	filled := make(chan struct{})
	go func() { // until every buffer on the way is full
		defer close(filled)
		chunk := make([]byte, 64<<10)
		for {
			if err := p.server.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Error(err)
			}
			if _, err := p.server.Write(chunk); err != nil {
				return
			}
		}
	}()
	<-filled
	now := time.Now()
	p.sweep(now)
	p.sweep(now.Add(time.Hour))
	select {
	case <-p.ended:
		t.Fatal("a pair was ended whose server is still there")
	default:
	}
	p.server.Close()
	eventually(t, "the server's end is seen", func() bool { return hasHungUp(p.local) })
	p.sweep(now.Add(time.Hour))
	p.awaitEnd(t)
	if _, err := io.Copy(io.Discard, p.peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}

// A panic while copying costs that connection and nothing else.
func TestPairSurvivesAPanic(t *testing.T) {
	for _, side := range []string{"inbound", "outbound"} {
		t.Run(side, func(t *testing.T) {
			checkNoLeaks(t)
			log, fd := newEventLog(t)
			ev, err := newEvents(fd, false)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			t.Cleanup(ev.close)
			near, far := tcpPair(t)
			local, server := unixPair(t)
			p := &pair{events: ev, tailnet: near, local: local}
			if side == "inbound" {
				p.tailnet = brokenConn{near}
			} else {
				p.local = brokenLocal{local}
			}
			p.run()
			if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) && err != nil {
				t.Errorf("the client sees %v", err)
			}
			if got := readAll(t, server); got != "" {
				t.Errorf("the server got %q", got)
			}
			eventually(t, "the fault is told", func() bool { return log.hasType("fault") })
		})
	}
}

type brokenConn struct{ *net.TCPConn }

func (brokenConn) Read([]byte) (int, error) { panic("injected") }

type brokenLocal struct{ *net.UnixConn }

func (brokenLocal) Read([]byte) (int, error) { panic("injected") }

// Half-closing both ways looks like a hang-up to poll; the last answer still gets
// through, every time.
func TestPairBothEndsAtOnceLosesNothing(t *testing.T) {
	checkNoLeaks(t)
	for range 200 {
		p := startPair(t)
		go func() {
			_, _ = io.WriteString(p.peer, "question")
			_ = p.peer.CloseWrite()
		}()
		if _, err := io.WriteString(p.server, "answer"); err != nil {
			t.Fatal(err)
		}
		p.server.CloseWrite()
		if got := readAll(t, p.server); got != "question" {
			t.Fatalf("the server got %q", got)
		}
		p.server.Close()
		if got := readAll(t, p.peer); got != "answer" {
			t.Fatalf("the client got %q", got)
		}
		p.awaitEnd(t)
	}
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// A listener's or forward's bytes come through unchanged, however many.
func TestPairCopiesEverything(t *testing.T) {
	checkNoLeaks(t)
	p := startPair(t)
	want := make([]byte, 5<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"in", p.peer, p.server}, {"out", p.server, p.peer}} {
		failed := make(chan error, 1)
		go func() { _, err := way.from.Write(want); failed <- err }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(way.to, got); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: changed on the way", way.name)
		}
	}
}

// A timeout of gonet's is none of os's: isTimeout knows both.
func TestIsTimeout(t *testing.T) {
	if !isTimeout(os.ErrDeadlineExceeded) || isTimeout(io.EOF) || isTimeout(syscall.ECONNRESET) {
		t.Error("a deadline is a timeout, an end and a reset are none")
	}
}
