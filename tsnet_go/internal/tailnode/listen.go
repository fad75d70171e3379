package tailnode

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

	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// ListenConfig configures a Listener.
type ListenConfig struct {
	Name           string   `json:"name"`            // part of the peer names of its connections
	Port           uint16   `json:"port"`            //
	Addresses      []string `json:"addresses"`       // own tailnet addresses; none means all of them
	UnixPath       string   `json:"unix_path"`       // where the Python server listens
	MaxConnections int      `json:"max_connections"` // at once; more are reset
	MaxBytesPerS   int      `json:"max_bytes_per_s"` // that one address may send; 0 means no limit
}

const (
	// A full backlog of a Unix socket refuses at once (EAGAIN) instead of waiting.
	dialFirstPause = 1 * time.Millisecond
	dialMaxPause   = 50 * time.Millisecond
	dialTimeout    = 2 * time.Second

	// writeTimeout is how long a peer may accept none of the bytes sent to it. The
	// relay's sweeps notice it up to 10 s later.
	writeTimeout = 10 * time.Second

	// minPerSource is the smallest number of connections that one source address may
	// have: the programs of one peer open several at once.
	minPerSource = 16

	// unavailableInterval bounds how often a server that accepts no connection is
	// reported.
	unavailableInterval = 5 * time.Second
)

var listenerNames = regexp.MustCompile(`^[a-z0-9-]{1,12}$`)

// Listener bridges a port on the tailnet to a Unix socket.
type Listener struct {
	node      *Node
	config    ListenConfig
	addresses []netip.Addr // empty: every address of the node
	perSource int
	sessions  *relay.Sessions
	pace      *pace

	ctx    context.Context // of dials to the Unix socket, and of delayed bytes
	cancel context.CancelFunc

	lastUnavailable atomic.Int64 // when unavailability was last reported, unix ns
	rejections      rejections

	mu         sync.Mutex
	closed     bool
	unregister func() // removes the handler from tsnet
}

// maxPerSource returns how many of limit connections one source address may have: a
// quarter, so that no single peer can take every place, but at least minPerSource.
func maxPerSource(limit int) int { return max(limit/4, minPerSource) }

// Listen starts a Listener.
func (n *Node) Listen(config ListenConfig) (*Listener, error) {
	const op = "listen"
	if _, err := n.running(op); err != nil {
		return nil, err
	}
	switch {
	case !listenerNames.MatchString(config.Name):
		return nil, tberr.Errorf(tberr.BadArgument, op, "the name %q must be 1 to 12 of a-z, 0-9 and -", config.Name)
	case config.Port == 0:
		return nil, tberr.Errorf(tberr.BadArgument, op, "the port must be from 1 to 65535")
	case !filepath.IsAbs(config.UnixPath):
		return nil, tberr.Errorf(tberr.BadArgument, op, "unix_path must be the absolute path of a Unix socket")
	case config.MaxConnections < 1:
		return nil, tberr.Errorf(tberr.BadArgument, op, "max_connections must be at least 1")
	case config.MaxBytesPerS < 0:
		return nil, tberr.Errorf(tberr.BadArgument, op, "max_bytes_per_s must be at least 0")
	}
	l := &Listener{node: n, config: config, perSource: maxPerSource(config.MaxConnections)}
	l.sessions = relay.NewSessions(config.MaxConnections, l.perSource)
	l.pace = newPace(config.MaxBytesPerS)
	for _, text := range config.Addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil || !n.hasAddress(addr) {
			return nil, tberr.Errorf(tberr.BadArgument, op, "%s is not an address of this node; allowed: %s",
				text, strings.Join(addressStrings(n.addresses()), ", "))
		}
		l.addresses = append(l.addresses, addr)
	}
	l.ctx, l.cancel = context.WithCancel(n.ctx)
	if err := n.addBridge(op, l, l.conflictsWith); err != nil {
		l.cancel()
		return nil, err
	}
	l.register()
	return l, nil
}

// Node returns the node that the listener belongs to.
func (l *Listener) Node() *Node { return l.node }

// conflictsWith returns an error if other listens on the same port and address.
func (l *Listener) conflictsWith(other Bridge) error {
	listener, ok := other.(*Listener)
	if !ok || listener.config.Port != l.config.Port {
		return nil
	}
	if len(l.addresses) > 0 && len(listener.addresses) > 0 && !slices.ContainsFunc(l.addresses, listener.serves) {
		return nil
	}
	return tberr.Errorf(tberr.AddressInUse, "listen", "port %d of this node is in use", l.config.Port)
}

