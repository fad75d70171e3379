package tailnode

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"tailscale.com/wgengine/netstack"

	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// stackOf returns the gvisor stack inside tailscale's.
func stackOf(t *testing.T, impl *netstack.Impl) *stack.Stack {
	t.Helper()
	field := reflect.ValueOf(impl).Elem().FieldByName("ipstack")
	return *(**stack.Stack)(unsafe.Pointer(field.UnsafeAddr()))
}

// dialFrom is dial from a chosen port.
func (n *testNode) dialFrom(t *testing.T, port uint16, to netip.AddrPort, limit time.Duration) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	full := func(ap netip.AddrPort) tcpip.FullAddress {
		return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
	}
	return gonet.DialTCPWithBind(ctx, stackOf(t, n.stack), full(netip.AddrPortFrom(n.v4(), port)), full(to), header.IPv4ProtocolNumber)
}

// A listener relays bytes both ways, over IPv4 and IPv6, and its peer names say who
// calls.
func TestListenerNamesTheCaller(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	names := make(chan string, 2)
	unixEnd := tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		names <- conn.RemoteAddr().String()
		tbtest.Echo(conn)
	})
	server.listenOn(unixEnd, 10)
	for _, to := range []netip.Addr{server.v4(), server.v6()} {
		conn := client.mustDial(netip.AddrPortFrom(to, 80))
		defer conn.Close()
		tbtest.MustExchange(t, conn, "hello")
		name := tbtest.Receive(t, "the server accepts", names)
		want := "@" + PeerPrefix + "test/" + conn.LocalAddr().String() + "/"
		if !strings.HasPrefix(name, want) || len(name) > 108 {
			t.Errorf("want %s…, got %s", want, name)
		}
		source := strings.Split(strings.TrimPrefix(name, "@"+PeerPrefix), "/")[1]
		answer, err := server.Whois(source)
		if err != nil {
			t.Fatal(err)
		}
		var who struct{ Login string }
		if err := json.Unmarshal(answer, &who); err != nil || who.Login != "dev@example.com" {
			t.Errorf("whois %s: %s, %v", source, answer, err)
		}
	}
}

// Connections beyond the limit are refused at their SYN and counted. Once one closes,
// another is accepted.
func TestListenerLimitsConnections(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 3)
	rejected := Rejected()
	var open []*gonet.TCPConn
	for range 3 {
		conn := client.mustDial(server.port80())
		defer conn.Close()
		tbtest.MustExchange(t, conn, "in")
		open = append(open, conn)
	}
	for i := range int64(5) {
		conn, err := client.dial(server.port80())
		if err == nil {
			conn.Close()
			t.Fatal("a fourth connection was accepted")
		}
		if !strings.Contains(err.Error(), "refused") {
			t.Errorf("the client sees %v", err)
		}
		if got := Rejected() - rejected; got != i+1 {
			t.Errorf("%d are counted, want %d", got, i+1)
		}
	}
	tbtest.MustExchange(t, open[0], "still in")
	open[1].Close()
	tbtest.Eventually(t, "a connection is removed", func() bool { return listener.sessions.Len() == 2 })
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in again")
}

// One peer can have its share of the connections and no more. Other peers are still
// served, and the peer is served again once one of its connections closes.
func TestListenerLimitsConnectionsPerPeer(t *testing.T) {
	checkNoLeaks(t)
	net, server, client := two(t)
	other := net.join("other", "dev@example.com")
	other.sees(server)
	const share = 20
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 4*share)
	var open []*gonet.TCPConn
	for range share {
		conn := client.mustDial(server.port80())
		defer conn.Close()
		tbtest.MustExchange(t, conn, "in")
		open = append(open, conn)
	}
	if conn, err := client.dial(server.port80()); err == nil {
		conn.Close()
		t.Error("the peer has more connections than its share")
	}
	conn := other.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
	open[0].Close()
	tbtest.Eventually(t, "a connection is removed", func() bool { return listener.sessions.Len() == share })
	again := client.mustDial(server.port80())
	defer again.Close()
	tbtest.MustExchange(t, again, "in again")
}

