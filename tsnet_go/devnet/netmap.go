package devnet

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/dnstype"
)

// netmap is everything that one node is sent about the tailnet at one moment.
type netmap struct {
	self     *tailcfg.Node
	peers    []*tailcfg.Node // by id
	profiles []tailcfg.UserProfile
	filter   []tailcfg.FilterRule
	dns      *tailcfg.DNSConfig
	derp     *tailcfg.DERPMap
	domain   string
}

// netmapFor builds the netmap of n. A node that is expired, removed or waits for
// approval sees only itself.
func (r *registry) netmapFor(n *node, derp *tailcfg.DERPMap, now time.Time) *netmap {
	var peers []*node
	if n.usable(now) {
		for _, p := range r.nodes {
			// Expired peers stay visible, marked as such, until removed.
			if p != n && !p.Removed && p.Approved && r.connected(n, p) {
				peers = append(peers, p)
			}
		}
	}
	nm := &netmap{
		self:   r.selfNode(n, now),
		filter: []tailcfg.FilterRule{},
		dns: &tailcfg.DNSConfig{
			Proxied: true, // MagicDNS
			Domains: []string{r.domain},
			Routes:  map[string][]*dnstype.Resolver{r.domain: {}},
		},
		derp:   derp,
		domain: r.domain,
	}
	if n.usable(now) {
		nm.filter = r.filterFor(n, peers)
	}
	users := map[tailcfg.UserID]bool{n.userID(): true}
	for _, p := range peers {
		nm.peers = append(nm.peers, r.peerNode(p, now))
		users[p.userID()] = true
	}
	for _, id := range slices.Sorted(maps.Keys(users)) {
		nm.profiles = append(nm.profiles, r.users[id])
	}
	return nm
}

func (r *registry) fqdn(n *node) string { return n.Name + "." + r.domain + "." }

// baseNode returns what both a node and its peers see.
func (r *registry) baseNode(n *node, now time.Time) *tailcfg.Node {
	t := &tailcfg.Node{
		ID:                n.ID,
		StableID:          n.StableID,
		Name:              r.fqdn(n),
		User:              n.userID(),
		Key:               n.Key,
		KeyExpiry:         n.KeyExpiry,
		Machine:           n.Machine,
		DiscoKey:          n.DiscoKey,
		Addresses:         n.prefixes(),
		AllowedIPs:        n.prefixes(),
		Endpoints:         n.Endpoints,
		HomeDERP:          n.HomeDERP,
		Created:           n.Created,
		Cap:               n.Cap,
		Tags:              n.Owner.Tags,
		MachineAuthorized: n.Approved,
	}
	online := n.stream != nil
	t.Online = &online
	if !online && !n.LastSeen.IsZero() {
		seen := n.LastSeen // a copy: the message is encoded without the lock
		t.LastSeen = &seen
	}
	return t
}

// nodeCaps disables what nodes of a devnet must not do: captive portal detection contacts
// hosts on the internet.
var nodeCaps = tailcfg.NodeCapMap{
	tailcfg.NodeAttrDisableUPnP:                   nil,
	tailcfg.NodeAttrDisableCaptivePortalDetection: nil,
}

func (r *registry) selfNode(n *node, now time.Time) *tailcfg.Node {
	t := r.baseNode(n, now)
	t.CapMap = nodeCaps
	if hi := n.Hostinfo; hi != nil {
		t.Hostinfo = hi.View()
	}
	return t
}

// peerNode returns the node as its peers see it: without its private fields and, as in
// the real service, without endpoints once it has expired.
func (r *registry) peerNode(n *node, now time.Time) *tailcfg.Node {
	t := r.baseNode(n, now)
	hi := &tailcfg.Hostinfo{Hostname: n.Hostname, ShareeNode: n.Shared}
	if n.Hostinfo != nil {
		hi.OS = n.Hostinfo.OS
		hi.IPNVersion = n.Hostinfo.IPNVersion
		hi.Services = n.Hostinfo.Services
	}
	t.Hostinfo = hi.View()
	if n.expired(now) {
		t.Expired = true
		t.Endpoints = nil
		t.HomeDERP = 0
	}
	return t
}

// sent remembers what a map stream has sent to its node, so that each message
// holds only what is new.
type sent struct {
	first    bool
	self     []byte
	peers    map[tailcfg.NodeID][]byte
	profiles map[tailcfg.UserID]string // display names
	filter   []byte
	derp     *tailcfg.DERPMap
}

func newSent() *sent {
	return &sent{
		first:    true,
		peers:    map[tailcfg.NodeID][]byte{},
		profiles: map[tailcfg.UserID]string{},
	}
}

// delta returns the message that brings a node from what it was sent to nm, or
// nil when nothing changed.
func (s *sent) delta(nm *netmap, now time.Time) (*tailcfg.MapResponse, error) {
	resp := &tailcfg.MapResponse{}
	changed := s.first
	if s.first {
		s.first = false
		resp.Domain = nm.domain
		resp.DNSConfig = nm.dns
		resp.CollectServices = "false" // nodes need not list the machine's open ports
	}
	self, err := json.Marshal(nm.self)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(self, s.self) {
		s.self, resp.Node, changed = self, nm.self, true
	}
	if s.derp != nm.derp {
		s.derp, resp.DERPMap, changed = nm.derp, nm.derp, true
	}
	for _, p := range nm.profiles {
		if s.profiles[p.ID] != p.DisplayName { // nothing else of a profile changes
			s.profiles[p.ID] = p.DisplayName
			resp.UserProfiles = append(resp.UserProfiles, p)
			changed = true
		}
	}
	peersChanged, err := s.deltaPeers(nm, resp)
	if err != nil {
		return nil, err
	}
	filter, err := json.Marshal(nm.filter)
	if err != nil {
		return nil, err
	}
	filterChanged := !bytes.Equal(filter, s.filter)
	if filterChanged {
		s.filter = filter
		resp.PacketFilters = map[string][]tailcfg.FilterRule{"devnet": nm.filter}
	}
	if !changed && !peersChanged && !filterChanged {
		return nil, nil
	}
	resp.ControlTime = &now
	return resp, nil
}

func (s *sent) deltaPeers(nm *netmap, resp *tailcfg.MapResponse) (changed bool, err error) {
	gone := maps.Clone(s.peers)
	for _, p := range nm.peers {
		delete(gone, p.ID)
		b, err := json.Marshal(p)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(b, s.peers[p.ID]) {
			s.peers[p.ID] = b
			resp.PeersChanged = append(resp.PeersChanged, p)
		}
	}
	resp.PeersRemoved = slices.Sorted(maps.Keys(gone))
	for id := range gone {
		delete(s.peers, id)
	}
	return len(resp.PeersChanged)+len(resp.PeersRemoved) > 0, nil
}
