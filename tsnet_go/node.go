package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"tailscale.com/ipn"
	"tailscale.com/tsnet"
	"tailscale.com/wgengine/netstack"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

// timeWait is how long a closed connection keeps its addresses. With the 60 s of
// netstack a new SYN that reuses them is dropped, and since userspace clients pick
// ports at random, a few per cent of new connections would hang.
const timeWait = 1 * time.Second

// NodeConfig is what Python decides about a node.
type NodeConfig struct {
	Hostname   string   `json:"hostname"`
	Dir        string   `json:"dir"`
	AuthKey    string   `json:"auth_key"`
	ControlURL string   `json:"control_url"`
	Ephemeral  bool     `json:"ephemeral"`
	Tags       []string `json:"tags"`
	Verbose    bool     `json:"verbose"`       // send tsnet's own log as events
	Loopback   bool     `json:"loopback"`      // the settings of a tailnet on this machine
	IgnoreEnv  bool     `json:"ignore_env"`    // take nothing from tsnet's TS_ variables
	RetryMS    int64    `json:"join_retry_ms"` // pause between attempts to reach the control server
}

// Node is one tsnet server and everything that hangs on it.
type Node struct {
	config      NodeConfig
	switchedOff []string // what the loopback settings took away
	events      *events
	srv         *tsnet.Server

	// life ends when the node is closed: everything that the node started ends with it.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	started  chan struct{} // closed when srv.Start has returned; nil before it was called
	startErr error
	ext      *extension
	stack    *netstack.Impl
	upCancel context.CancelFunc // ends the join that is under way
	parts    map[closer]struct{}
	closing  bool
	closed   chan struct{}
	closeErr error
}

// closer is a listener or a forward, closed with its node.
type closer interface {
	owner() *Node
	close(drain time.Duration)
}

func newNode(config NodeConfig, eventsFD int) (*Node, error) {
	const op = "node new"
	switch {
	case config.Hostname == "":
		return nil, errorf(codeBadArgument, op, "a hostname is needed")
	case config.Dir == "":
		return nil, errorf(codeBadArgument, op, "a state directory is needed")
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, errorf(codeBadArgument, op, "the state directory: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errorf(codeBadArgument, op, "the state directory cannot be made: %v", err)
	}
	switchedOff, err := prepareProcess(dir, config)
	if err != nil {
		return nil, errorf(codeInternal, op, "%v", err)
	}
	ev, err := newEvents(eventsFD, config.Verbose)
	if err != nil {
		return nil, err
	}
	stray.add(ev)
	n := &Node{config: config, switchedOff: switchedOff, events: ev, parts: make(map[closer]struct{}), closed: make(chan struct{})}
	n.life, n.end = context.WithCancel(context.Background())
	n.srv = &tsnet.Server{
		Dir:           dir,
		Hostname:      config.Hostname,
		AuthKey:       config.AuthKey,
		ControlURL:    config.ControlURL,
		Ephemeral:     config.Ephemeral,
		AdvertiseTags: config.Tags,
		UserLogf:      ev.logf,
		Logf:          ev.logf,
	}
	return n, nil
}

// tsnetVariables are the variables that tsnet itself takes settings from. Go sees
// the environment of the process's start, so Python cannot take them away.
var tsnetVariables = []string{
	"TS_AUTHKEY", "TS_AUTH_KEY", "TS_CONTROL_URL", "TS_CLIENT_SECRET", "TS_CLIENT_ID", "TS_ID_TOKEN", "TS_AUDIENCE",
	"TSNET_FORCE_LOGIN",
}

// prepareProcess sets what tsnet reads from the environment of the whole process,
// and tells what that switches off.
func prepareProcess(dir string, config NodeConfig) ([]string, error) {
	// Without it tsnet looks for a place for logs under HOME, and panics where
	// there is none, though it uploads no log.
	if err := os.Setenv("TS_LOGS_DIR", dir); err != nil {
		return nil, err
	}
	if config.IgnoreEnv {
		for _, name := range tsnetVariables {
			if err := os.Unsetenv(name); err != nil {
				return nil, err
			}
		}
	}
	if config.Loopback {
		return devnet.SetLoopbackKnobs(), nil
	}
	return []string{}, nil
}

// start runs tsnet's Start once; its error is final, as it is tsnet's.
func (n *Node) start() error {
	n.mu.Lock()
	if n.closing {
		n.mu.Unlock()
		return errorf(codeClosed, "up", "the node is closed")
	}
	if done := n.started; done != nil {
		n.mu.Unlock()
		select {
		case <-done:
			return n.startErr
		case <-n.life.Done():
			return errorf(codeClosed, "up", "the node is closed")
		}
	}
	done := make(chan struct{})
	n.started = done
	n.mu.Unlock()

	err := n.startServer()
	n.mu.Lock()
	n.startErr = err
	n.mu.Unlock()
	close(done)
	return err
}

func (n *Node) startServer() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError("up", r)
		}
	}()
	if err := n.srv.Start(); err != nil {
		return errorf(codeInternal, "up", "tsnet: %v", err)
	}
	stack, ok := n.srv.Sys().Netstack.Get().(*netstack.Impl)
	if !ok {
		return errorf(codeInternal, "up", "this tailscale has another netstack than expected")
	}
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	if tcpErr := stack.SetTransportProtocolOption(tcp.ProtocolNumber, &wait); tcpErr != nil {
		return errorf(codeInternal, "up", "TIME-WAIT: %v", tcpErr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stack = stack
	if n.ext = backendOf(n.srv); n.ext != nil {
		n.ext.follow(func(state ipn.State) { n.events.send(event{Type: "state", State: state.String()}) })
	}
	return nil
}

// running is the node's foothold once it was started and until it is closed; the
// extension is nil where this tailscale has none.
func (n *Node) running(op string) (*extension, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return nil, errorf(codeClosed, op, "the node is closed")
	case n.stack == nil:
		return nil, errorf(codeNotRunning, op, "the node is not up")
	}
	return n.ext, nil
}