// awaitStall waits until something has been written, and no more is for a moment.
func awaitStall(t *testing.T, written *atomic.Int64) {
	t.Helper()
	tbtest.Eventually(t, "writes are stalled", func() bool {
		before := written.Load()
		time.Sleep(100 * time.Millisecond)
		return before > 0 && written.Load() == before
	})
}

// A peer that requests much and reads nothing holds little in netstack, and is reset.
func TestListenerResetsAPeerThatReadsNothing(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	var written atomic.Int64
	listener := server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		for chunk := make([]byte, 4<<10); ; {
			n, err := conn.Write(chunk)
			written.Add(int64(n))
			if err != nil { // the relay has hung up
				return
			}
		}
	}), 10)
	conn := client.mustDial(server.port80())
	awaitStall(t, &written)
	now := time.Now()
	listener.sessions.Sweep(now)
	listener.sessions.Sweep(now.Add(writeTimeout - 1))
	if n := listener.sessions.Len(); n != 1 {
		t.Fatalf("%d connections are open, want 1", n)
	}
	listener.sessions.Sweep(now.Add(writeTimeout))
	tbtest.Eventually(t, "the connection is reset", func() bool { return listener.sessions.Len() == 0 })
	// Both ends' buffers in netstack, the socket's buffers, and a piece in between.
	if n := written.Load(); n > 2<<20 {
		t.Errorf("%d bytes were accepted for a peer that reads nothing", n)
	}
	if _, err := io.Copy(io.Discard, conn); !tbtest.IsReset(err) {
		t.Errorf("the client sees %v", err)
	}
}

// What a peer sends ahead of a server that reads nothing waits mostly at the peer.
func TestListenerHoldsLittleOfWhatIsNotRead(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	done := make(chan struct{})
	defer close(done)
	server.listenOn(tbtest.StartUnixServer(t, func(*net.UnixConn) { <-done }), 10)
	conn := client.mustDial(server.port80())
	var written atomic.Int64
	go func() {
		for chunk := make([]byte, 4<<10); ; {
			n, err := conn.Write(chunk)
			written.Add(int64(n))
			if err != nil { // the test has ended
				return
			}
		}
	}()
	awaitStall(t, &written)
	// The peer's own buffer, the accepted connection's, the socket's, and a piece in between.
	if n := written.Load(); n > sendBuffer+acceptedBuffer+4*unixBuffer {
		t.Errorf("%d bytes were accepted for a server that reads nothing", n)
	}
	conn.Close()
}

// A peer that sends faster than it may is delayed on all of its connections, and close
// does not wait for it.
func TestListenerDelaysAPeerThatSendsTooMuch(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	var received atomic.Int64
	listener, err := server.Listen(ListenConfig{
		Name: "test", Port: 80, MaxConnections: 10, MaxBytesPerS: 1,
		UnixPath: tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
			for chunk := make([]byte, 4<<10); ; {
				n, err := conn.Read(chunk)
				received.Add(int64(n))
				if err != nil {
					return
				}
			}
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn := client.mustDial(server.port80())
		go func() { _, _ = conn.Write(make([]byte, paceBurst)) }() // ends with a reset
	}
	tbtest.Eventually(t, "the burst has arrived", func() bool { return received.Load() > paceBurst-(24<<10) })
	tbtest.Within(t, "close", func() struct{} {
		listener.Close(0)
		return struct{}{}
	})
	if n := received.Load(); n > paceBurst+100 {
		t.Errorf("%d bytes have arrived", n)
	}
}

// Under a flood of connections that end in every way, no more than allowed are open at
// once, and the count ends at zero.
func TestListenerCountNeverDrifts(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	const most = 8
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), most)
	var clients sync.WaitGroup
	var served atomic.Int64
	for worker := range 24 {
		clients.Go(func() {
			for i := range 40 {
				conn, err := client.dial(server.port80())
				if err != nil {
					continue
				}
				if conn.SetDeadline(time.Now().Add(tbtest.Limit)) == nil && tbtest.Exchange(conn, "x") == nil {
					served.Add(1)
				}
				if n := listener.sessions.Len(); n > most {
					t.Errorf("%d are open at once", n)
				}
				switch (worker + i) % 3 {
				case 0:
					relay.Reset(conn)
				case 1:
					_ = conn.CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
				}
				conn.Close()
			}
		})
	}
	clients.Wait()
	tbtest.Eventually(t, "no connection is left", func() bool { return listener.sessions.Len() == 0 })
	if served.Load() == 0 || Rejected() == 0 {
		t.Errorf("%d served, %d rejected: want some of both", served.Load(), Rejected())
	}
	for range most {
		conn := client.mustDial(server.port80())
		defer conn.Close()
		tbtest.MustExchange(t, conn, "in after the flood")
	}
}

