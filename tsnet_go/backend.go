package main

import (
	"net/netip"
	"sync"

	"tailscale.com/control/controlclient"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnext"
	"tailscale.com/ipn/ipnstate"
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
	State() ipn.State
	StatusWithoutPeers() *ipnstate.Status
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
		backends.Lock()
		defer backends.Unlock()
		backends.bySystem[e.sys] = e
		return e, nil
	})
}

// extension is our foothold in one node's LocalBackend.
type extension struct {
	sys     *tsd.System
	backend localBackend // nil when tailscale's methods are not the ones we know

	mu      sync.Mutex
	host    ipnext.Host
	control controlclient.Client
	onState func(ipn.State)
}

func (e *extension) Name() string { return extensionName }

func (e *extension) Init(host ipnext.Host) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.host = host
	host.Hooks().BackendStateChange.Add(func(state ipn.State) {
		e.mu.Lock()
		onState := e.onState
		e.mu.Unlock()
		if onState != nil {
			onState(state)
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

// follow calls f on every change of the backend's state, with locks held: f must
// return at once.
func (e *extension) follow(f func(ipn.State)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onState = f
}

// retryLogin makes the control client try now, instead of when its own backoff
// (up to 30 s) is over.
func (e *extension) retryLogin() {
	e.mu.Lock()
	control := e.control
	e.mu.Unlock()
	if control != nil {
		control.Login(controlclient.LoginDefault)
	}
}

// peers finds the peers of the current netmap that fit.
func (e *extension) peers(fits func(tailcfg.NodeView) bool) []tailcfg.NodeView {
	e.mu.Lock()
	host := e.host
	e.mu.Unlock()
	if host == nil {
		return nil
	}
	return host.NodeBackend().AppendMatchingPeers(nil, fits)
}

func (e *extension) self() tailcfg.NodeView {
	e.mu.Lock()
	host := e.host
	e.mu.Unlock()
	if host == nil {
		return tailcfg.NodeView{}
	}
	return host.NodeBackend().Self()
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