// register makes tsnet pass new connections to the listener. A Close in the meantime
// found nothing to remove.
func (l *Listener) register() {
	unregister := l.node.srv.RegisterFallbackTCPHandler(l.handleSYN)
	l.mu.Lock()
	closed := l.closed
	l.unregister = unregister
	l.mu.Unlock()
	if closed {
		unregister()
	}
}

// handleSYN decides about a new connection while it is only a SYN, the one moment at
// which it can be refused. (tsnet's own listeners accept first.) tsnet calls it with a
// lock held.
func (l *Listener) handleSYN(source, destination netip.AddrPort) (handler func(net.Conn), intercept bool) {
	defer func() {
		if r := recover(); r != nil {
			l.node.events.ReportPanic(r)
			handler, intercept = nil, true
		}
	}()
	if destination.Port() != l.config.Port || !l.serves(destination.Addr()) {
		return nil, false
	}
	if l.sessions.IsFull(source.Addr()) {
		l.reportRejection()
		return nil, true // tsnet answers with a reset
	}
	return func(conn net.Conn) {
		defer l.node.events.Recover()
		l.serve(conn, source)
	}, true
}

func (l *Listener) serves(addr netip.Addr) bool {
	if len(l.addresses) == 0 {
		return l.node.hasAddress(addr)
	}
	return slices.Contains(l.addresses, addr)
}

// serve connects to the Unix socket and relays until both sides have ended. netstack
// calls it in a new goroutine once the handshake is complete. A SYN alone takes no
// place, so more connections than allowed can get this far at once.
func (l *Listener) serve(conn net.Conn, source netip.AddrPort) {
	tailnet, ok := conn.(relay.TailnetConn)
	if !ok { // netstack's connections always are
		relay.Reset(conn)
		return
	}
	relay.LimitBuffers(conn, acceptedBuffer)
	s := &relay.Session{Events: l.node.events, Source: source.Addr(), WriteTimeout: writeTimeout}
	s.SetTailnet(tailnet)
	if !l.sessions.Add(s) {
		l.reportRejection()
		s.Abort()
		return
	}
	defer l.sessions.Remove(s)
	defer s.Abort() // does nothing to a session that has ended
	caller := newCallerSlot(l.node, source)
	defer caller.release()
	s.OnArrival = func(n int) bool {
		if !l.pace.wait(l.ctx, source.Addr(), n) {
			return false
		}
		caller.update()
		return true
	}
	local, err := dialUnix(l.ctx, l.config.UnixPath, peerName(l.config.Name, source, caller.slot))
	if err != nil {
		l.reportUnavailable(err)
		return
	}
	if s.SetLocal(local) {
		s.Run()
	}
}

// reportRejection counts a connection beyond the limit, and sends a warning unless the
// last one was sent a moment ago.
func (l *Listener) reportRejection() {
	rejected.Add(1)
	if count := l.rejections.add(time.Now()); count > 0 {
		l.node.events.Warnf("the listener %s is full (%d connections at a time, %d per address): "+
			"%d more were reset since the last report", l.config.Name, l.config.MaxConnections, l.perSource, count)
	}
}

func (l *Listener) reportUnavailable(err error) {
	now, last := time.Now().UnixNano(), l.lastUnavailable.Load()
	if l.ctx.Err() == nil && now-last > int64(unavailableInterval) && l.lastUnavailable.CompareAndSwap(last, now) {
		l.node.events.Warnf("the server behind the listener %s does not accept connections: %v", l.config.Name, err)
	}
}

// dialUnix connects to path from the abstract name, and retries while the backlog is
// full.
func dialUnix(ctx context.Context, path, name string) (*net.UnixConn, error) {
	from, to := &net.UnixAddr{Name: name, Net: "unix"}, &net.UnixAddr{Name: path, Net: "unix"}
	deadline := time.Now().Add(dialTimeout)
	for pause := dialFirstPause; ; pause = min(2*pause, dialMaxPause) {
		conn, err := net.DialUnix("unix", from, to)
		if err == nil {
			_ = conn.SetWriteBuffer(unixBuffer) // fails on a closed connection only
			return conn, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Close accepts no further connection, gives the open ones drain to end, and resets
// the rest. Concurrent calls wait as well.
func (l *Listener) Close(drain time.Duration) {
	l.mu.Lock()
	l.closed = true
	unregister := l.unregister
	l.unregister = nil
	l.mu.Unlock()
	if unregister != nil {
		unregister()
	}
	l.sessions.Close(drain, l.cancel)
	l.node.removeBridge(l)
}
