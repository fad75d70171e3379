package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
)

// netPeer is a peer of the current netmap, as a forward needs it.
type netPeer struct {
	name      string // full, lower case, without the final dot
	addresses []netip.Addr
	expired   bool
}

// netPeers are the peers of the current netmap, and the suffix of this tailnet's
// own names.
func (n *Node) netPeers() (peers []netPeer, suffix string, err error) {
	ext, err := n.running("forward")
	if err != nil {
		return nil, "", err
	}
	if ext == nil {
		return n.netPeersLocalAPI()
	}
	ext.eachPeer(func(node tailcfg.NodeView) {
		p := netPeer{name: plainName(node.Name()), expired: isExpired(node)}
		for _, prefix := range node.Addresses().All() {
			p.addresses = append(p.addresses, prefix.Addr())
		}
		peers = append(peers, p)
	})
	if self := ext.self(); self.Valid() {
		_, suffix, _ = strings.Cut(plainName(self.Name()), ".")
	}
	return peers, suffix, nil
}

// netPeersLocalAPI is netPeers through tailscale's public API.
func (n *Node) netPeersLocalAPI() (peers []netPeer, suffix string, err error) {
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, "", errorf(codeNotRunning, "forward", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.life, 5*time.Second)
	defer cancel()
	st, err := client.Status(ctx)
	if err != nil {
		return nil, "", errorf(codeInternal, "forward", "%v", err)
	}
	for _, p := range st.Peer {
		peers = append(peers, netPeer{name: plainName(p.DNSName), addresses: p.TailscaleIPs, expired: p.Expired})
	}
	if st.Self != nil {
		_, suffix, _ = strings.Cut(plainName(st.Self.DNSName), ".")
	}
	return peers, suffix, nil
}

func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// findPeer finds the one peer that a person means: by address, by full name, or by
// short name, where this tailnet's own nodes come before those that were shared in
// from another, as in MagicDNS.
func findPeer(peers []netPeer, suffix, wanted string) (netPeer, error) {
	const op = "forward"
	matches := matching(peers, suffix, wanted)
	switch {
	case len(matches) == 0:
		return netPeer{}, errorf(codePeerNotFound, op,
			"%q is no peer of this tailnet; allowed: a peer's name or tailnet address", wanted)
	case len(matches) > 1:
		names := make([]string, 0, len(matches))
		for _, p := range matches {
			names = append(names, p.name)
		}
		slices.Sort(names)
		return netPeer{}, errorf(codePeerNotFound, op, "%q could be each of %s; use the full name",
			wanted, strings.Join(names, ", "))
	case matches[0].expired:
		return netPeer{}, errorf(codePeerNotFound, op, "the key of peer %q has expired", wanted)
	}
	return matches[0], nil
}

func matching(peers []netPeer, suffix, wanted string) []netPeer {
	if addr, err := netip.ParseAddr(wanted); err == nil {
		return filter(peers, func(p netPeer) bool { return slices.Contains(p.addresses, addr.Unmap()) })
	}
	name := plainName(wanted)
	if name == "" {
		return nil
	}
	for _, full := range []string{name, name + "." + suffix} {
		if found := filter(peers, func(p netPeer) bool { return p.name == full }); len(found) > 0 {
			return found
		}
	}
	return filter(peers, func(p netPeer) bool {
		short, _, _ := strings.Cut(p.name, ".")
		return short == name
	})
}

func filter(peers []netPeer, fits func(netPeer) bool) []netPeer {
	var found []netPeer
	for _, p := range peers {
		if len(p.addresses) > 0 && fits(p) {
			found = append(found, p)
		}
	}
	return found
}