// Status is a node's state for Python.
type Status struct {
	State            string   `json:"state"`
	Hostname         string   `json:"hostname"`
	DNSName          string   `json:"dns_name"` // without the final dot
	Tailnet          string   `json:"tailnet"`
	Addresses        []string `json:"addresses"`
	NodeID           string   `json:"node_id"`
	AuthURL          string   `json:"auth_url,omitempty"`
	KeyExpiry        *float64 `json:"key_expiry"` // unix seconds, null for never
	ControlReachable bool     `json:"control_reachable"`
	Health           []string `json:"health"`
}

func (n *Node) status() (*Status, error) {
	n.mu.Lock()
	closing, started := n.closing, n.stack != nil
	n.mu.Unlock()
	if closing {
		return nil, errorf(codeClosed, "status", "the node is closed")
	}
	if !started {
		return &Status{State: ipn.NoState.String(), Hostname: n.config.Hostname, Addresses: []string{}, Health: []string{}}, nil
	}
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, errorf(codeNotRunning, "status", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.life, 5*time.Second)
	defer cancel()
	st, err := client.StatusWithoutPeers(ctx)
	if err != nil {
		return nil, errorf(codeInternal, "status", "%v", err)
	}
	out := &Status{
		State:            st.BackendState,
		Hostname:         n.config.Hostname,
		Addresses:        addressStrings(st.TailscaleIPs),
		AuthURL:          st.AuthURL,
		ControlReachable: n.srv.Sys().HealthTracker.Get().GetInPollNetMap(),
		Health:           append([]string{}, st.Health...),
	}
	if st.CurrentTailnet != nil {
		out.Tailnet = st.CurrentTailnet.Name
	}
	if st.Self != nil {
		out.DNSName = strings.TrimSuffix(st.Self.DNSName, ".")
		out.NodeID = string(st.Self.ID)
		if expiry := st.Self.KeyExpiry; expiry != nil && !expiry.IsZero() {
			seconds := float64(expiry.UnixMilli()) / 1000
			out.KeyExpiry = &seconds
		}
	}
	return out, nil
}

func addressStrings(addrs []netip.Addr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// owns reports whether addr is one of the node's own tailnet addresses.
func (n *Node) owns(addr netip.Addr) bool {
	v4, v6 := n.srv.TailscaleIPs()
	return addr == v4 || addr == v6
}

func (n *Node) ownAddresses() []netip.Addr {
	v4, v6 := n.srv.TailscaleIPs()
	return slices.DeleteFunc([]netip.Addr{v4, v6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// attach makes part end with the node; it fails when the node is closing already.
func (n *Node) attach(op string, part closer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errorf(codeClosed, op, "the node is closed")
	}
	n.parts[part] = struct{}{}
	return nil
}

func (n *Node) detach(part closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.parts, part)
}

// close ends everything, in order and within timeout; a second call waits for the first.
func (n *Node) close(timeout time.Duration) error {
	n.mu.Lock()
	first := !n.closing
	n.closing = true
	n.mu.Unlock()
	if first {
		n.end()
		go n.shutdown()
	}
	select {
	case <-n.closed:
		return n.closeErr
	case <-time.After(timeout):
		return errorf(codeTimeout, "close", "the node did not close within %v; its remains are left behind", timeout)
	}
}

func (n *Node) shutdown() {
	defer close(n.closed)
	defer func() {
		if r := recover(); r != nil {
			n.closeErr = panicError("close", r)
		}
	}()
	n.mu.Lock()
	parts := make([]closer, 0, len(n.parts))
	for part := range n.parts {
		parts = append(parts, part)
	}
	started := n.started
	n.mu.Unlock()
	for _, part := range parts {
		part.close(0)
	}
	// tsnet's Close before or during Start panics or leaks.
	if started != nil {
		<-started
		if n.startErr == nil {
			if err := n.srv.Close(); err != nil {
				n.closeErr = errorf(codeInternal, "close", "tsnet: %v", err)
			}
		}
		if sys := n.srv.Sys(); sys != nil {
			dropBackend(sys)
		}
	}
	stray.remove(n.events)
	n.events.close()
}

func panicError(op string, recovered any) *Error {
	return errorf(codePanic, op, "a fault in the native library: %s", fmt.Sprint(recovered))
}
