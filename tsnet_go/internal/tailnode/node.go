// Package tailnode runs nodes of a tailnet: joining it, listening on it, forwarding to
// its peers, and whois.
package tailnode

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/tsd"
	"tailscale.com/tsnet"
	"tailscale.com/wgengine/netstack"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/redact"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

const (
	// timeWait is how long a closed connection keeps its addresses. With netstack's
	// 60 s a new SYN that reuses them is dropped, and since userspace clients pick ports
	// at random, a few per cent of new connections would hang.
	timeWait = 1 * time.Second

	// finWait is how long a closed end waits for the peer to close too. netstack's
	// default is 60 s, and closing it gets slower with every such end.
	finWait = 5 * time.Second

	// sendBuffer and receiveBuffer bound what one connection holds in netstack, where
	// they would grow to 6 and 8 MiB. A peer that requests much and reads nothing, or
	// sends much that is not read, must not fill the memory.
	sendBuffer    = 64 << 10
	receiveBuffer = 64 << 10
	// acceptedBuffer is the same for a connection to a listener, of which a peer may have
	// many, and unixBuffer for what is on its way from there to the Python server.
	acceptedBuffer = 16 << 10
	unixBuffer     = 16 << 10

	// disconnectTimeout bounds each step of disconnecting from the control server.
	disconnectTimeout = 3 * time.Second
)

// Config configures a Node.
type Config struct {
	Hostname   string   `json:"hostname"`
	Dir        string   `json:"dir"`
	AuthKey    string   `json:"auth_key"`
	ControlURL string   `json:"control_url"`
	Ephemeral  bool     `json:"ephemeral"`
	Tags       []string `json:"tags"`
	Verbose    bool     `json:"verbose"`       // send tsnet's own log as events
	Loopback   bool     `json:"loopback"`      // the settings for a tailnet on this machine
	IgnoreEnv  bool     `json:"ignore_env"`    // ignore tsnet's TS_ variables
	RetryMS    int64    `json:"join_retry_ms"` // pause between attempts to reach the control server
}

// Node is one tsnet.Server with its listeners and forwards.
type Node struct {
	config   Config
	dir      string   // absolute
	dirLock  *os.File // held until the server is closed
	disabled []string // what the loopback settings disable
	events   *events.Pipe
	srv      *tsnet.Server

	// ctx ends when the node is closed, and with it everything that the node started.
	ctx    context.Context
	cancel context.CancelFunc

	mu         sync.Mutex
	started    chan struct{} // closed when srv.Start has returned; nil before it is called
	startErr   error         // valid once started is closed
	serverUp   bool          // srv.Start succeeded, so srv.Close must be called
	localAPI   *http.Transport
	ext        *extension
	stack      *netstack.Impl
	cancelJoin context.CancelFunc // ends the join that is in progress
	bridges    map[Bridge]struct{}
	closing    bool
	closed     chan struct{}
	closeErr   error // valid once closed is closed
}

// New returns a Node that is not yet up. Its events go to a duplicate of eventsFD; a
// negative one discards them.
func New(config Config, eventsFD int) (_ *Node, err error) {
	const op = "node new"
	switch {
	case config.Hostname == "":
		return nil, tberr.Errorf(tberr.BadArgument, op, "a hostname is required")
	case config.Dir == "":
		return nil, tberr.Errorf(tberr.BadArgument, op, "a state directory is required")
	}
	redact.AddSecret(config.AuthKey)
	n := &Node{config: config, bridges: make(map[Bridge]struct{}), closed: make(chan struct{})}
	if n.dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, tberr.Errorf(tberr.BadArgument, op, "the node's state directory: %v", err)
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, tberr.Errorf(tberr.BadArgument, op, "the node's state directory cannot be made: %v", err)
	}
	if n.disabled, err = prepareProcess(config); err != nil {
		return nil, tberr.Errorf(tberr.Internal, op, "%v", err)
	}
	if n.events, err = events.Open(eventsFD, config.Verbose); err != nil {
		return nil, tberr.Errorf(tberr.BadArgument, op, "%v", err)
	}
	if n.dirLock, err = lockDir(n.dir); err != nil {
		n.events.Close()
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.srv = &tsnet.Server{
		Dir:           n.dir,
		Hostname:      config.Hostname,
		AuthKey:       config.AuthKey,
		ControlURL:    config.ControlURL,
		Ephemeral:     config.Ephemeral,
		AdvertiseTags: config.Tags,
		UserLogf:      n.events.Logf,
		Logf:          n.logf,
	}
	return n, nil
}