// A SYN whose handshake is never completed does not count against the limit.
func TestHalfOpenConnectionsAreNotCounted(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 2)
	for port := uint16(1); port <= 50; port++ {
		handler, intercept := listener.handleSYN(netip.AddrPortFrom(client.v4(), port), server.port80())
		if handler == nil || !intercept {
			t.Fatalf("SYN %d was refused", port)
		}
	}
	for range 2 {
		conn := client.mustDial(server.port80())
		defer conn.Close()
		tbtest.MustExchange(t, conn, "in")
	}
}

// Connections that complete their handshakes at the same moment are reset beyond the
// limit.
func TestListenerLimitsSimultaneousConnections(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 1)
	source := netip.AddrPortFrom(client.v4(), 1)
	var handlers []func(net.Conn)
	for range 2 { // both SYNs before either handshake is over
		handler, _ := listener.handleSYN(source, server.port80())
		handlers = append(handlers, handler)
	}
	first, firstPeer := tbtest.TCPPair(t)
	second, secondPeer := tbtest.TCPPair(t)
	ended := make(chan struct{})
	go func() { defer close(ended); handlers[0](first) }()
	tbtest.MustExchange(t, firstPeer, "in")
	handlers[1](second)
	if _, err := io.ReadAll(secondPeer); !tbtest.IsReset(err) {
		t.Errorf("the second sees %v", err)
	}
	firstPeer.Close()
	tbtest.Receive(t, "the connection ends", ended)
}

// A client can reuse its port soon after the server closed first: the old connection does
// not stay in TIME-WAIT for a minute.
func TestReusedPortsDoNotHang(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		_, _ = io.WriteString(conn, "bye")
	}), 100)
	for i := range 4 {
		var conn *gonet.TCPConn
		begun := time.Now()
		tbtest.Eventually(t, "the port can be used again", func() (ok bool) {
			var err error
			conn, err = client.dialFrom(t, 40000, server.port80(), 5*time.Second)
			return err == nil
		})
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("connection %d took %v", i, took)
		}
		if got := tbtest.ReadAll(t, conn); got != "bye" {
			t.Errorf("got %q", got)
		}
		conn.Close()
	}
}

// Hundreds of short connections that the server closes first all succeed.
func TestManyShortConnections(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		_, _ = io.WriteString(conn, "bye")
	}), 100)
	for i := range 300 {
		conn := client.mustDial(server.port80())
		if got := tbtest.ReadAll(t, conn); got != "bye" {
			t.Fatalf("connection %d got %q", i, got)
		}
		conn.Close()
	}
}

// A node's netstack has a TIME-WAIT of one second.
func TestTimeWaitIsOneSecond(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	node := net.join("node", "dev@example.com")
	var wait tcpip.TCPTimeWaitTimeoutOption
	if err := stackOf(t, node.stack).TransportProtocolOption(header.TCPProtocolNumber, &wait); err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(wait); got != time.Second {
		t.Errorf("TIME-WAIT is %v", got)
	}
}

