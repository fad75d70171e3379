package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/tsd"
	"tailscale.com/tsnet"
	"tailscale.com/wgengine/netstack"
)

const (
	// timeWait is how long a closed connection keeps its addresses. With the 60 s of
	// netstack a new SYN that reuses them is dropped, and since userspace clients pick
	// ports at random, a few per cent of new connections would hang.
	timeWait = 1 * time.Second

	// finWait is how long an end waits for the other to close as well, after nobody
	// reads it any more; 60 s in netstack, whose close gets slower with every such end.
	finWait = 5 * time.Second

	// sendBuffer and receiveBuffer bound what one connection holds in netstack, where
	// they would grow to 6 and 8 MiB: a peer that asks for much and reads nothing, or
	// sends much that nobody reads, must not fill the memory.
	sendBuffer    = 128 << 10
	receiveBuffer = 256 << 10

	// leaveFor bounds each step of a node's goodbye to its control server.
	leaveFor = 3 * time.Second
)

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
	dir         string   // absolute
	dirLock     *os.File // held until the server is closed
	switchedOff []string // what the loopback settings took away
	events      *events
	srv         *tsnet.Server

	// life ends when the node is closed: everything that the node started ends with it.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	started  chan struct{} // closed when srv.Start has returned; nil before it was called
	startErr error
	serving  bool // srv.Start succeeded, so that srv.Close is due
	localAPI *http.Transport
	ext      *extension
	stack    *netstack.Impl
	upCancel context.CancelFunc // ends the join that is under way
	parts    map[closer]struct{}
	closing  bool
	closed   chan struct{}
	closeErr error // valid once closed is closed
}

// closer is a listener or a forward, closed with its node.
type closer interface {
	owner() *Node
	close(drain time.Duration)
}

func newNode(config NodeConfig, eventsFD int) (_ *Node, err error) {
	const op = "node new"
	switch {
	case config.Hostname == "":
		return nil, errorf(codeBadArgument, op, "a hostname is needed")
	case config.Dir == "":
		return nil, errorf(codeBadArgument, op, "a state directory is needed")
	}
	keepSecret(config.AuthKey)
	n := &Node{config: config, parts: make(map[closer]struct{}), closed: make(chan struct{})}
	if n.dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, errorf(codeBadArgument, op, "the node's state directory: %v", err)
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, errorf(codeBadArgument, op, "the node's state directory cannot be made: %v", err)
	}
	if n.switchedOff, err = prepareProcess(config); err != nil {
		return nil, errorf(codeInternal, op, "%v", err)
	}
	if n.events, err = newEvents(eventsFD, config.Verbose); err != nil {
		return nil, err
	}
	if n.dirLock, err = lockDir(n.dir); err != nil {
		n.events.close()
		return nil, err
	}
	stray.add(n.events)
	n.life, n.end = context.WithCancel(context.Background())
	n.srv = &tsnet.Server{
		Dir:           n.dir,
		Hostname:      config.Hostname,
		AuthKey:       config.AuthKey,
		ControlURL:    config.ControlURL,
		Ephemeral:     config.Ephemeral,
		AdvertiseTags: config.Tags,
		UserLogf:      n.events.logf,
		Logf:          n.events.logf,
	}
	return n, nil
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
		<-done
		return n.startErr
	}
	done := make(chan struct{})
	n.started = done
	n.mu.Unlock()
	defer close(done)

	n.startErr = n.startServer()
	return n.startErr
}

func (n *Node) startServer() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError("up", r)
		}
	}()
	if err := setLogsDir(n.dir); err != nil {
		return errorf(codeInternal, "up", "%v", err)
	}
	if err := checkState(n.dir); err != nil {
		return err
	}
	n.srv.Port = lastPort(n.dir)
	if err := n.srv.Start(); err != nil {
		return errorf(codeInternal, "up", "the node cannot start: %v", err)
	}
	n.mu.Lock()
	n.serving = true
	n.mu.Unlock()
	if err := n.ownLocalAPI(); err != nil {
		return errorf(codeInternal, "up", "%v", err)
	}
	stack, ok := n.srv.Sys().Netstack.Get().(*netstack.Impl)
	if !ok {
		return errorf(codeInternal, "up", "this tailscale has another netstack than expected")
	}
	if err := tuneTCP(stack); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stack = stack
	if n.ext = backendOf(n.srv); n.ext != nil {
		n.ext.follow(
			func(state ipn.State) { n.events.send(event{Type: "state", State: state.String()}) },
			func(self tailcfg.NodeView) { n.events.send(selfEvent(self)) },
		)
	}
	return nil
}

// ownLocalAPI gives tsnet's client of its own backend a transport that we can close.
// A call that is cancelled while it connects leaves an idle connection there, which
// tsnet's Close waits for, and then leaves behind.
func (n *Node) ownLocalAPI() error {
	client, err := n.srv.LocalClient()
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: client.Dial}
	client.Transport = transport // looked at with the first call, which is ours
	n.mu.Lock()
	n.localAPI = transport
	n.mu.Unlock()
	return nil
}

