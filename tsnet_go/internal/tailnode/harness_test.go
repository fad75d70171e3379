package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

// waitLimit bounds every wait of the tests: long enough for a slow machine, and
// reached only by a failure.
const waitLimit = 30 * time.Second

func TestMain(m *testing.M) {
	devnet.SetLoopbackKnobs()
	// A node that falls back to the real control server must fail its test.
	envknob.Setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")
	if scene := os.Getenv(sceneVariable); scene != "" {
		os.Exit(play(scene))
	}
	os.Exit(m.Run())
}

// eventually waits for a condition that something else brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", waitLimit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// openFDs are the open file descriptors of this process and what they are.
func openFDs(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil || strings.HasPrefix(target, "/proc/") {
			continue // the descriptor of ReadDir itself
		}
		fds = append(fds, entry.Name()+" "+target)
	}
	return fds
}

// checkNoLeaks fails the test when, at its end, anything is left that was not there
// at its begin: handles, connections, goroutines, descriptors.
func checkNoLeaks(t *testing.T) {
	t.Helper()
	goroutines, fds, handles := runtime.NumGoroutine(), openFDs(t), registry.count()
	t.Cleanup(func() {
		back := func() bool {
			return runtime.NumGoroutine() <= goroutines && len(openFDs(t)) <= len(fds) &&
				registry.count() == handles && openConnections.Load() == 0 && len(systems()) == 0
		}
		deadline := time.Now().Add(waitLimit)
		for !back() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("left over: %d goroutines (were %d), %d handles (were %d), %d connections, %d backends\n"+
					"descriptors before %q\nand after %q\n%s",
					runtime.NumGoroutine(), goroutines, registry.count(), handles, openConnections.Load(), len(systems()),
					fds, openFDs(t), stacks[:runtime.Stack(stacks, true)])
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// systems are the nodes that the extension still holds.
func systems() []*extension {
	backends.Lock()
	defer backends.Unlock()
	var all []*extension
	for _, e := range backends.bySystem {
		all = append(all, e)
	}
	return all
}

// tailnet is a devnet whose commands must succeed.
type tailnet struct {
	*devnet.Devnet
	t testing.TB
}

func startTailnet(t testing.TB) *tailnet {
	t.Helper()
	d, err := devnet.Start(context.Background(), devnet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Errorf("stopping the devnet: %v", err)
		}
	})
	return &tailnet{d, t}
}

func (n *tailnet) do(op string, args map[string]any) map[string]any {
	n.t.Helper()
	command := map[string]any{"op": op}
	for k, v := range args {
		command[k] = v
	}
	b, err := json.Marshal(command)
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := n.Do(b)
	if err != nil {
		n.t.Fatalf("%s: %v", b, err)
	}
	var result map[string]any
	if err := json.Unmarshal(out, &result); err != nil {
		n.t.Fatalf("%s: %s: %v", b, out, err)
	}
	return result
}

func (n *tailnet) key(identity string, args map[string]any) string {
	n.t.Helper()
	all := map[string]any{"identity": identity}
	for k, v := range args {
		all[k] = v
	}
	return n.do("add_key", all)["key"].(string)
}

// config is that of a node of this tailnet, with a directory of its own.
func (n *tailnet) config(hostname, identity string) NodeConfig {
	n.t.Helper()
	return NodeConfig{
		Hostname: hostname, Dir: n.t.TempDir(), AuthKey: n.key(identity, nil),
		ControlURL: n.Info().ControlURL, Loopback: true, RetryMS: 50,
	}
}

// testNode is a node under test, with what its pipe said.
type testNode struct {
	*Node
	t      testing.TB
	handle int64
	heard  *eventLog
}

// newTestNode makes a node that is closed at the test's end.
func newTestNode(t testing.TB, config NodeConfig) *testNode {
	t.Helper()
	heard, fd := newEventLog(t)
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	handle, answer, ok := guardedOpen("node new", func() (int64, []byte, error) { return callNodeNew(string(encoded), fd) })
	unix.Close(fd)
	if !ok {
		t.Fatalf("making a node: %s", answer)
	}
	node, err := lookup[*Node]("test", handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if answer, err := callNodeClose(handle, waitLimit.Milliseconds()); err != nil {
			t.Errorf("closing the node %s: %s %v", config.Hostname, answer, err)
		}
	})
	return &testNode{node, t, handle, heard}
}

// join makes a node that is up.
func (n *tailnet) join(hostname, identity string) *testNode {
	n.t.Helper()
	node := newTestNode(n.t, n.config(hostname, identity))
	node.mustUp()
	return node
}

