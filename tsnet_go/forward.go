package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tailscale.com/tailcfg"
)

// ForwardConfig is what Python decides about a forward.
type ForwardConfig struct {
	Local  string `json:"local"`   // "unix:/path", or a loopback host:port (port 0: a free one)
	Remote string `json:"remote"`  // "peer:port", peer a name or a tailnet address
	WaitMS int64  `json:"wait_ms"` // how long the peer may take to appear in the netmap
}

// forwardDial bounds the first contact with a peer: paths are found by then, or never.
const forwardDial = 15 * time.Second

// Forward is a local socket whose connections go out over the tailnet, and
// nowhere else: tsnet's own dialer would fall back to the host's network for
// an address that is no peer's.
type Forward struct {
	node     *Node
	config   ForwardConfig
	peer     string
	port     uint16
	listener net.Listener
	unixPath string

	mu     sync.Mutex
	closed bool
	conns  connections
}

func (n *Node) forward(config ForwardConfig) (*Forward, error) {
	const op = "forward"
	if _, err := n.running(op); err != nil {
		return nil, err
	}
	peer, portText, err := net.SplitHostPort(config.Remote)
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || portErr != nil || port == 0 || peer == "" {
		return nil, errorf(codeBadArgument, op, "the remote %q is no peer:port", config.Remote)
	}
	f := &Forward{node: n, config: config, peer: peer, port: uint16(port)}
	ctx, cancel := context.WithTimeout(n.life, time.Duration(config.WaitMS)*time.Millisecond)
	defer cancel()
	if err := f.awaitPeer(ctx); err != nil {
		return nil, err
	}
	if f.listener, f.unixPath, err = listenLocal(config.Local); err != nil {
		return nil, err
	}
	if err := n.attach(op, f); err != nil {
		f.closeSocket()
		return nil, err
	}
	go f.accept()
	return f, nil
}

// local is where the forward listens, with the port that was picked.
func (f *Forward) local() string {
	if f.unixPath != "" {
		return "unix:" + f.unixPath
	}
	return f.listener.Addr().String()
}

func listenLocal(local string) (net.Listener, string, error) {
	const op = "forward"
	if path, ok := strings.CutPrefix(local, "unix:"); ok {
		listener, err := net.Listen("unix", path)
		if err != nil {
			return nil, "", listenError(path, err)
		}
		// Only the process's own user may send through the node.
		if err := os.Chmod(path, 0o600); err != nil {
			listener.Close()
			return nil, "", errorf(codeInternal, op, "%v", err)
		}
		return listener, path, nil
	}
	host, _, err := net.SplitHostPort(local)
	if err != nil {
		return nil, "", errorf(codeBadArgument, op, "%q is neither host:port nor unix:/path", local)
	}
	addr, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return nil, "", errorf(codeBadArgument, op, "%q is no loopback address; allowed: 127.0.0.1, ::1, localhost", host)
	}
	listener, err := net.Listen("tcp", local)
	if err != nil {
		return nil, "", listenError(local, err)
	}
	return listener, "", nil
}

func listenError(where string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errorf(codeAddressInUse, "forward", "%s is in use", where)
	}
	return errorf(codeBadArgument, "forward", "cannot listen on %s: %v", where, err)
}

// awaitPeer waits until the netmap has the peer: right after a join it may not yet.
func (f *Forward) awaitPeer(ctx context.Context) error {
	for {
		_, err := f.resolve()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// resolve finds the peer's address in the current netmap.
func (f *Forward) resolve() (netip.AddrPort, error) {
	ext, err := f.node.running("forward")
	if err != nil {
		return netip.AddrPort{}, err
	}
	if ext == nil {
		return netip.AddrPort{}, errorf(codeNotRunning, "forward", "this tailscale hands out no netmap")
	}
	name := strings.ToLower(strings.TrimSuffix(f.peer, "."))
	wanted, _ := netip.ParseAddr(f.peer)
	found := ext.peers(func(node tailcfg.NodeView) bool { return isPeer(node, name, wanted) })
	if len(found) == 0 {
		return netip.AddrPort{}, errorf(codePeerNotFound, "forward",
			"%q is no peer of this tailnet; allowed: a peer's name or tailnet address", f.peer)
	}
	addr := wanted
	if !addr.IsValid() {
		addr = found[0].Addresses().At(0).Addr()
	}
	return netip.AddrPortFrom(addr, f.port), nil
}

func isPeer(node tailcfg.NodeView, name string, wanted netip.Addr) bool {
	if node.Addresses().Len() == 0 {
		return false
	}
	if wanted.IsValid() {
		for _, prefix := range node.Addresses().All() {
			if prefix.Addr() == wanted {
				return true
			}
		}
		return false
	}
	full := strings.ToLower(strings.TrimSuffix(node.Name(), "."))
	short, _, _ := strings.Cut(full, ".")
	return name == full || name == short
}

func (f *Forward) accept() {
	defer recoverGoroutine(f.node.events)
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: it passes.
			f.node.events.logf("forward: accept: %v", err)
			select {
			case <-f.node.life.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		f.mu.Lock()
		closed := f.closed
		if !closed {
			f.conns.add(conn)
		}
		f.mu.Unlock()
		if closed {
			conn.Close()
			return
		}
		go f.serve(conn)
	}
}

func (f *Forward) serve(conn net.Conn) {
	defer recoverGoroutine(f.node.events)
	defer f.conns.remove(conn)
	defer conn.Close()
	remote, err := f.dial()
	if err != nil {
		f.node.events.logf("forward to %s: %v", f.config.Remote, err)
		// The local client sees a reset, not an empty answer.
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return
	}
	defer remote.Close()
	join2(conn, remote)
}

// dial goes through the node's own netstack, to a peer of the current netmap.
func (f *Forward) dial() (net.Conn, error) {
	to, err := f.resolve()
	if err != nil {
		return nil, err
	}
	f.node.mu.Lock()
	stack := f.node.stack
	f.node.mu.Unlock()
	v4, v6 := f.node.srv.TailscaleIPs()
	from := v4
	if to.Addr().Is6() {
		from = v6
	}
	ctx, cancel := context.WithTimeout(f.node.life, forwardDial)
	defer cancel()
	conn, err := stack.DialContextTCPWithBind(ctx, from, to)
	if err != nil {
		return nil, errorf(codeUnreachable, "forward", "%s: %v", to, err)
	}
	return conn, nil
}

func (f *Forward) closeSocket() {
	f.listener.Close() // removes a Unix socket's file as well
}

func (f *Forward) owner() *Node { return f.node }

func (f *Forward) close(drain time.Duration) {
	f.mu.Lock()
	first := !f.closed
	f.closed = true
	f.mu.Unlock()
	if first {
		f.closeSocket()
	}
	f.conns.drain(drain)
	f.node.detach(f)
}
