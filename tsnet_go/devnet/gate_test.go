package devnet

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// gatedPair returns a client's connection and the server's gated end of it.
func gatedPair(t *testing.T) (g *gate, client net.Conn, server net.Conn) {
	t.Helper()
	raw, err := net.Listen("tcp4", loopbackIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	g = newGate()
	if client, err = net.Dial("tcp4", raw.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = (&gatedListener{Listener: raw, gate: g}).Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return g, client, server
}

type readResult struct {
	data string
	err  error
}

func readAsync(c net.Conn) <-chan readResult {
	out := make(chan readResult, 1)
	go func() {
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		out <- readResult{string(buf[:n]), err}
	}()
	return out
}

// A read that was already waiting when the gate was paused returns only after it is
// resumed.
func TestGateHoldsWaitingRead(t *testing.T) {
	g, client, server := gatedPair(t)
	got := readAsync(server)
	g.pause()
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-got:
		t.Fatalf("read %q, %v through a paused gate", r.data, r.err)
	case <-time.After(50 * time.Millisecond): // nothing may happen
	}
	g.resume()
	if r := tbtest.Receive(t, "the read ends", got); r.data != "hello" || r.err != nil {
		t.Errorf("read %q, %v, want hello", r.data, r.err)
	}
}

// A write waits at the gate, and its deadline is extended by the wait.
func TestGateExtendsWriteDeadline(t *testing.T) {
	g, client, server := gatedPair(t)
	g.pause()
	if err := server.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(server, "hello")
		wrote <- err
	}()
	select {
	case err := <-wrote:
		t.Fatalf("write ended with %v at a paused gate", err)
	case <-time.After(60 * time.Millisecond): // past the deadline
	}
	g.resume()
	if err := tbtest.Receive(t, "the write ends", wrote); err != nil {
		t.Errorf("write after the pause: %v", err)
	}
	if r := tbtest.Receive(t, "the read ends", readAsync(client)); r.data != "hello" {
		t.Errorf("the client read %q, %v, want hello", r.data, r.err)
	}
}

// Closing a connection ends calls that wait at the gate.
func TestGateCloseWhilePaused(t *testing.T) {
	g, _, server := gatedPair(t)
	g.pause()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(server, "hello")
		wrote <- err
	}()
	server.Close()
	if err := tbtest.Receive(t, "the write ends", wrote); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write ended with %v, want net.ErrClosed", err)
	}
}

// shut closes every connection and accepts no more, even while paused.
func TestGateShut(t *testing.T) {
	g, client, server := gatedPair(t)
	g.pause()
	g.shut()
	if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after shut: %v, want net.ErrClosed", err)
	}
	if r := tbtest.Receive(t, "the read ends", readAsync(client)); r.err != io.EOF {
		t.Errorf("the client read %q, %v, want EOF", r.data, r.err)
	}
	if g.add(&gatedConn{}) {
		t.Error("a shut gate accepted a connection")
	}
}