// tuneTCP sets how long connections of the node wait, and how much they hold.
func tuneTCP(stack *netstack.Impl) error {
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	fin := tcpip.TCPLingerTimeoutOption(finWait)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: sendBuffer / 2, Max: sendBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: receiveBuffer / 2, Max: receiveBuffer}
	for _, option := range []tcpip.SettableTransportProtocolOption{&wait, &fin, &send, &receive} {
		if err := stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return errorf(codeInternal, "up", "TCP option %T: %v", option, err)
		}
	}
	return nil
}

// keepPort remembers the UDP port for the next start. Without it that start takes
// another one, where no peer looks for it: one that knew the node waits until
// WireGuard has repeated its handshake, which is 5 to 10 s.
func (n *Node) keepPort() {
	conn, ok := n.srv.Sys().MagicSock.GetOK()
	if !ok {
		return
	}
	if err := writePort(n.dir, conn.LocalPort()); err != nil {
		n.events.warnf("the node's UDP port cannot be kept for its next start: %v", err)
	}
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

// isStarted reports whether tsnet's Start is over, and well.
func (n *Node) isStarted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stack != nil
}

func (n *Node) isClosing() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closing
}

// attach makes part end with the node, unless the node is closing already or the
// part clashes with another.
func (n *Node) attach(op string, part closer, clashes func(closer) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errorf(codeClosed, op, "the node is closed")
	}
	for other := range n.parts {
		if err := clashes(other); err != nil {
			return err
		}
	}
	n.parts[part] = struct{}{}
	return nil
}

func (n *Node) detach(part closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.parts, part)
}

// close ends everything, in order and within timeout; a further call waits for the first.
func (n *Node) close(timeout time.Duration) error {
	n.mu.Lock()
	first := !n.closing
	n.closing = true
	n.mu.Unlock()
	if first {
		n.end()
		go n.shutdown()
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-n.closed:
		return n.closeErr
	case <-deadline.C:
		// Nobody is left to read them.
		n.closeEvents()
		return errorf(codeTimeout, "close", "the node did not close within %v; its remains are left behind", timeout)
	}
}

func (n *Node) shutdown() {
	defer close(n.closed)
	defer n.closeEvents()
	defer n.dirLock.Close()
	n.mu.Lock()
	parts := make([]closer, 0, len(n.parts))
	for part := range n.parts {
		parts = append(parts, part)
	}
	started := n.started
	n.mu.Unlock()
	var failed []error
	for _, part := range parts {
		failed = append(failed, survive(func() error { part.close(0); return nil }))
	}
	// tsnet's Close before or during Start panics or leaks.
	if started != nil {
		<-started
		failed = append(failed, survive(n.closeServer))
	}
	n.closeErr = errors.Join(failed...)
}

// survive runs one step of a close: those after it come in any case.
func survive(step func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError("close", r)
		}
	}()
	return step()
}

func (n *Node) closeServer() error {
	sys := n.srv.Sys()
	if sys == nil {
		return nil
	}
	defer dropBackend(sys)
	if !n.serving {
		return discard(sys, backendOf(n.srv))
	}
	n.leaveControl()
	if n.localAPI != nil {
		n.localAPI.CloseIdleConnections()
	}
	if err := n.srv.Close(); err != nil {
		return errorf(codeInternal, "close", "tsnet: %v", err)
	}
	return nil
}

// leaveControl ends the talk with the control server, and logs an ephemeral node out
// while there is somebody to tell. tsnet's Close does both, but does not wait for a
// netmap that it is just taking in: one that meets its closed engine ends the process
// (magicsock's updateRelayServersSet without a self node).
func (n *Node) leaveControl() {
	client, err := n.srv.LocalClient()
	if err != nil {
		return
	}
	within := func(what string, step func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), leaveFor)
		defer cancel()
		if err := step(ctx); err != nil {
			n.events.logf("%s: %v", what, err)
		}
	}
	if n.config.Ephemeral {
		within("logging the ephemeral node out", client.Logout)
	}
	within("leaving the control server", client.DisconnectControl)
}

// discard closes what a failed Start leaves behind. tsnet means to do that itself,
// but it closes nothing: its list of what to close is taken before it is filled.
func discard(sys *tsd.System, ext *extension) error {
	if ext != nil && ext.shutdown != nil {
		ext.shutdown()
	}
	var failed []error
	if subsystem, ok := sys.Netstack.GetOK(); ok {
		if stack, ok := subsystem.(*netstack.Impl); ok {
			failed = append(failed, stack.Close())
		}
	}
	if engine, ok := sys.Engine.GetOK(); ok {
		engine.Close()
	}
	if dialer, ok := sys.Dialer.GetOK(); ok {
		failed = append(failed, dialer.Close())
	}
	if monitor, ok := sys.NetMon.GetOK(); ok {
		failed = append(failed, monitor.Close())
	}
	sys.Bus.Get().Close()
	return errors.Join(failed...)
}

func (n *Node) closeEvents() {
	stray.remove(n.events)
	n.events.close()
}
