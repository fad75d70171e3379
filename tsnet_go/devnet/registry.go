package devnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// registry is the state of the tailnet: its users, nodes and grants. It does no
// I/O; Devnet.mu guards it.
type registry struct {
	domain string

	users  map[tailcfg.UserID]tailcfg.UserProfile
	keys   map[string]*authKey // by hashAuthKey
	nodes  []*node             // in the order they joined; ids and addresses are never reused
	made   int                 // nodes ever made
	grants []grant
	logins map[string]*pendingLogin // by the id in the login URL
}

func newRegistry(domain string) *registry {
	return &registry{
		domain: domain,
		users:  map[tailcfg.UserID]tailcfg.UserProfile{},
		keys:   map[string]*authKey{},
		grants: allowAll(),
		logins: map[string]*pendingLogin{},
	}
}

// ensureUser adds the user of id unless it is known, and sets its display name if id has
// one.
func (r *registry) ensureUser(id identity) {
	login, display := id.Login, id.DisplayName
	if id.tagged() {
		login, display = taggedDevicesLogin, "Tagged Devices"
	}
	uid := userIDOf(login)
	u, known := r.users[uid]
	switch {
	case !known:
		u = tailcfg.UserProfile{ID: uid, LoginName: login, DisplayName: cmp.Or(display, displayNameOf(login))}
	case display != "":
		u.DisplayName = display
	}
	r.users[uid] = u
}

func (r *registry) nodeByKey(k key.NodePublic) *node {
	if k.IsZero() {
		return nil
	}
	for _, n := range r.nodes {
		if n.Key == k {
			return n
		}
	}
	return nil
}

// nodeByMachine returns the node that a machine already has as the same owner.
func (r *registry) nodeByMachine(m key.MachinePublic, owner identity) *node {
	for _, n := range r.nodes {
		if n.Machine == m && !n.Removed && sameOwner(n.Owner, owner) {
			return n
		}
	}
	return nil
}

// sameOwner reports whether two identities own the same nodes. Tagged nodes have no
// user, so any two sets of tags count as one owner.
func sameOwner(a, b identity) bool {
	if a.tagged() || b.tagged() {
		return a.tagged() && b.tagged()
	}
	return strings.EqualFold(a.Login, b.Login)
}

// find looks a node up by stable id, short or full name, or address.
func (r *registry) find(selector string) *node {
	addr, _ := netip.ParseAddr(selector)
	name := r.shortName(selector)
	for _, n := range r.nodes {
		if n.Removed {
			continue
		}
		if string(n.StableID) == selector || n.Name == name || addr.IsValid() && (n.V4 == addr || n.V6 == addr) {
			return n
		}
	}
	return nil
}

// shortName removes the tailnet's domain from a name.
func (r *registry) shortName(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return strings.TrimSuffix(name, "."+r.domain)
}

// freeName returns the wanted name, numbered when another node has it.
func (r *registry) freeName(hostname string, self *node) string {
	label := labelOf(hostname)
	for i := 0; ; i++ {
		name := numbered(label, i)
		taken := slices.ContainsFunc(r.nodes, func(n *node) bool {
			return n != self && !n.Removed && n.Name == name
		})
		if !taken {
			return name
		}
	}
}

// addNode creates a node with an id and addresses that no node has had before.
func (r *registry) addNode(m key.MachinePublic, now time.Time) (*node, error) {
	if r.made >= maxNodes {
		return nil, fmt.Errorf("this devnet has given out all of its %d addresses", maxNodes)
	}
	r.made++
	v4, v6 := addressesOf(r.made)
	n := &node{
		ID:       tailcfg.NodeID(r.made),
		StableID: tailcfg.StableNodeID("n" + randomBase62(11) + "CNTRL"),
		Machine:  m,
		V4:       v4,
		V6:       v6,
		Created:  now.UTC().Round(time.Second),
	}
	r.nodes = append(r.nodes, n)
	return n, nil
}

// forget deletes the node with its key, as Tailscale and Headscale delete a node:
// its requests are answered with 404.
func (r *registry) forget(n *node) {
	r.nodes = slices.DeleteFunc(r.nodes, func(other *node) bool { return other == n })
	if n.stream != nil {
		close(n.stream.replaced)
		n.stream = nil
	}
}

// maxRemoved bounds how many removed nodes are remembered.
const maxRemoved = 1000

// remove removes the node from the tailnet. Its key stays known as expired: otherwise the
// node would request its map forever.
func (r *registry) remove(n *node, now time.Time) {
	n.Removed = true
	n.expire(now)
	removed := 0
	for i := len(r.nodes) - 1; i >= 0; i-- {
		if r.nodes[i].Removed {
			if removed++; removed > maxRemoved {
				r.nodes = slices.Delete(r.nodes, i, i+1)
			}
		}
	}
}
