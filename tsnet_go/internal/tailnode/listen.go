package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ListenConfig is what Python decides about a listener.
type ListenConfig struct {
	Kind           string   `json:"kind"`            // "tcp"
	Name           string   `json:"name"`            // shown in the peer names of its connections
	Port           uint16   `json:"port"`            //
	Addresses      []string `json:"addresses"`       // own tailnet addresses; none means all of them
	UnixPath       string   `json:"unix_path"`       // where the Python server listens
	MaxConnections int      `json:"max_connections"` // at once; more are reset
}

const (
	// A full backlog of a Unix socket refuses at once (EAGAIN) instead of waiting.
	dialRetryFirst = 1 * time.Millisecond
	dialRetryMost  = 50 * time.Millisecond
	dialRetryFor   = 2 * time.Second

	// writePatience is how long a peer may take nothing of what it is sent; sweeps
	// notice it up to twice sweepEvery later.
	writePatience = 10 * time.Second

	// A server that is away is told of once in this time, not for every connection.
	complainEvery = 5 * time.Second
)

var listenerNames = regexp.MustCompile(`^[a-z0-9-]{1,12}$`)

// Listener bridges a port on the tailnet to a Unix socket.
type Listener struct {
	node   *Node
	config ListenConfig
	only   []netip.Addr // empty: every address of the node
	conns  connections

	life context.Context // of what waits for the Unix socket
	end  context.CancelFunc

	complained atomic.Int64 // when, unix ns
	rejections rejections

	mu     sync.Mutex
	closed bool
	remove func() // takes the handler out of tsnet
}

func (n *Node) listen(config ListenConfig) (*Listener, error) {
	const op = "listen"
	if _, err := n.running(op); err != nil {
		return nil, err
	}
	switch {
	case config.Kind != "tcp":
		return nil, errorf(codeBadArgument, op, "the kind %q is not known; allowed: tcp", config.Kind)
	case !listenerNames.MatchString(config.Name):
		return nil, errorf(codeBadArgument, op, "the name %q must be 1 to 12 of a-z, 0-9 and -", config.Name)
	case config.Port == 0:
		return nil, errorf(codeBadArgument, op, "a port from 1 to 65535 is needed")
	case !filepath.IsAbs(config.UnixPath):
		return nil, errorf(codeBadArgument, op, "the absolute path of a Unix socket is needed")
	case config.MaxConnections < 1:
		return nil, errorf(codeBadArgument, op, "max_connections must be at least 1")
	}
	l := &Listener{node: n, config: config, conns: connections{
		limit: config.MaxConnections, share: shareOf(config.MaxConnections),
	}}
	for _, text := range config.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil || !n.owns(addr) {
			return nil, errorf(codeBadArgument, op, "%s is no address of this node; allowed: %s",
				text, strings.Join(addressStrings(n.ownAddresses()), ", "))
		}
		l.only = append(l.only, addr)
	}
	l.life, l.end = context.WithCancel(n.life)
	if err := n.attach(op, l, l.clashes); err != nil {
		l.end()
		return nil, err
	}
	l.register()
	return l, nil
}

// clashes says no to a second listener on one port and address.
func (l *Listener) clashes(part closer) error {
	other, ok := part.(*Listener)
	if !ok || other.config.Port != l.config.Port {
		return nil
	}
	if len(l.only) > 0 && len(other.only) > 0 && !slices.ContainsFunc(l.only, other.serves) {
		return nil
	}
	return errorf(codeAddressInUse, "listen", "port %d of this node is taken", l.config.Port)
}

// register makes tsnet ask for new connections. A close that came in between found
// nothing to take out.
func (l *Listener) register() {
	remove := l.node.srv.RegisterFallbackTCPHandler(l.flow)
	l.mu.Lock()
	closed := l.closed
	l.remove = remove
	l.mu.Unlock()
	if closed {
		remove()
	}
}

// flow decides about a new connection while it is only a SYN: that is the one
// place from which it can be refused. (tsnet's own listeners accept first.) tsnet
// calls it with a lock held.
func (l *Listener) flow(source, destination netip.AddrPort) (handler func(net.Conn), intercept bool) {
	defer func() {
		if r := recover(); r != nil {
			l.node.events.fault(r)
			handler, intercept = nil, true
		}
	}()
	if destination.Port() != l.config.Port || !l.serves(destination.Addr()) {
		return nil, false
	}
	if l.conns.isFull(source.Addr()) {
		l.rejected()
		return nil, true // tsnet answers with a reset
	}
	return func(conn net.Conn) {
		defer recoverGoroutine(l.node.events)
		l.serve(conn, source)
	}, true
}

func (l *Listener) serves(addr netip.Addr) bool {
	if len(l.only) == 0 {
		return l.node.owns(addr)
	}
	return slices.Contains(l.only, addr)
}

// serve connects the Unix socket and copies until both sides are done. netstack
// calls it in a goroutine of its own once the handshake is over: a SYN alone takes
// no place. So many can have come this far at once, and be too many now.
func (l *Listener) serve(conn net.Conn, source netip.AddrPort) {
	tailnet, ok := conn.(tailnetConn)
	if !ok { // netstack's always is
		reset(conn)
		return
	}
	p := &pair{events: l.node.events, tailnet: tailnet, source: source.Addr(), patience: writePatience}
	if !l.conns.add(p) {
		l.rejected()
		p.kill()
		return
	}
	defer l.conns.remove(p)
	defer p.kill() // does nothing to a pair that came to its end
	caller := newCaller(l.node, source)
	defer caller.release()
	p.onArrival = caller.update
	local, err := dialUnix(l.life, l.config.UnixPath, peerName(l.config.Name, source, caller.slot))
	if err != nil {
		l.complain(err)
		return
	}
	if p.setLocal(local) {
		p.run()
	}
}

// rejected counts a connection that is one too many, and now and then tells of them.
func (l *Listener) rejected() {
	rejectedConnections.Add(1)
	if untold := l.rejections.add(time.Now()); untold > 0 {
		l.node.events.warnf("the listener %s is full (%d connections at a time, %d of one address): "+
			"%d more were reset since this was last reported", l.config.Name, l.config.MaxConnections, l.conns.share, untold)
	}
}

func (l *Listener) complain(err error) {
	now, last := time.Now().UnixNano(), l.complained.Load()
	if l.life.Err() == nil && now-last > int64(complainEvery) && l.complained.CompareAndSwap(last, now) {
		l.node.events.warnf("the server behind the listener %s takes no connection: %v", l.config.Name, err)
	}
}

// dialUnix connects to path from the abstract name, and waits out a full backlog.
func dialUnix(ctx context.Context, path, name string) (*net.UnixConn, error) {
	from, to := &net.UnixAddr{Name: name, Net: "unix"}, &net.UnixAddr{Name: path, Net: "unix"}
	end := time.Now().Add(dialRetryFor)
	for pause := dialRetryFirst; ; pause = min(2*pause, dialRetryMost) {
		conn, err := net.DialUnix("unix", from, to)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (l *Listener) owner() *Node { return l.node }

// close takes no further connection, gives those there are until drain, and ends the
// rest. A further call waits as well.
func (l *Listener) close(drain time.Duration) {
	l.mu.Lock()
	l.closed = true
	remove := l.remove
	l.remove = nil
	l.mu.Unlock()
	if remove != nil {
		remove()
	}
	l.conns.close(drain, l.end)
	l.node.detach(l)
}
