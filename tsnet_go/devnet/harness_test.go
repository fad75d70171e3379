package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/envknob"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tsnet"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
	"github.com/tailbone/tailbone/tsnet_go/loopback"
)

func TestMain(m *testing.M) {
	loopback.Prepare()
	// A node that falls back to the real control server must fail its test.
	envknob.Setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")
	os.Exit(m.Run())
}

// startDevnet returns a devnet that is stopped at the end of the test.
func startDevnet(t *testing.T, cfg Config) *Devnet {
	t.Helper()
	if cfg.Logf == nil {
		cfg.Logf = testLogf(t)
	}
	d, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopDevnet(t, d) })
	return d
}

func stopDevnet(t *testing.T, d *Devnet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tbtest.Limit)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Errorf("stopping the devnet: %v\n%s", err, tbtest.Stacks())
	}
}

// testLogf logs into the test while it runs; nodes log on for a moment after.
func testLogf(t *testing.T) func(string, ...any) {
	ended := t.Context()
	return func(format string, args ...any) {
		if ended.Err() == nil && testing.Verbose() && os.Getenv("DEVNET_TEST_LOG") != "" {
			t.Logf(format, args...)
		}
	}
}

// do carries out a command that must succeed and decodes its result.
func do[T any](t *testing.T, d *Devnet, op string, args map[string]any) T {
	t.Helper()
	var result T
	out, err := d.Do(commandJSON(t, op, args))
	if err != nil {
		t.Fatalf("%s %v: %v", op, args, err)
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%s: result %s: %v", op, out, err)
	}
	return result
}

func commandJSON(t *testing.T, op string, args map[string]any) []byte {
	t.Helper()
	cmd := map[string]any{"op": op}
	for k, v := range args {
		cmd[k] = v
	}
	b, err := json.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// doFails carries out a command that must fail and returns its error.
func doFails(t *testing.T, d *Devnet, op string, args map[string]any) *Error {
	t.Helper()
	out, err := d.Do(commandJSON(t, op, args))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%s %v: want an *Error, got %s, %v", op, args, out, err)
	}
	return e
}

func addKey(t *testing.T, d *Devnet, identity string, args ...map[string]any) string {
	t.Helper()
	all := map[string]any{"identity": identity}
	for _, a := range args {
		for k, v := range a {
			all[k] = v
		}
	}
	return do[struct{ Key string }](t, d, "add_key", all).Key
}

// testNode is a real node whose state directory is dir.
type testNode struct {
	*tsnet.Server
	dir string
}

func newNode(t *testing.T, d *Devnet, hostname, authKey string) *testNode {
	t.Helper()
	return newNodeIn(t, t.TempDir(), d, hostname, authKey)
}

func newNodeIn(t *testing.T, dir string, d *Devnet, hostname, authKey string) *testNode {
	t.Helper()
	envknob.Setenv("TS_LOGS_DIR", dir)
	n := &testNode{dir: dir, Server: &tsnet.Server{
		Dir:        dir,
		Hostname:   hostname,
		AuthKey:    authKey,
		ControlURL: d.Info().ControlURL,
		Logf:       testLogf(t),
		UserLogf:   testLogf(t),
	}}
	t.Cleanup(func() { n.close(t) })
	return n
}

// close closes the node; closing it again does nothing.
func (n *testNode) close(t *testing.T) {
	t.Helper()
	err := tbtest.Within(t, "closing "+n.Hostname, n.Server.Close)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing %s: %v", n.Hostname, err)
	}
}

// localAPI calls the node's LocalAPI.
func localAPI[T any](t *testing.T, n *testNode, call func(context.Context, *local.Client) (T, error)) (T, error) {
	t.Helper()
	client, err := n.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		value T
		err   error
	}
	r := tbtest.Within(t, "a LocalAPI call of "+n.Hostname, func() result {
		value, err := call(t.Context(), client)
		return result{value, err}
	})
	return r.value, r.err
}

// tryUp calls tsnet's Up, whose context does not bound the node's start.
func (n *testNode) tryUp(t *testing.T, timeout time.Duration) (st *ipnstate.Status, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err = tbtest.Within(t, n.Hostname+" returns from Up", func() (err error) {
		st, err = n.Up(ctx)
		return err
	})
	return st, err
}

// up joins the tailnet.
func (n *testNode) up(t *testing.T) *ipnstate.Status {
	t.Helper()
	st, err := n.tryUp(t, tbtest.Limit)
	if err != nil {
		t.Fatalf("%s: up: %v\n%s", n.Hostname, err, tbtest.Stacks())
	}
	return st
}

func join(t *testing.T, d *Devnet, hostname, identity string, args ...map[string]any) *testNode {
	t.Helper()
	n := newNode(t, d, hostname, addKey(t, d, identity, args...))
	n.up(t)
	return n
}

func (n *testNode) status(t *testing.T) *ipnstate.Status {
	t.Helper()
	st, err := localAPI(t, n, func(ctx context.Context, c *local.Client) (*ipnstate.Status, error) { return c.Status(ctx) })
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// peer returns how n sees the node with this full name, or nil.
func (n *testNode) peer(t *testing.T, name string) *ipnstate.PeerStatus {
	t.Helper()
	for _, p := range n.status(t).Peer {
		if p.DNSName == name+"." {
			return p
		}
	}
	return nil
}

func (n *testNode) awaitPeer(t *testing.T, name string) *ipnstate.PeerStatus {
	t.Helper()
	var p *ipnstate.PeerStatus
	tbtest.Eventually(t, n.Hostname+" sees "+name, func() bool {
		p = n.peer(t, name)
		return p != nil
	})
	return p
}

func (n *testNode) whois(t *testing.T, addr netip.Addr) (*apitype.WhoIsResponse, error) {
	t.Helper()
	return localAPI(t, n, func(ctx context.Context, c *local.Client) (*apitype.WhoIsResponse, error) {
		return c.WhoIs(ctx, netip.AddrPortFrom(addr, 1).String())
	})
}

// serve answers every request to the node's port 80 with the caller's address.
func (n *testNode) serve(t *testing.T) {
	t.Helper()
	ln, err := n.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RemoteAddr)
	})}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); ln.Close(); tbtest.Receive(t, "the server ends", served) })
}

// get requests http://target/ over the tailnet and returns the body of the response.
func (n *testNode) get(t *testing.T, target string, limit time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return n.Dial(ctx, network, addr)
		},
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+target+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func nodesOf(t *testing.T, d *Devnet) []NodeInfo {
	t.Helper()
	return do[struct{ Nodes []NodeInfo }](t, d, "nodes", nil).Nodes
}

func nodeInfo(t *testing.T, d *Devnet, name string) *NodeInfo {
	t.Helper()
	for _, n := range nodesOf(t, d) {
		if n.Name == name || strings.HasPrefix(n.Name, name+".") {
			return &n
		}
	}
	return nil
}
