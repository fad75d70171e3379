package tailnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// ForwardConfig configures a Forward.
type ForwardConfig struct {
	Local  string `json:"local"`   // "unix:/path", or a loopback host:port (port 0: a free one)
	Remote string `json:"remote"`  // "peer:port"; peer is a name or a tailnet address
	WaitMS int64  `json:"wait_ms"` // how long the peer may take to appear in the netmap
}

const (
	// forwardDialTimeout bounds the first contact with a peer: paths are found by then,
	// or never.
	forwardDialTimeout = 15 * time.Second
	// maxForwardSessions bounds the connections of one forward at once: loopback is
	// open to every user of the machine.
	maxForwardSessions = 1024
	// peerPollInterval is the pause between looks for a peer that is not in the netmap
	// yet.
	peerPollInterval = 5 * time.Millisecond
	// acceptRetryPause is the pause after a failed accept.
	acceptRetryPause = 10 * time.Millisecond
)

// Forward is a local socket whose connections go to one peer on the tailnet, and
// nowhere else: for an address that is not a peer's, tsnet's own dialer would fall back
// to the host's network.
type Forward struct {
	node     *Node
	remote   string
	peer     string
	port     uint16
	listener net.Listener
	sessions *relay.Sessions

	ctx    context.Context // of the accept loop and of dials
	cancel context.CancelFunc
}

// Forward starts a Forward.
func (n *Node) Forward(config ForwardConfig) (*Forward, error) {
	return n.forward(config, maxForwardSessions)
}

func (n *Node) forward(config ForwardConfig, maxSessions int) (_ *Forward, err error) {
	const op = "forward"
	if _, err := n.running(op); err != nil {
		return nil, err
	}
	peer, portText, err := net.SplitHostPort(config.Remote)
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || port == 0 || peer == "" {
		return nil, tberr.Errorf(tberr.BadArgument, op, "the remote %q must be peer:port", config.Remote)
	}
	f := &Forward{
		node: n, remote: config.Remote, peer: peer, port: uint16(port), sessions: relay.NewSessions(maxSessions, 0),
	}
	f.ctx, f.cancel = context.WithCancel(n.ctx)
	defer func() {
		if err != nil {
			f.cancel()
		}
	}()
	if err := f.awaitPeer(time.Duration(config.WaitMS) * time.Millisecond); err != nil {
		return nil, err
	}
	if f.listener, err = listenLocal(config.Local); err != nil {
		return nil, err
	}
	if err := n.addBridge(op, f, func(Bridge) error { return nil }); err != nil {
		f.listener.Close()
		return nil, err
	}
	go f.accept()
	return f, nil
}

// Node returns the node that the forward belongs to.
func (f *Forward) Node() *Node { return f.node }

// Local returns where the forward listens, with the port that was chosen.
func (f *Forward) Local() string {
	addr := f.listener.Addr()
	if addr.Network() == "unix" {
		return "unix:" + addr.String()
	}
	return addr.String()
}

func listenLocal(local string) (net.Listener, error) {
	const op = "forward"
	if path, ok := strings.CutPrefix(local, "unix:"); ok {
		if !filepath.IsAbs(path) { // every user could connect to an abstract one
			return nil, tberr.Errorf(tberr.BadArgument, op, "%q must be the absolute path of a Unix socket", path)
		}
		return listenAt("unix", path)
	}
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		return nil, tberr.Errorf(tberr.BadArgument, op, "%q must be host:port or unix:/path", local)
	}
	if host == "localhost" {
		host = "127.0.0.1" // whatever a resolver would answer
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsLoopback() {
		return nil, tberr.Errorf(tberr.BadArgument, op, "%q is not a loopback address; allowed: 127.0.0.1, ::1, localhost", host)
	}
	return listenAt("tcp", net.JoinHostPort(host, port))
}