// Half-close works in both directions over the tailnet.
func TestListenerHalfClose(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		question, _ := io.ReadAll(conn) // until the client's end
		_, _ = io.WriteString(conn, strings.ToUpper(string(question)))
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	}), 10)
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.Write(t, conn, "question")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, conn); got != "QUESTION" {
		t.Errorf("got %q", got)
	}
}

// A client's reset over the tailnet ends the server's connection at once, and closing the
// listener without a drain resets the client.
func TestListenerResetsBothWays(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	ended := make(chan struct{}, 1)
	listener := server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		tbtest.Echo(conn)
		ended <- struct{}{}
	}), 10)
	conn := client.mustDial(server.port80())
	tbtest.MustExchange(t, conn, "in")
	relay.Reset(conn)
	tbtest.Receive(t, "the server sees the reset", ended)
	conn = client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
	listener.Close(0)
	if _, err := io.ReadAll(conn); !tbtest.IsReset(err) {
		t.Errorf("the client sees %v", err)
	}
	tbtest.Receive(t, "the connection ends", ended)
}

// When the server closes, as Sanic does after a timeout, a silent client is disconnected
// and no longer counts.
func TestListenerDisconnectsASilentClient(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, func(conn *net.UnixConn) {
		_, _ = io.WriteString(conn, "too late")
	}), 1)
	conn := client.mustDial(server.port80()) // never closed by itself
	defer conn.Close()
	if got := tbtest.ReadAll(t, conn); got != "too late" {
		t.Errorf("got %q", got)
	}
	tbtest.Eventually(t, "a connection is removed", func() bool { return listener.sessions.Len() == 0 })
}

// A listener retries while the server's backlog is full. If nothing listens, it resets
// the client and sends a warning.
func TestListenerWaitsForAFullBacklog(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	path := t.TempDir() + "/s"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(ListenConfig{Name: "x", Port: 80, UnixPath: path, MaxConnections: 9}); err != nil {
		t.Fatal(err)
	}
	// The socket is bound but does not listen. The reset can arrive before dial returns.
	conn, err := client.dial(server.port80())
	if err == nil {
		_, err = io.ReadAll(conn)
		conn.Close()
	}
	if !tbtest.IsReset(err) {
		t.Errorf("the client sees %v", err)
	}
	tbtest.Eventually(t, "the warning", func() bool { return server.heard.HasType("warning") })

	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	filler, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if _, err := net.Dial("unix", path); err != nil && !isAgain(err) {
		t.Fatal(err)
	}
	waiting := client.mustDial(server.port80())
	defer waiting.Close()
	tbtest.Write(t, waiting, "hello")
	accepted := 0
	tbtest.Eventually(t, "the waiting connection arrives", func() bool {
		nfd, from, err := unix.Accept(fd)
		if err != nil {
			return false
		}
		accepted++
		defer unix.Close(nfd)
		name, _ := from.(*unix.SockaddrUnix)
		return strings.HasPrefix(name.Name, "@"+PeerPrefix+"x/")
	})
	if accepted < 2 {
		t.Errorf("the backlog was not full: %d accepted", accepted)
	}
}

func isAgain(err error) bool {
	return strings.Contains(err.Error(), syscall.EAGAIN.Error())
}

