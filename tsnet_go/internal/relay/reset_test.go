package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// gonet's endpoint is where endpointOf looks for it: a reset over the tailnet is
// one, and a confirmed end is known.
func TestEndpointIsFound(t *testing.T) {
	if !endpointKnown {
		t.Fatal("gonet has another field than expected: a reset is only a close")
	}
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(startUnixServer(t, func(conn *net.UnixConn) {
		_, _ = io.Copy(io.Discard, conn)
	}), 10)
	conn := client.mustDial(server.port80())
	defer conn.Close()
	if delivered(conn) {
		t.Error("an open connection counts as confirmed")
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, conn); got != "" {
		t.Errorf("got %q", got)
	}
	eventually(t, "the end is confirmed", func() bool { return delivered(conn) })
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	again := client.mustDial(server.port80())
	defer again.Close()
	if err := again.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("gonet's deadline is %v", err)
	}
}
