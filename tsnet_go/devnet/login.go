package devnet

import (
	"net/url"
	"path"
	"time"

	"tailscale.com/types/key"
)

// pendingLogin is a node without an auth key that waits for a login.
type pendingLogin struct {
	id      string
	machine key.MachinePublic
	nodeKey key.NodePublic
	made    time.Time
	as      identity
	done    chan struct{} // closed by complete, after as is set
}

// Pending logins are bounded: any client of the control port can create one.
const (
	maxPendingLogins = 1000
	pendingLoginLife = time.Hour
)

// startLogin creates a pending login, or returns the one that this node key has.
func (r *registry) startLogin(m key.MachinePublic, nk key.NodePublic, now time.Time) *pendingLogin {
	var oldest *pendingLogin
	for id, p := range r.logins {
		switch {
		case p.machine == m && p.nodeKey == nk:
			return p
		case now.Sub(p.made) > pendingLoginLife:
			delete(r.logins, id)
		case oldest == nil || p.made.Before(oldest.made):
			oldest = p
		}
	}
	if len(r.logins) >= maxPendingLogins {
		delete(r.logins, oldest.id)
	}
	p := &pendingLogin{id: randomBase62(20), machine: m, nodeKey: nk, made: now, done: make(chan struct{})}
	r.logins[p.id] = p
	return p
}

// loginOf finds the pending login of a login URL.
func (r *registry) loginOf(loginURL string) *pendingLogin {
	u, err := url.Parse(loginURL)
	if err != nil || path.Dir(u.Path) != loginPath {
		return nil
	}
	return r.logins[path.Base(u.Path)]
}

// loginPath is the path prefix of login URLs on the control server.
const loginPath = "/a"

func (p *pendingLogin) completed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *pendingLogin) complete(as identity) {
	p.as = as
	close(p.done)
}
