package tailnode

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/events/eventstest"
	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
	"github.com/tailbone/tailbone/tsnet_go/loopback"
)

func TestMain(m *testing.M) {
	events.CaptureStandardLog()
	loopback.Prepare()
	// A node that falls back to the real control server must fail its test.
	envknob.Setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")
	if scene := os.Getenv(sceneVariable); scene != "" {
		os.Exit(play(scene))
	}
	os.Exit(m.Run())
}

// checkNoLeaks is tbtest.CheckNoLeaks that also counts sessions and extensions.
func checkNoLeaks(t *testing.T) {
	t.Helper()
	tbtest.CheckNoLeaks(t, func() int { return int(relay.OpenSessions()) }, func() int {
		extensions.Lock()
		defer extensions.Unlock()
		return len(extensions.bySystem)
	})
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
		ctx, cancel := context.WithTimeout(context.Background(), tbtest.Limit)
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

// config returns the configuration of a node of this tailnet with its own directory.
func (n *tailnet) config(hostname, identity string) Config {
	n.t.Helper()
	return Config{
		Hostname: hostname, Dir: n.t.TempDir(), AuthKey: n.key(identity, nil),
		ControlURL: n.Info().ControlURL, Loopback: true, RetryMS: 50,
	}
}

// testNode is a node under test, with the events it has sent.
type testNode struct {
	*Node
	t          testing.TB
	heard      *eventstest.Log
	closeFails bool // the error of Close is expected
}

// newTestNode makes a node that is closed at the test's end.
func newTestNode(t testing.TB, config Config) *testNode {
	t.Helper()
	heard, fd := eventstest.New(t)
	node, err := New(config, fd)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{Node: node, t: t, heard: heard}
	t.Cleanup(func() {
		if err := n.Close(tbtest.Limit); err != nil && !n.closeFails {
			t.Errorf("closing the node %s: %v", config.Hostname, err)
		}
	})
	return n
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
	status, err := n.Up(tbtest.Limit)
	if err != nil {
		n.t.Fatalf("%s: %v", n.config.Hostname, err)
	}
	return status
}

// goUp calls Up in a goroutine, and returns the channel of its error.
func (n *testNode) goUp() <-chan error {
	joined := make(chan error, 1)
	go func() { _, err := n.Up(tbtest.Limit); joined <- err }()
	return joined
}

func (n *testNode) v4() netip.Addr         { v4, _ := n.srv.TailscaleIPs(); return v4 }
func (n *testNode) v6() netip.Addr         { _, v6 := n.srv.TailscaleIPs(); return v6 }
func (n *testNode) port80() netip.AddrPort { return netip.AddrPortFrom(n.v4(), 80) }

// sees waits until both nodes have each other in their netmaps: before that, packets
// are dropped.
func (n *testNode) sees(other *testNode) {
	n.t.Helper()
	for _, pair := range [][2]*testNode{{n, other}, {other, n}} {
		tbtest.Eventually(n.t, pair[0].config.Hostname+" sees "+pair[1].config.Hostname, func() bool {
			_, err := pair[0].Whois(pair[1].v4().String())
			return err == nil
		})
	}
}

// dial connects over the tailnet, in netstack, as a client's program would.
func (n *testNode) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tbtest.Limit)
	defer cancel()
	from := n.v4()
	if to.Addr().Is6() {
		from = n.v6()
	}
	return n.stack.DialContextTCPWithBind(ctx, from, to)
}

// mustDial is dial for a connection that is closed at the test's end.
func (n *testNode) mustDial(to netip.AddrPort) *gonet.TCPConn {
	n.t.Helper()
	conn, err := n.dial(to)
	if err != nil {
		n.t.Fatalf("dialing %s: %v", to, err)
	}
	tbtest.Bound(n.t, conn)
	return conn
}

// listenOn bridges port 80 of the node to a server's socket.
func (n *testNode) listenOn(path string, maxConnections int) *Listener {
	n.t.Helper()
	listener, err := n.Listen(ListenConfig{
		Name: "test", Port: 80, UnixPath: path, MaxConnections: maxConnections,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return listener
}

// two starts a tailnet with a server and a client that see each other.
func two(t testing.TB) (net *tailnet, server, client *testNode) {
	t.Helper()
	net = startTailnet(t)
	server, client = net.join("server", "srv@example.com"), net.join("client", "dev@example.com")
	client.sees(server)
	return net, server, client
}

func wantCode(t testing.TB, want tberr.Code, err error) {
	t.Helper()
	if got := tberr.CodeOf(err); got != want {
		t.Fatalf("want the code %q, got %q: %v", want, got, err)
	}
}