func listenAt(network, address string) (net.Listener, error) {
	config := net.ListenConfig{}
	if network == "unix" {
		config.Control = restrictToUser
	}
	listener, err := config.Listen(context.Background(), network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, tberr.Errorf(tberr.AddressInUse, "forward", "%s is in use", address)
	case err != nil:
		return nil, tberr.Errorf(tberr.BadArgument, "forward", "cannot listen on %s: %v", address, err)
	}
	return listener, nil
}

// restrictToUser lets only the process's own user connect to a Unix socket. Linux gives
// the file the socket's mode when it is bound, so it is never open to others.
func restrictToUser(_, _ string, raw syscall.RawConn) error {
	var chmodErr error
	if err := raw.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return chmodErr
}

// awaitPeer waits until the peer is in the netmap: right after a join it may not be yet.
func (f *Forward) awaitPeer(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(f.ctx, timeout)
	defer cancel()
	for {
		_, _, err := f.resolve()
		if err == nil {
			return nil
		}
		select {
		case <-f.node.ctx.Done():
			return errClosed("forward")
		case <-ctx.Done():
			return err
		case <-time.After(peerPollInterval):
		}
	}
}

// resolve looks the peer up in the current netmap. It returns an address of the peer,
// and the node's own address to dial from.
func (f *Forward) resolve() (from netip.Addr, to netip.AddrPort, err error) {
	peer, err := f.node.peerNamed("forward", f.peer)
	if err != nil {
		return from, to, err
	}
	if peer.expired {
		return from, to, tberr.Errorf(tberr.PeerNotFound, "forward", "the key of peer %q has expired", f.peer)
	}
	addresses := peer.addresses
	if wanted, err := netip.ParseAddr(f.peer); err == nil {
		addresses = []netip.Addr{wanted.Unmap()}
	}
	v4, v6 := f.node.srv.TailscaleIPs()
	for _, addr := range addresses {
		if from = v4; addr.Is6() {
			from = v6
		}
		if from.IsValid() {
			return from, netip.AddrPortFrom(addr, f.port), nil
		}
	}
	return from, to, tberr.Errorf(tberr.PeerNotFound, "forward", "peer %q and this node have no address family in common", f.peer)
}

func (f *Forward) accept() {
	defer f.node.events.Recover()
	for {
		conn, err := f.listener.Accept()
		if err == nil {
			f.handle(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// The process is most likely out of descriptors, which passes.
		f.node.events.Logf("forward: accept: %v", err)
		select {
		case <-f.ctx.Done():
			return
		case <-time.After(acceptRetryPause):
		}
	}
}

func (f *Forward) handle(conn net.Conn) {
	local, ok := conn.(relay.LocalConn)
	if !ok { // net's connections always are
		relay.Reset(conn)
		return
	}
	s := &relay.Session{Events: f.node.events}
	s.SetLocal(local)
	if !f.sessions.Add(s) {
		rejected.Add(1)
		s.Abort()
		return
	}
	go f.serve(s)
}

func (f *Forward) serve(s *relay.Session) {
	defer f.node.events.Recover()
	defer f.sessions.Remove(s)
	defer s.Abort() // resets the client unless the session has ended
	tailnet, err := f.dial()
	if err != nil {
		f.node.events.Logf("forward to %s: %v", f.remote, err)
		return
	}
	if s.SetTailnet(tailnet) {
		s.Run()
	}
}

// dial connects to the peer through the node's own netstack.
func (f *Forward) dial() (relay.TailnetConn, error) {
	from, to, err := f.resolve()
	if err != nil {
		return nil, err
	}
	f.node.mu.Lock()
	stack := f.node.stack
	f.node.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.ctx, forwardDialTimeout)
	defer cancel()
	conn, err := stack.DialContextTCPWithBind(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", to, err)
	}
	return conn, nil
}

// Close accepts no further connection, gives the open ones drain to end, and resets
// the rest. Concurrent calls wait as well.
func (f *Forward) Close(drain time.Duration) {
	f.listener.Close() // also removes a Unix socket's file
	f.sessions.Close(drain, f.cancel)
	f.node.removeBridge(f)
}