// Invalid settings are errors that say what is allowed.
func TestListenRefusesBadSettings(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	node := newTestNode(t, net.config("node", "dev@example.com"))
	good := ListenConfig{Name: "x", Port: 80, UnixPath: "/nowhere", MaxConnections: 1}
	_, err := node.Listen(good)
	wantCode(t, tberr.NotRunning, err)
	node.mustUp()
	for what, change := range map[string]func(*ListenConfig){
		"no name":         func(c *ListenConfig) { c.Name = "" },
		"a long name":     func(c *ListenConfig) { c.Name = "thirteen-char" },
		"a slash":         func(c *ListenConfig) { c.Name = "a/b" },
		"no port":         func(c *ListenConfig) { c.Port = 0 },
		"no path":         func(c *ListenConfig) { c.UnixPath = "" },
		"an abstract one": func(c *ListenConfig) { c.UnixPath = "@x" },
		"no connections":  func(c *ListenConfig) { c.MaxConnections = 0 },
		"a negative rate": func(c *ListenConfig) { c.MaxBytesPerS = -1 },
		"a host address":  func(c *ListenConfig) { c.Addresses = []string{"127.0.0.1"} },
		"no address":      func(c *ListenConfig) { c.Addresses = []string{"x"} },
	} {
		config := good
		change(&config)
		_, err := node.Listen(config)
		if tberr.CodeOf(err) != tberr.BadArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = node.Listen(ListenConfig{Name: "x", Port: 80, UnixPath: "/x", MaxConnections: 1, Addresses: []string{"1.2.3.4"}})
	if !strings.Contains(fmt.Sprint(err), node.v4().String()) {
		t.Errorf("the error does not list the allowed addresses: %v", err)
	}
	one, err := node.Listen(good)
	if err != nil {
		t.Fatal(err)
	}
	_, err = node.Listen(good)
	wantCode(t, tberr.AddressInUse, err)
	one.Close(0)
	one.Close(0)
	v4Only, v6Only := good, good
	v4Only.Addresses, v6Only.Addresses = []string{node.v4().String()}, []string{node.v6().String()}
	for _, config := range []ListenConfig{v4Only, v6Only} {
		if _, err := node.Listen(config); err != nil {
			t.Errorf("after the first was closed: %v", err)
		}
	}
}

// A listener serves its own address and port only.
func TestListenerServesItsAddressOnly(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	unixEnd := tbtest.StartUnixServer(t, tbtest.Echo)
	if _, err := server.Listen(ListenConfig{
		Name: "x", Port: 80, UnixPath: unixEnd, MaxConnections: 5, Addresses: []string{server.v4().String()},
	}); err != nil {
		t.Fatal(err)
	}
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(server.v6(), 80), netip.AddrPortFrom(server.v4(), 81)} {
		if conn, err := client.dial(to); err == nil {
			conn.Close()
			t.Errorf("%s was served", to)
		}
	}
}

// Close waits for open connections while it drains, and returns once they have ended.
func TestListenerCloseDrains(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 10)
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
	closed := make(chan struct{})
	go func() { defer close(closed); listener.Close(2 * tbtest.Limit) }()
	tbtest.Eventually(t, "new connections are refused", func() bool {
		late, err := client.dial(server.port80())
		if err == nil {
			late.Close()
		}
		return err != nil
	})
	tbtest.MustExchange(t, conn, "still served")
	select {
	case <-closed:
		t.Fatal("close did not wait")
	default:
	}
	conn.Close()
	tbtest.Receive(t, "Close returns after the last connection", closed)
}

// A panic while handling a SYN refuses that connection, and the next one is served.
func TestListenerSurvivesAPanic(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 10)
	broken := &Listener{node: &Node{events: server.events}, config: listener.config} // no server behind it
	handler, intercept := broken.handleSYN(netip.AddrPortFrom(client.v4(), 1), server.port80())
	if handler != nil || !intercept {
		t.Error("the broken listener accepted the connection")
	}
	tbtest.Eventually(t, "the panic is reported", func() bool { return server.heard.HasType("fault") })
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
}

// Closing a node with hundreds of open connections is fast.
func TestCloseWithManyConnections(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 4*600)
	for range 600 {
		conn := client.mustDial(server.port80())
		defer conn.Close()
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
	}
	tbtest.Eventually(t, "all are open", func() bool { return relay.OpenSessions() == 600 })
	begun := time.Now()
	if err := server.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("close took %v", took)
	}
}
