package tailnode

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

func (n *testNode) mustForward(local, remote string) *Forward {
	n.t.Helper()
	forward, err := n.Forward(ForwardConfig{Local: local, Remote: remote, WaitMS: tbtest.Limit.Milliseconds()})
	if err != nil {
		n.t.Fatal(err)
	}
	return forward
}

func (f *Forward) mustConnect(t *testing.T) net.Conn {
	t.Helper()
	addr := f.listener.Addr()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	tbtest.Bound(t, conn)
	return conn
}

// wantReset connects and expects a reset, at the latest on the first read.
func (f *Forward) wantReset(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", f.Local())
	if err == nil {
		tbtest.Bound(t, conn)
		_, err = io.ReadAll(conn)
	}
	if !tbtest.IsReset(err) {
		t.Errorf("the client sees %v", err)
	}
}

// A forward reaches its peer by any of the peer's names and addresses, from TCP on both
// loopbacks and from a Unix socket.
func TestForwardReachesItsPeer(t *testing.T) {
	checkNoLeaks(t)
	net, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 100)
	path := filepath.Join(t.TempDir(), "f")
	full := "server." + net.Info().Tailnet
	for _, way := range [][2]string{
		{"127.0.0.1:0", "server:80"},
		{"localhost:0", "SERVER:80"},
		{"[::1]:0", full + ":80"},
		{"127.0.0.1:0", full + ".:80"},
		{"127.0.0.1:0", server.port80().String()},
		{"127.0.0.1:0", netip.AddrPortFrom(server.v6(), 80).String()},
		{"127.0.0.1:0", "[::ffff:" + server.v4().String() + "]:80"},
		{"unix:" + path, "server:80"},
	} {
		forward := client.mustForward(way[0], way[1])
		conn := forward.mustConnect(t)
		if err := tbtest.Exchange(conn, "hello"); err != nil {
			t.Errorf("%s to %s: %v", way[0], way[1], err)
		}
		conn.Close()
		forward.Close(time.Second)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's file was not removed: %v", err)
	}
}

// Only its user can connect to a forward's Unix socket, from the first moment.
func TestForwardSocketIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	listener, err := listenLocal("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("its mode is %o", got)
	}
}

// A forward to anything but a peer is an error: a forward never leaves the tailnet, and
// does not lead to the node itself.
func TestForwardAcceptsPeersOnly(t *testing.T) {
	checkNoLeaks(t)
	net, server, client := two(t)
	outside := startEcho(t)
	for _, remote := range []string{
		outside, "localhost:80", "127.0.0.1:80", "[::1]:80", "1.1.1.1:53", "example.com:80", "nobody:80", "serve:80",
		"server.other.test:80", "server.dev:80", "*:80", ".:80", net.Info().Tailnet + ":80", "100.100.100.100:80",
		"100.127.255.254:80", "[fd7a:115c:a1e0::dead]:80", client.v4().String() + ":80", "client:80", "[fe80::1%lo]:80",
	} {
		_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: remote, WaitMS: 1})
		if tberr.CodeOf(err) != tberr.PeerNotFound {
			t.Errorf("%s: %v", remote, err)
		}
	}
	for _, remote := range []string{"", "server", "server:", ":80", "server:0", "server:65536", "server:http", "server:-1", "a:b:80"} {
		_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: remote, WaitMS: 1})
		if tberr.CodeOf(err) != tberr.BadArgument {
			t.Errorf("%s: %v", remote, err)
		}
	}
	_ = server
}

func startEcho(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// A forward listens on this machine only.
func TestForwardListensOnLoopbackOnly(t *testing.T) {
	checkNoLeaks(t)
	_, _, client := two(t)
	for _, local := range []string{
		"0.0.0.0:0", "[::]:0", ":0", "192.168.0.1:0", "example.com:0", "127.0.0.1", "unix:relative", "unix:@abstract", "unix:", "",
		"unix:/no/such/dir/s", "127.0.0.1:99999", "127.0.0.1:x", client.v4().String() + ":0", "unix:/" + strings.Repeat("x", 200),
	} {
		_, err := client.Forward(ForwardConfig{Local: local, Remote: "server:80", WaitMS: tbtest.Limit.Milliseconds()})
		if tberr.CodeOf(err) != tberr.BadArgument {
			t.Errorf("%q: %v", local, err)
		}
	}
	taken := startEcho(t)
	_, err := client.Forward(ForwardConfig{Local: taken, Remote: "server:80", WaitMS: tbtest.Limit.Milliseconds()})
	wantCode(t, tberr.AddressInUse, err)
	if !strings.Contains(err.Error(), taken) {
		t.Errorf("the error does not name %s: %v", taken, err)
	}
}

// Once the peer is gone from the tailnet, or its key has expired, connections are
// reset, and a new forward is refused.
func TestForwardEndsWithItsPeer(t *testing.T) {
	for _, fault := range []string{"remove_node", "expire_node"} {
		t.Run(fault, func(t *testing.T) {
			checkNoLeaks(t)
			net, server, client := two(t)
			server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 100)
			forward := client.mustForward("127.0.0.1:0", "server:80")
			conn := forward.mustConnect(t)
			tbtest.MustExchange(t, conn, "hello")
			net.do(fault, map[string]any{"node": "server"})
			tbtest.Eventually(t, "the peer is gone", func() bool {
				_, _, err := forward.resolve()
				return tberr.CodeOf(err) == tberr.PeerNotFound
			})
			forward.wantReset(t)
			_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: "server:80", WaitMS: 1})
			wantCode(t, tberr.PeerNotFound, err)
			// The server is not notified any more: its connection ends when it closes.
			if err := server.Close(tbtest.Limit); err != nil {
				t.Error(err)
			}
		})
	}
}

