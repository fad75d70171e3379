package main

import (
	"net/netip"
	"sync"

	"tailscale.com/control/controlclient"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnext"
	"tailscale.com/tailcfg"
	"tailscale.com/tsd"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

// localBackend is what we use of ipnlocal.LocalBackend. tsnet keeps its own
// private; an extension is handed the same one as a SafeBackend. The assertion
// to this interface fails when a new tailscale changes a signature, and then
// whois falls back to the LocalAPI: see whois.go.
type localBackend interface {
	WhoIs(proto string, addr netip.AddrPort) (tailcfg.NodeView, tailcfg.UserProfile, bool)
	PeerCaps(src netip.Addr) tailcfg.PeerCapMap
	PeerCapsForIP(src, dst netip.Addr) tailcfg.PeerCapMap
}

const extensionName = "tailbone"

// backends holds the extension of each running node, by the subsystems that it
// shares with its tsnet.Server.
var backends = struct {
	sync.Mutex
	bySystem map[*tsd.System]*extension
}{bySystem: make(map[*tsd.System]*extension)}

func init() {
	ipnext.RegisterExtension(extensionName, func(_ logger.Logf, sb ipnext.SafeBackend) (ipnext.Extension, error) {
		e := &extension{sys: sb.Sys()}
		e.backend, _ = sb.(localBackend)
		if backend, ok := sb.(interface{ Shutdown() }); ok {
			e.shutdown = backend.Shutdown
		}
		backends.Lock()
		defer backends.Unlock()
		backends.bySystem[e.sys] = e
		return e, nil
	})
}

// extension is our foothold in one node's LocalBackend.
type extension struct {
	sys      *tsd.System
	backend  localBackend // nil when tailscale's methods are not the ones we know
	shutdown func()       // of the whole backend; for one whose Server did not start

	mu      sync.Mutex
	host    ipnext.Host
	control controlclient.Client
	state   ipn.State
	onState func(ipn.State)
	onSelf  func(tailcfg.NodeView)
}

func (e *extension) Name() string { return extensionName }

func (e *extension) Init(host ipnext.Host) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.host = host
	host.Hooks().BackendStateChange.Add(func(state ipn.State) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.state = state
		if e.onState != nil {
			e.onState(state)
		}
	})
	host.Hooks().OnSelfChange.Add(func(self tailcfg.NodeView) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.onSelf != nil && self.Valid() {
			e.onSelf(self)
		}
	})
	host.Hooks().NewControlClient.Add(func(c controlclient.Client, _ ipn.LoginProfileView) func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.control = c
		return func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.control == c {
				e.control = nil
			}
		}
	})
	return nil
}

func (e *extension) Shutdown() error {
	dropBackend(e.sys)
	return nil
}

// follow calls onState with the backend's state and on every change of it, and
// onSelf with what the control server says of the node when that changes; in order
// and with locks held: they must return at once, and must not panic.
func (e *extension) follow(onState func(ipn.State), onSelf func(tailcfg.NodeView)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onState, e.onSelf = onState, onSelf
	onState(e.state)
}

// retryLogin makes the control client try now, instead of when its own backoff
// (up to 30 s) is over. The flag is asked for with every attempt: one without it
// would make an ephemeral node a lasting one.
func (e *extension) retryLogin(ephemeral bool) {
	e.mu.Lock()
	control := e.control
	e.mu.Unlock()
	if control == nil {
		return
	}
	flags := controlclient.LoginDefault
	if ephemeral {
		flags = controlclient.LoginEphemeral
	}
	control.Login(flags)
}

// eachPeer calls f with every peer of the current netmap.
func (e *extension) eachPeer(f func(tailcfg.NodeView)) {
	if host := e.hostNow(); host != nil {
		host.NodeBackend().AppendMatchingPeers(nil, func(node tailcfg.NodeView) bool {
			f(node)
			return false
		})
	}
}

// self is the node itself; invalid without a netmap.
func (e *extension) self() tailcfg.NodeView {
	if host := e.hostNow(); host != nil {
		return host.NodeBackend().Self()
	}
	return tailcfg.NodeView{}
}

func (e *extension) hostNow() ipnext.Host {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.host
}

// backendOf finds the extension that tailscale made for srv, after srv's start.
func backendOf(srv *tsnet.Server) *extension {
	sys := srv.Sys()
	if sys == nil {
		return nil
	}
	backends.Lock()
	defer backends.Unlock()
	return backends.bySystem[sys]
}

func dropBackend(sys *tsd.System) {
	backends.Lock()
	defer backends.Unlock()
	delete(backends.bySystem, sys)
}
