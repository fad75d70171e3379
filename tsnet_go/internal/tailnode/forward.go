package main

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
)

// ForwardConfig is what Python decides about a forward.
type ForwardConfig struct {
	Local  string `json:"local"`   // "unix:/path", or a loopback host:port (port 0: a free one)
	Remote string `json:"remote"`  // "peer:port", peer a name or a tailnet address
	WaitMS int64  `json:"wait_ms"` // how long the peer may take to appear in the netmap
}

const (
	// forwardDial bounds the first contact with a peer: paths are found by then, or never.
	forwardDial = 15 * time.Second
	// forwardMax bounds the connections of one forward at once: loopback is open to
	// every user of the machine.
	forwardMax = 1024
	// peerAsk is the pause between looks for a peer that is not in the netmap yet.
	peerAsk = 5 * time.Millisecond
)

// Forward is a local socket whose connections go out over the tailnet, and
// nowhere else: tsnet's own dialer would fall back to the host's network for
// an address that is no peer's.
type Forward struct {
	node     *Node
	config   ForwardConfig
	peer     string
	port     uint16
	listener net.Listener
	conns    connections

	life context.Context // of what dials
	end  context.CancelFunc
}

func (n *Node) forward(config ForwardConfig) (_ *Forward, err error) {
	const op = "forward"
	if _, err := n.running(op); err != nil {
		return nil, err
	}
	peer, portText, err := net.SplitHostPort(config.Remote)
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || port == 0 || peer == "" {
		return nil, errorf(codeBadArgument, op, "the remote %q is no peer:port", config.Remote)
	}
	f := &Forward{node: n, config: config, peer: peer, port: uint16(port), conns: connections{limit: forwardMax}}
	f.life, f.end = context.WithCancel(n.life)
	defer func() {
		if err != nil {
			f.end()
		}
	}()
	if err := f.awaitPeer(milliseconds(config.WaitMS)); err != nil {
		return nil, err
	}
	if f.listener, err = listenLocal(config.Local); err != nil {
		return nil, err
	}
	if err := n.attach(op, f, func(closer) error { return nil }); err != nil {
		f.listener.Close()
		return nil, err
	}
	go f.accept()
	return f, nil
}

// local is where the forward listens, with the port that was picked.
func (f *Forward) local() string {
	addr := f.listener.Addr()
	if addr.Network() == "unix" {
		return "unix:" + addr.String()
	}
	return addr.String()
}

func listenLocal(local string) (net.Listener, error) {
	const op = "forward"
	if path, ok := strings.CutPrefix(local, "unix:"); ok {
		if !filepath.IsAbs(path) { // an abstract one would be open to everybody
			return nil, errorf(codeBadArgument, op, "%q is no absolute path of a Unix socket", path)
		}
		return listenAt("unix", path)
	}
	host, port, err := net.SplitHostPort(local)
	if err != nil {
		return nil, errorf(codeBadArgument, op, "%q is neither host:port nor unix:/path", local)
	}
	if host == "localhost" {
		host = "127.0.0.1" // not what some resolver says
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.IsLoopback() {
		return nil, errorf(codeBadArgument, op, "%q is no loopback address; allowed: 127.0.0.1, ::1, localhost", host)
	}
	return listenAt("tcp", net.JoinHostPort(host, port))
}

func listenAt(network, address string) (net.Listener, error) {
	config := net.ListenConfig{}
	if network == "unix" {
		config.Control = private
	}
	listener, err := config.Listen(context.Background(), network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, errorf(codeAddressInUse, "forward", "%s is in use", address)
	case err != nil:
		return nil, errorf(codeBadArgument, "forward", "cannot listen on %s: %v", address, err)
	}
	return listener, nil
}

// private makes a Unix socket its user's own: only the process's own user may send
// through the node. Linux gives the file the socket's mode when it is bound, so
// that there is no moment in between.
func private(_, _ string, raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return failed
}

// awaitPeer waits until the netmap has the peer: right after a join it may not yet.
func (f *Forward) awaitPeer(most time.Duration) error {
	ctx, cancel := context.WithTimeout(f.life, most)
	defer cancel()
	for {
		_, _, err := f.resolve()
		if err == nil {
			return nil
		}
		select {
		case <-f.node.life.Done():
			return errorf(codeClosed, "forward", "the node is closed")
		case <-ctx.Done():
			return err
		case <-time.After(peerAsk):
		}
	}
}

// resolve finds the peer in the current netmap: an address of it, and the own one to
// call from.
func (f *Forward) resolve() (from netip.Addr, to netip.AddrPort, err error) {
	peers, suffix, err := f.node.netPeers()
	if err != nil {
		return from, to, err
	}
	peer, err := findPeer(peers, suffix, f.peer)
	if err != nil {
		return from, to, err
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
	return from, to, errorf(codePeerNotFound, "forward", "peer %q has no address of a kind that this node has", f.peer)
}

func (f *Forward) accept() {
	defer recoverGoroutine(f.node.events)
	for {
		conn, err := f.listener.Accept()
		if err == nil {
			f.take(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors, most likely: it passes.
		f.node.events.logf("forward: accept: %v", err)
		select {
		case <-f.life.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (f *Forward) take(conn net.Conn) {
	local, ok := conn.(localConn)
	if !ok { // net's always is
		reset(conn)
		return
	}
	p := &pair{events: f.node.events, local: local}
	if !f.conns.add(p) {
		rejectedConnections.Add(1)
		p.kill()
		return
	}
	go f.serve(p)
}

func (f *Forward) serve(p *pair) {
	defer recoverGoroutine(f.node.events)
	defer f.conns.remove(p)
	defer p.kill() // does nothing to a pair that came to its end; else the client sees a reset
	remote, err := f.dial()
	if err != nil {
		f.node.events.logf("forward to %s: %v", f.config.Remote, err)
		return
	}
	if p.setTailnet(remote) {
		p.run()
	}
}

// dial goes through the node's own netstack, to a peer of the current netmap.
func (f *Forward) dial() (tailnetConn, error) {
	from, to, err := f.resolve()
	if err != nil {
		return nil, err
	}
	f.node.mu.Lock()
	stack := f.node.stack
	f.node.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.life, forwardDial)
	defer cancel()
	conn, err := stack.DialContextTCPWithBind(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", to, err)
	}
	return conn, nil
}

func (f *Forward) owner() *Node { return f.node }

// close takes no further connection, gives those there are until drain, and ends the
// rest. A further call waits as well.
func (f *Forward) close(drain time.Duration) {
	f.listener.Close() // removes a Unix socket's file as well
	f.conns.close(drain, f.end)
	f.node.detach(f)
}