// A forward can be started before its peer is in the netmap.
func TestForwardWaitsForItsPeer(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	client := net.join("client", "dev@example.com")
	made := make(chan error, 1)
	go func() {
		_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: "server:80", WaitMS: tbtest.Limit.Milliseconds()})
		made <- err
	}()
	net.join("server", "srv@example.com")
	if err := tbtest.Receive(t, "Forward returns", made); err != nil {
		t.Fatal(err)
	}
	closing := make(chan error, 1)
	go func() {
		_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: "never:80", WaitMS: 10 * tbtest.Limit.Milliseconds()})
		closing <- err
	}()
	if err := client.Close(tbtest.Limit); err != nil {
		t.Fatal(err)
	}
	wantCode(t, tberr.Closed, tbtest.Receive(t, "Forward returns", closing))
}

// If the peer refuses the port, the local client is reset, as if it had dialed the peer
// itself.
func TestForwardPassesARefusalOn(t *testing.T) {
	checkNoLeaks(t)
	_, _, client := two(t)
	client.mustForward("127.0.0.1:0", "server:81").wantReset(t)
}

// Half-close and reset pass through a forward and a listener in both directions.
func TestForwardEndsAsEitherSideDoes(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	ended := make(chan string, 4)
	server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		question, err := io.ReadAll(conn)
		if len(question) > 0 {
			_, _ = io.WriteString(conn, strings.ToUpper(string(question)))
		}
		ended <- fmt.Sprintf("%q %v", question, err)
	}), 100)
	forward := client.mustForward("127.0.0.1:0", "server:80")

	conn := forward.mustConnect(t).(*net.TCPConn)
	tbtest.Write(t, conn, "question")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, conn); got != "QUESTION" {
		t.Errorf("got %q", got)
	}
	tbtest.Receive(t, "the server's connection ends", ended)

	conn = forward.mustConnect(t).(*net.TCPConn)
	tbtest.Write(t, conn, "never answered")
	tbtest.Eventually(t, "the connection is there", func() bool { return relay.OpenSessions() == 2 })
	begun := time.Now()
	relay.Reset(conn)
	tbtest.Receive(t, "the server's connection ends", ended)
	if took := time.Since(begun); took > tbtest.Limit/2 {
		t.Errorf("the server saw the reset after %v", took)
	}
	tbtest.Eventually(t, "nothing is left", func() bool { return relay.OpenSessions() == 0 })
}

// Closing a forward without a drain resets its connections at once.
func TestForwardClose(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 100)
	forward := client.mustForward("127.0.0.1:0", "server:80")
	conn := forward.mustConnect(t)
	tbtest.MustExchange(t, conn, "hello")
	var closers sync.WaitGroup
	for range 2 {
		closers.Go(func() { forward.Close(0) })
	}
	closers.Wait()
	if _, err := io.ReadAll(conn); !tbtest.IsReset(err) {
		t.Errorf("the client sees %v", err)
	}
	if _, err := net.Dial("tcp", forward.Local()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port is still open: %v", err)
	}
}

// A forward accepts many connections at once, and resets those beyond its limit.
func TestForwardLimitsConnections(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 100)
	forward, err := client.forward(ForwardConfig{Local: "127.0.0.1:0", Remote: "server:80"}, 16)
	if err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	for range 16 {
		conn := forward.mustConnect(t)
		tbtest.MustExchange(t, conn, "in")
		open = append(open, conn)
	}
	forward.wantReset(t)
	for _, conn := range open {
		tbtest.MustExchange(t, conn, "still in")
	}
}

// Without the extension, a forward finds its peer through tailscale's public API.
func TestForwardWithoutTheExtension(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 100)
	client.mu.Lock()
	client.ext = nil
	client.mu.Unlock()
	tbtest.MustExchange(t, client.mustForward("127.0.0.1:0", "server:80").mustConnect(t), "hello")
	_, err := client.Forward(ForwardConfig{Local: "127.0.0.1:0", Remote: "nobody:80", WaitMS: 1})
	wantCode(t, tberr.PeerNotFound, err)
}
