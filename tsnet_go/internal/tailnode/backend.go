package tailnode

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

// localBackend is the part of ipnlocal.LocalBackend that we use. tsnet does not export
// its backend, but an extension receives it as a SafeBackend. If a new tailscale
// changes a signature, the assertion to this interface fails and whois falls back to
// the LocalAPI; see whois.go.
type localBackend interface {
	WhoIs(proto string, addr netip.AddrPort) (tailcfg.NodeView, tailcfg.UserProfile, bool)
	PeerCaps(src netip.Addr) tailcfg.PeerCapMap
}

const extensionName = "tailbone"

// extensions holds the extension of each running node, by the tsd.System that it
// shares with its tsnet.Server.
var extensions = struct {
	sync.Mutex
	bySystem map[*tsd.System]*extension
}{bySystem: make(map[*tsd.System]*extension)}

func init() {
	ipnext.RegisterExtension(extensionName, func(_ logger.Logf, sb ipnext.SafeBackend) (ipnext.Extension, error) {
		e := &extension{sys: sb.Sys()}
		e.backend, _ = sb.(localBackend)
		if backend, ok := sb.(interface{ Shutdown() }); ok {
			e.shutdownBackend = backend.Shutdown
		}
		extensions.Lock()
		defer extensions.Unlock()
		extensions.bySystem[e.sys] = e
		return e, nil
	})
}

// extension is our access to one node's LocalBackend. It implements ipnext.Extension.
type extension struct {
	sys             *tsd.System
	backend         localBackend // nil if this tailscale's methods have other signatures
	shutdownBackend func()       // for a backend whose tsnet.Server did not start

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
	dropExtension(e.sys)
	return nil
}

// watch calls onState with the backend's state now and on every change, and onSelf
// when the control server changes what the node is. The calls are in order and hold
// locks: the functions must return at once and must not panic.
func (e *extension) watch(onState func(ipn.State), onSelf func(tailcfg.NodeView)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onState, e.onSelf = onState, onSelf
	onState(e.state)
}

// retryLogin makes the control client log in now instead of after its backoff, which
// grows up to 30 s. Every attempt must state whether the node is ephemeral: one
// without the flag would make an ephemeral node permanent.
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

// forEachPeer calls f with every peer of the current netmap.
func (e *extension) forEachPeer(f func(tailcfg.NodeView)) {
	if host := e.currentHost(); host != nil {
		host.NodeBackend().AppendMatchingPeers(nil, func(node tailcfg.NodeView) bool {
			f(node)
			return false
		})
	}
}

// self returns the node itself; it is invalid without a netmap.
func (e *extension) self() tailcfg.NodeView {
	if host := e.currentHost(); host != nil {
		return host.NodeBackend().Self()
	}
	return tailcfg.NodeView{}
}

func (e *extension) currentHost() ipnext.Host {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.host
}

// extensionOf returns the extension that tailscale made for srv when it started.
func extensionOf(srv *tsnet.Server) *extension {
	sys := srv.Sys()
	if sys == nil {
		return nil
	}
	extensions.Lock()
	defer extensions.Unlock()
	return extensions.bySystem[sys]
}

func dropExtension(sys *tsd.System) {
	extensions.Lock()
	defer extensions.Unlock()
	delete(extensions.bySystem, sys)
}
