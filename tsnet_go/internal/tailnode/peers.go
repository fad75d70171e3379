package tailnode

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"tailscale.com/tailcfg"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// netmapPeer is a peer of the current netmap, as a forward needs it.
type netmapPeer struct {
	name      string // full, lower case, without the final dot
	addresses []netip.Addr
	expired   bool
}

// netmapPeers returns the peers of the current netmap, and the suffix of this tailnet's
// own names.
func (n *Node) netmapPeers(op string) (peers []netmapPeer, suffix string, err error) {
	ext, err := n.running(op)
	if err != nil {
		return nil, "", err
	}
	if ext == nil {
		return n.netmapPeersLocalAPI(op)
	}
	ext.forEachPeer(func(node tailcfg.NodeView) {
		p := netmapPeer{name: normalizeName(node.Name()), expired: isExpired(node)}
		for _, prefix := range node.Addresses().All() {
			p.addresses = append(p.addresses, prefix.Addr())
		}
		peers = append(peers, p)
	})
	if self := ext.self(); self.Valid() {
		_, suffix, _ = strings.Cut(normalizeName(self.Name()), ".")
	}
	return peers, suffix, nil
}

// netmapPeersLocalAPI is netmapPeers through tailscale's public API.
func (n *Node) netmapPeersLocalAPI(op string) (peers []netmapPeer, suffix string, err error) {
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, "", tberr.Errorf(tberr.NotRunning, op, "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, localAPITimeout)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return nil, "", tberr.Errorf(tberr.Internal, op, "%v", err)
	}
	for _, p := range st.Peer {
		peers = append(peers, netmapPeer{name: normalizeName(p.DNSName), addresses: p.TailscaleIPs, expired: p.Expired})
	}
	if st.Self != nil {
		_, suffix, _ = strings.Cut(normalizeName(st.Self.DNSName), ".")
	}
	return peers, suffix, nil
}

func normalizeName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// peerNamed returns the one peer of the current netmap that wanted means.
func (n *Node) peerNamed(op, wanted string) (netmapPeer, error) {
	peers, suffix, err := n.netmapPeers(op)
	if err != nil {
		return netmapPeer{}, err
	}
	return findPeer(op, peers, suffix, wanted)
}

// findPeer returns the one peer that wanted means: by address, by full name, or by
// short name. As in MagicDNS, a short name means this tailnet's own node before one
// that was shared in from another tailnet.
func findPeer(op string, peers []netmapPeer, suffix, wanted string) (netmapPeer, error) {
	matches := matchingPeers(peers, suffix, wanted)
	switch {
	case len(matches) == 0:
		return netmapPeer{}, tberr.Errorf(tberr.PeerNotFound, op,
			"%q is not a peer of this tailnet; allowed: a peer's name or tailnet address", wanted)
	case len(matches) > 1:
		names := make([]string, 0, len(matches))
		for _, p := range matches {
			names = append(names, p.name)
		}
		slices.Sort(names)
		return netmapPeer{}, tberr.Errorf(tberr.PeerNotFound, op, "%q is ambiguous: it matches %s; use the full name",
			wanted, strings.Join(names, ", "))
	}
	return matches[0], nil
}

func matchingPeers(peers []netmapPeer, suffix, wanted string) []netmapPeer {
	if addr, err := netip.ParseAddr(wanted); err == nil {
		return filterPeers(peers, func(p netmapPeer) bool { return slices.Contains(p.addresses, addr.Unmap()) })
	}
	name := normalizeName(wanted)
	if name == "" {
		return nil
	}
	for _, full := range []string{name, name + "." + suffix} {
		if found := filterPeers(peers, func(p netmapPeer) bool { return p.name == full }); len(found) > 0 {
			return found
		}
	}
	return filterPeers(peers, func(p netmapPeer) bool {
		short, _, _ := strings.Cut(p.name, ".")
		return short == name
	})
}

func filterPeers(peers []netmapPeer, matches func(netmapPeer) bool) []netmapPeer {
	var found []netmapPeer
	for _, p := range peers {
		if len(p.addresses) > 0 && matches(p) {
			found = append(found, p)
		}
	}
	return found
}
