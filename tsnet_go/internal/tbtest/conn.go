package tbtest

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// StartUnixServer runs a stand-in for the Python server, which passes each connection
// to serve and closes it afterwards. It returns the path of the server's socket.
func StartUnixServer(t testing.TB, serve func(*net.UnixConn)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(2 * Limit)); err != nil {
					t.Error(err)
				}
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return path
}

// Echo sends back what it receives until the client ends its direction.
func Echo(conn *net.UnixConn) { _, _ = io.Copy(conn, conn) }

// TCPPair returns both ends of a connection on loopback.
func TCPPair(t testing.TB) (near, far *net.TCPConn) {
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
	Bound(t, near, far)
	return near, far
}

// UnixPair returns both ends of a Unix connection. Only the far end has a deadline.
func UnixPair(t testing.TB) (near, far *net.UnixConn) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if near, err = net.DialUnix("unix", nil, listener.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if far, err = listener.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	Bound(t, far)
	return near, far
}

// Bound gives connections a deadline of Limit, and closes them at the test's end.
func Bound(t testing.TB, conns ...net.Conn) {
	t.Helper()
	for _, conn := range conns {
		if err := conn.SetDeadline(time.Now().Add(Limit)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// Write sends a text.
func Write(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// ReadAll returns what arrives until the other end ends its direction.
func ReadAll(t testing.TB, from io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(from)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// Exchange sends a text and receives it back.
func Exchange(conn net.Conn, text string) error {
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("sent %q, received %q", text, back)
	}
	return nil
}

// MustExchange fails the test if Exchange does not succeed.
func MustExchange(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if err := Exchange(conn, text); err != nil {
		t.Fatal(err)
	}
}

// IsReset reports whether a connection ended with a reset, on loopback or in netstack.
func IsReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }
