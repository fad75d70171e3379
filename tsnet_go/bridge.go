package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strconv"
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

	// How long a connection may be between the decision to take it and its handler.
	// tsnet calls the handler right away, unless the endpoint could not be made; then never.
	pendingFor = 2 * time.Second
)

// processTag makes the peer names of this process unguessable and unlike those of
// any other process in the same network namespace, where abstract names are shared.
var processTag = func() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process first
	return hex.EncodeToString(b[:])
}()

// peerPrefix is how every peer name of this process begins, after the NUL (or @)
// that marks an abstract address. It stays the secret of this process's two halves.
var peerPrefix = "tailnet/" + processTag + "/"

var connectionNumber atomic.Uint64 // never reused: a name in use cannot be bound twice

// peerName is the abstract Unix address that tells the Python server who is
// behind a connection. tailbone/tsnet/peername.py reads it.
func peerName(listener string, source netip.AddrPort) string {
	n := connectionNumber.Add(1)
	return "@" + peerPrefix + listener + "/" + source.String() + "/" + strconv.FormatUint(n, 36)
}

var listenerNames = regexp.MustCompile(`^[a-z0-9-]{1,12}$`)

// Listener bridges a port on the tailnet to a Unix socket.
type Listener struct {
	node   *Node
	config ListenConfig
	only   []netip.Addr // empty: every address of the node
	remove func()       // takes the handler out of tsnet

	mu      sync.Mutex
	closed  bool
	pending map[netip.AddrPort]time.Time
	conns   connections
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
	case config.UnixPath == "":
		return nil, errorf(codeBadArgument, op, "a Unix socket's path is needed")
	case config.MaxConnections < 1:
		return nil, errorf(codeBadArgument, op, "max_connections must be at least 1")
	}
	l := &Listener{node: n, config: config, pending: make(map[netip.AddrPort]time.Time)}
	for _, text := range config.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil || !n.owns(addr) {
			return nil, errorf(codeBadArgument, op, "%s is no address of this node; allowed: %s",
				text, strings.Join(addressStrings(n.ownAddresses()), ", "))
		}
		l.only = append(l.only, addr)
	}
	if err := n.claim(l); err != nil {
		return nil, err
	}
	l.remove = n.srv.RegisterFallbackTCPHandler(l.flow)
	return l, nil
}

// claim attaches l to its node, unless its port is taken by another listener.
func (n *Node) claim(l *Listener) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return errorf(codeClosed, "listen", "the node is closed")
	}
	for part := range n.parts {
		other, ok := part.(*Listener)
		if ok && other.config.Port == l.config.Port && overlap(other.only, l.only) {
			return errorf(codeAddressInUse, "listen", "port %d of this node is taken", l.config.Port)
		}
	}
	n.parts[l] = struct{}{}
	return nil
}

func overlap(a, b []netip.Addr) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// flow decides about a new connection while it is only a SYN: that is the one
// place from which it can be reset. (tsnet's own listeners accept first.)
func (l *Listener) flow(source, destination netip.AddrPort) (func(net.Conn), bool) {
	if destination.Port() != l.config.Port || !l.serves(destination.Addr()) {
		return nil, false
	}
	if !l.reserve(source) {
		rejectedConnections.Add(1)
		return nil, true // tsnet answers with RST
	}
	return func(conn net.Conn) {
		defer recoverGoroutine(l.node.events)
		l.serve(conn, source)
	}, true
}

func (l *Listener) serves(addr netip.Addr) bool {
	for _, own := range l.only {
		if addr == own {
			return true
		}
	}
	return len(l.only) == 0 && l.node.owns(addr)
}

func (l *Listener) reserve(source netip.AddrPort) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.conns.count()+len(l.pending) >= l.config.MaxConnections {
		limit := time.Now().Add(-pendingFor)
		for who, since := range l.pending {
			if since.Before(limit) {
				delete(l.pending, who)
			}
		}
		if l.conns.count()+len(l.pending) >= l.config.MaxConnections {
			return false
		}
	}
	l.pending[source] = time.Now()
	return true
}

// serve connects the Unix socket and copies until both sides are done. netstack
// calls it in a goroutine of its own.
func (l *Listener) serve(tailnet net.Conn, source netip.AddrPort) {
	defer tailnet.Close()
	l.mu.Lock()
	delete(l.pending, source)
	closed := l.closed
	if !closed {
		l.conns.add(tailnet)
	}
	l.mu.Unlock()
	if closed {
		return
	}
	defer l.conns.remove(tailnet)
	local, err := dialUnix(l.node.life, l.config.UnixPath, peerName(l.config.Name, source))
	if err != nil {
		l.node.events.logf("bridge: the server behind %s takes no connection: %v", l.config.Name, err)
		return
	}
	defer local.Close()
	join2(tailnet, local)
}

// dialUnix connects to path from the abstract name, and waits out a full backlog.
func dialUnix(ctx context.Context, path, name string) (*net.UnixConn, error) {
	dialer := net.Dialer{LocalAddr: &net.UnixAddr{Name: name, Net: "unix"}}
	give := time.Now().Add(dialRetryFor)
	for pause := dialRetryFirst; ; pause = min(2*pause, dialRetryMost) {
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(give) {
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

// close takes no further connection, gives those there are until drain, and ends the rest.
func (l *Listener) close(drain time.Duration) {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first && l.remove != nil {
		l.remove()
	}
	l.conns.drain(drain)
	l.node.detach(l)
}