func (n *testNode) mustUp() *Status {
	n.t.Helper()
	status, err := n.up(waitLimit)
	if err != nil {
		n.t.Fatalf("%s: %v", n.config.Hostname, err)
	}
	return status
}

func (n *testNode) v4() netip.Addr { v4, _ := n.srv.TailscaleIPs(); return v4 }
func (n *testNode) v6() netip.Addr { _, v6 := n.srv.TailscaleIPs(); return v6 }

// sees waits until both nodes have each other in their netmaps: before, a packet
// goes nowhere.
func (n *testNode) sees(other *testNode) {
	n.t.Helper()
	for _, pair := range [][2]*testNode{{n, other}, {other, n}} {
		eventually(n.t, pair[0].config.Hostname+" sees "+pair[1].config.Hostname, func() bool {
			_, err := pair[0].whois(pair[1].v4().String(), "")
			return err == nil
		})
	}
}

// dial connects over the tailnet, in netstack, as the client's program would.
func (n *testNode) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	from := n.v4()
	if to.Addr().Is6() {
		from = n.v6()
	}
	return n.stack.DialContextTCPWithBind(ctx, from, to)
}

func (n *testNode) mustDial(to netip.AddrPort) *gonet.TCPConn {
	n.t.Helper()
	conn, err := n.dial(to)
	if err != nil {
		n.t.Fatalf("dialing %s: %v", to, err)
	}
	if err := conn.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		n.t.Fatal(err)
	}
	return conn
}

// eventLog reads a node's events pipe as Python does.
type eventLog struct {
	mu    sync.Mutex
	lines []event
}

func newEventLog(t testing.TB) (*eventLog, int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	log := &eventLog{}
	read := os.NewFile(uintptr(fds[0]), "events")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		decoder := json.NewDecoder(read)
		for {
			var ev event
			if err := decoder.Decode(&ev); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("the events pipe: %v", err)
				}
				return
			}
			log.mu.Lock()
			log.lines = append(log.lines, ev)
			log.mu.Unlock()
		}
	}()
	t.Cleanup(func() { <-ended; read.Close() }) // ends when the node has closed its end
	return log, fds[1]
}

func (l *eventLog) all() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]event(nil), l.lines...)
}

func (l *eventLog) has(fits func(event) bool) bool {
	for _, ev := range l.all() {
		if fits(ev) {
			return true
		}
	}
	return false
}

func (l *eventLog) hasType(kind string) bool {
	return l.has(func(ev event) bool { return ev.Type == kind })
}

// codeOf is the code that Python would get for an error.
func codeOf(err error) string {
	if err == nil {
		return "no error"
	}
	return asError("test", err).Code
}

func wantCode(t testing.TB, want string, err error) {
	t.Helper()
	if got := codeOf(err); got != want {
		t.Fatalf("want the code %s, got %s: %v", want, got, err)
	}
}

// unixServer is the Python server's stand-in: each connection goes to serve.
type unixServer struct {
	path     string
	listener *net.UnixListener
}

func startUnixServer(t testing.TB, serve func(*net.UnixConn)) *unixServer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
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
				if err := conn.SetDeadline(time.Now().Add(2 * waitLimit)); err != nil {
					t.Error(err)
				}
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return &unixServer{path, listener}
}

// echo sends back what it gets, and ends when the client ends.
func echo(conn *net.UnixConn) { _, _ = io.Copy(conn, conn) }

// listenOn bridges port 80 of the node to a server.
func (n *testNode) listenOn(server *unixServer, maxConnections int) *Listener {
	n.t.Helper()
	listener, err := n.listen(ListenConfig{
		Kind: "tcp", Name: "test", Port: 80, UnixPath: server.path, MaxConnections: maxConnections,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return listener
}

// two is a tailnet with a server and a client that know each other.
func two(t testing.TB) (net *tailnet, server, client *testNode) {
	t.Helper()
	net = startTailnet(t)
	server, client = net.join("server", "srv@example.com"), net.join("client", "dev@example.com")
	client.sees(server)
	return net, server, client
}

func (n *testNode) port80() netip.AddrPort { return netip.AddrPortFrom(n.v4(), 80) }

// exchange sends a line and reads as many bytes back.
func exchange(conn net.Conn, text string) error {
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("sent %q, got %q", text, back)
	}
	return nil
}

func mustExchange(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if err := exchange(conn, text); err != nil {
		t.Fatal(err)
	}
}