// Disabled returns what the loopback settings disable in this process, one short phrase
// each.
func (n *Node) Disabled() []string { return n.disabled }

// start calls tsnet's Start once. Like tsnet's, its error is final.
func (n *Node) start() error {
	n.mu.Lock()
	if n.closing {
		n.mu.Unlock()
		return errClosed("up")
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
			err = tberr.FromPanic("up", r)
		}
	}()
	if err := setLogsDir(n.dir); err != nil {
		return tberr.Errorf(tberr.Internal, "up", "%v", err)
	}
	if err := checkState(n.dir); err != nil {
		return err
	}
	n.srv.Port = lastPort(n.dir)
	if err := n.srv.Start(); err != nil {
		return tberr.Errorf(tberr.Internal, "up", "the node cannot start: %v", err)
	}
	n.mu.Lock()
	n.serverUp = true
	n.mu.Unlock()
	if err := n.setLocalAPITransport(); err != nil {
		return tberr.Errorf(tberr.Internal, "up", "%v", err)
	}
	stack, ok := n.srv.Sys().Netstack.Get().(*netstack.Impl)
	if !ok {
		return tberr.Errorf(tberr.Internal, "up", "this tailscale has an unknown netstack")
	}
	if err := tuneTCP(stack); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stack = stack
	if n.ext = extensionOf(n.srv); n.ext != nil {
		n.ext.watch(
			func(state ipn.State) { n.events.Send(events.Event{Type: "state", State: state.String()}) },
			func(self tailcfg.NodeView) { n.events.Send(selfEvent(self)) },
		)
	}
	return nil
}

// selfEvent returns the event with the node's current name and addresses.
func selfEvent(self tailcfg.NodeView) events.Event {
	ev := events.Event{Type: "self", DNSName: strings.TrimSuffix(self.Name(), ".")}
	for _, prefix := range self.Addresses().All() {
		ev.Addresses = append(ev.Addresses, prefix.Addr().String())
	}
	return ev
}

// setLocalAPITransport gives tsnet's client of its own backend a transport that we can
// close. A call that is cancelled while it connects leaves an idle connection there;
// tsnet's Close waits for it and then leaks it.
func (n *Node) setLocalAPITransport() error {
	client, err := n.srv.LocalClient()
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: client.Dial}
	client.Transport = transport // the client reads it with its first call, which is ours
	n.mu.Lock()
	n.localAPI = transport
	n.mu.Unlock()
	return nil
}

// tuneTCP sets the node's TCP timeouts and buffer sizes.
func tuneTCP(stack *netstack.Impl) error {
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	fin := tcpip.TCPLingerTimeoutOption(finWait)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: sendBuffer / 2, Max: sendBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: receiveBuffer / 2, Max: receiveBuffer}
	for _, option := range []tcpip.SettableTransportProtocolOption{&wait, &fin, &send, &receive} {
		if err := stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return tberr.Errorf(tberr.Internal, "up", "TCP option %T: %v", option, err)
		}
	}
	return nil
}

// savePort records the UDP port for the next start. Peers look for the node there: on
// another port, a peer that knew the node waits until WireGuard repeats its handshake,
// which takes 5 to 10 s.
func (n *Node) savePort() {
	conn, ok := n.srv.Sys().MagicSock.GetOK()
	if !ok {
		return
	}
	if err := writePort(n.dir, conn.LocalPort()); err != nil {
		n.events.Warnf("the node's UDP port cannot be recorded for its next start: %v", err)
	}
}

// running returns the node's extension, or an error unless the node is started and not
// closed. The extension is nil if this tailscale has none.
func (n *Node) running(op string) (*extension, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return nil, errClosed(op)
	case n.stack == nil:
		return nil, tberr.Errorf(tberr.NotRunning, op, "the node is not up")
	}
	return n.ext, nil
}

