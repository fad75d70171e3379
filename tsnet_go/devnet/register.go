package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// errForeignNodeKey: a node key belongs to the machine that registered it first.
var errForeignNodeKey = errors.New("the node key belongs to another machine")

// serveRegister answers /machine/register: a node joins, comes back, changes its
// key or logs out.
func (d *Devnet) serveRegister(w http.ResponseWriter, r *http.Request) {
	var req tailcfg.RegisterRequest
	if !d.readJSON(w, r, &req) {
		return
	}
	resp, err := d.register(r.Context(), machineOf(r), &req)
	if err != nil {
		d.logf("devnet: register %s: %v", req.NodeKey.ShortString(), err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, resp)
}

// register decides on one request. A followup waits here until the login is
// completed, ctx ends or the devnet stops.
func (d *Devnet) register(ctx context.Context, m key.MachinePublic, req *tailcfg.RegisterRequest) (*tailcfg.RegisterResponse, error) {
	if why := badRegister(m, req); why != "" {
		return &tailcfg.RegisterResponse{Error: why}, nil
	}
	if err := d.awaitLogin(ctx, req); err != nil {
		return nil, err
	}
	d.mu.Lock()
	resp, changed := d.reg.register(m, req, d.controlURL, d.now())
	d.mu.Unlock()
	if changed {
		d.wakeStreams()
		if err := d.save(); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// badRegister returns what is wrong with the request itself, or "".
func badRegister(m key.MachinePublic, req *tailcfg.RegisterRequest) string {
	switch {
	case m.IsZero():
		return "the machine key is zero"
	case req.NodeKey.IsZero():
		return "the node key is zero"
	case req.Version <= 0:
		return "the capability version is missing"
	}
	return ""
}

// awaitLogin waits for the login that a followup names.
func (d *Devnet) awaitLogin(ctx context.Context, req *tailcfg.RegisterRequest) error {
	if req.Followup == "" {
		return nil
	}
	d.mu.Lock()
	p := d.reg.loginOf(req.Followup)
	d.mu.Unlock()
	if p == nil {
		return nil // forgotten, by a restart for example: register gives a new URL
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopping:
		return errStopped
	}
}

// register decides on one request. changed reports whether nodes must be notified.
func (r *registry) register(m key.MachinePublic, req *tailcfg.RegisterRequest, controlURL string, now time.Time) (resp *tailcfg.RegisterResponse, changed bool) {
	known := r.nodeByKey(req.NodeKey)
	switch {
	case known != nil && known.Machine != m:
		return &tailcfg.RegisterResponse{Error: errForeignNodeKey.Error()}, false
	case !req.Expiry.IsZero() && !req.Expiry.After(now):
		return r.logout(known, now), known != nil
	case known != nil && (known.Removed || known.expired(now)):
		return &tailcfg.RegisterResponse{NodeKeyExpired: true}, false
	case known != nil:
		// A known node needs no auth key: its state wins, as in the real service.
		shortenExpiry(known, req.Expiry, now)
		r.describe(known, req.Hostinfo, req.Version)
		return r.registered(known), true
	}

	authKey, as, why := r.authorize(m, req, now)
	switch {
	case why != "":
		return &tailcfg.RegisterResponse{Error: why}, false
	case as == nil:
		p := r.startLogin(m, req.NodeKey, now)
		return &tailcfg.RegisterResponse{AuthURL: controlURL + loginPath + "/" + p.id}, false
	}
	owner, err := withRequestedTags(*as, req.Hostinfo)
	if err != nil {
		return &tailcfg.RegisterResponse{Error: err.Error()}, false
	}
	n, err := r.admit(m, req, owner, authKey, now)
	if err != nil {
		return &tailcfg.RegisterResponse{Error: err.Error()}, false
	}
	return r.registered(n), true
}

// authorize returns the identity as which an unknown node key may join: by its
// auth key, or by a completed login. With neither, as is nil and why is "".
func (r *registry) authorize(m key.MachinePublic, req *tailcfg.RegisterRequest, now time.Time) (k *authKey, as *identity, why string) {
	if req.Followup != "" {
		p := r.loginOf(req.Followup)
		if p != nil && p.machine == m && p.nodeKey == req.NodeKey && p.completed() {
			delete(r.logins, p.id)
			return nil, &p.as, ""
		}
		return nil, nil, ""
	}
	if req.Auth == nil || req.Auth.AuthKey == "" {
		return nil, nil, ""
	}
	k = r.keys[hashAuthKey(req.Auth.AuthKey)]
	if why := k.refusal(now); why != "" {
		return nil, nil, why
	}
	return k, &k.Identity, ""
}

// withRequestedTags returns as with the tags that the node asks for. A user's key or
// login allows any tag, as if every user owned it; a tagged auth key allows only its own.
func withRequestedTags(as identity, hi *tailcfg.Hostinfo) (identity, error) {
	if hi == nil || len(hi.RequestTags) == 0 {
		return as, nil
	}
	if !as.tagged() {
		return newIdentity("", "", "", hi.RequestTags)
	}
	for _, tag := range hi.RequestTags {
		if !slices.Contains(as.Tags, tag) {
			return identity{}, fmt.Errorf("requested tags [%s] are invalid or not permitted", tag)
		}
	}
	return as, nil
}

// admit adds a node key to the tailnet: as the next key of a node that this machine
// already has, which keeps its id, name and addresses, or as a new node.
func (r *registry) admit(m key.MachinePublic, req *tailcfg.RegisterRequest, as identity, k *authKey, now time.Time) (*node, error) {
	n := r.nodeByKey(req.OldNodeKey)
	if n == nil || n.Machine != m || n.Removed || !sameOwner(n.Owner, as) && !as.tagged() {
		n = r.nodeByMachine(m, as)
	}
	isNew := n == nil
	if isNew {
		var err error
		if n, err = r.addNode(m, now); err != nil {
			return nil, err
		}
		n.Approved = true
		if k != nil {
			n.Approved = !k.NeedsApproval
			n.Shared = k.Shared
		}
	}
	if k != nil {
		k.Used = true
	}
	n.Key = req.NodeKey
	n.Owner = as
	n.Ephemeral = req.Ephemeral || k != nil && k.Ephemeral
	n.KeyExpiry = time.Time{}
	if !as.tagged() {
		n.KeyExpiry = now.Add(userKeyLife).UTC().Round(time.Second)
	}
	shortenExpiry(n, req.Expiry, now)
	r.ensureUser(as)
	r.describe(n, req.Hostinfo, req.Version)
	return n, nil
}

// logout expires the node's key, and removes an ephemeral node.
func (r *registry) logout(n *node, now time.Time) *tailcfg.RegisterResponse {
	if n != nil && !n.Removed {
		n.expire(now)
		if n.Ephemeral {
			r.remove(n, now)
		}
	}
	return &tailcfg.RegisterResponse{NodeKeyExpired: true}
}

// shortenExpiry applies a node's request for an earlier expiry of its key; a node
// cannot ask for a later one.
func shortenExpiry(n *node, at, now time.Time) {
	latest := n.KeyExpiry
	if latest.IsZero() {
		latest = now.Add(userKeyLife)
	}
	if !at.IsZero() && at.Before(latest) {
		n.KeyExpiry = at.UTC()
	}
}

// describe stores what a node says about itself, and names the node accordingly.
func (r *registry) describe(n *node, hi *tailcfg.Hostinfo, version tailcfg.CapabilityVersion) {
	if version > 0 {
		n.Cap = version
	}
	hostname := n.Hostname
	if hi != nil {
		n.Hostinfo = bounded(hi)
		hostname = n.Hostinfo.Hostname
		if ni := hi.NetInfo; ni != nil && ni.PreferredDERP != 0 {
			n.HomeDERP = ni.PreferredDERP
		}
	}
	if n.Name == "" || hostname != n.Hostname {
		n.Hostname = hostname
		n.Name = r.freeName(hostname, n)
	}
}

func (r *registry) registered(n *node) *tailcfg.RegisterResponse {
	u := r.users[n.userID()]
	return &tailcfg.RegisterResponse{
		User:              tailcfg.User{ID: u.ID, DisplayName: u.DisplayName},
		Login:             tailcfg.Login{ID: tailcfg.LoginID(u.ID), LoginName: u.LoginName, DisplayName: u.DisplayName},
		MachineAuthorized: n.Approved,
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding %T: %v", v, err)) // guarded; only our own types come here
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}