// isStarted reports whether tsnet's Start has succeeded.
func (n *Node) isStarted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stack != nil
}

// IsClosed reports whether Close was called.
func (n *Node) IsClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closing
}

// Close closes the node with its listeners and forwards. Further calls wait for the
// first. If closing takes longer than timeout, it goes on in the background.
func (n *Node) Close(timeout time.Duration) error {
	n.mu.Lock()
	first := !n.closing
	n.closing = true
	n.mu.Unlock()
	if first {
		n.cancel()
		go n.shutdown()
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-n.closed:
		return n.closeErr
	case <-deadline.C:
		n.events.Close() // nothing reads the events any more
		return tberr.Errorf(tberr.Timeout, "close", "the node did not close within %v; its remains are left behind", timeout)
	}
}

func (n *Node) shutdown() {
	defer close(n.closed)
	defer n.events.Close()
	defer n.dirLock.Close()
	n.mu.Lock()
	bridges := make([]Bridge, 0, len(n.bridges))
	for bridge := range n.bridges {
		bridges = append(bridges, bridge)
	}
	started := n.started
	n.mu.Unlock()
	var errs []error
	for _, bridge := range bridges {
		errs = append(errs, catchPanic(func() error { bridge.Close(0); return nil }))
	}
	// tsnet's Close before or during Start panics or leaks.
	if started != nil {
		<-started
		errs = append(errs, catchPanic(n.closeServer))
	}
	n.closeErr = errors.Join(errs...)
}

// catchPanic runs one step of closing, so that the next ones run in any case.
func catchPanic(step func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = tberr.FromPanic("close", r)
		}
	}()
	return step()
}

func (n *Node) closeServer() error {
	sys := n.srv.Sys()
	if sys == nil {
		return nil
	}
	defer dropExtension(sys)
	if !n.serverUp {
		return closeUnstarted(sys, extensionOf(n.srv))
	}
	n.disconnectControl()
	// tailscale can still be processing a netmap. Without a self node, magicsock's
	// updateRelayServersSet would end the process when that netmap meets the closed engine.
	if conn, ok := sys.MagicSock.GetOK(); ok {
		conn.SetNetworkMap((&tailcfg.Node{}).View(), nil)
	}
	if n.localAPI != nil {
		n.localAPI.CloseIdleConnections()
	}
	if err := n.srv.Close(); err != nil {
		return tberr.Errorf(tberr.Internal, "close", "tsnet: %v", err)
	}
	return nil
}

// disconnectControl disconnects from the control server, and first logs an ephemeral
// node out. tsnet's Close does both, but only after it has begun to close the rest.
func (n *Node) disconnectControl() {
	client, err := n.srv.LocalClient()
	if err != nil {
		return
	}
	bounded := func(what string, step func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), disconnectTimeout)
		defer cancel()
		if err := step(ctx); err != nil {
			n.events.Logf("%s: %v", what, err)
		}
	}
	if n.config.Ephemeral {
		bounded("logging the ephemeral node out", client.Logout)
	}
	bounded("disconnecting from the control server", client.DisconnectControl)
}

// closeUnstarted closes what a failed Start leaves behind. tsnet intends to do so, but
// closes nothing: it takes its list of what to close before filling it.
func closeUnstarted(sys *tsd.System, ext *extension) error {
	if ext != nil && ext.shutdownBackend != nil {
		ext.shutdownBackend()
	}
	var errs []error
	if subsystem, ok := sys.Netstack.GetOK(); ok {
		if stack, ok := subsystem.(*netstack.Impl); ok {
			errs = append(errs, stack.Close())
		}
	}
	if engine, ok := sys.Engine.GetOK(); ok {
		engine.Close()
	}
	if dialer, ok := sys.Dialer.GetOK(); ok {
		errs = append(errs, dialer.Close())
	}
	if monitor, ok := sys.NetMon.GetOK(); ok {
		errs = append(errs, monitor.Close())
	}
	sys.Bus.Get().Close()
	return errors.Join(errs...)
}
