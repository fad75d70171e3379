package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/tailcfg"
)

// peer is who is behind an address, in the words of tailbone/identity.py.
type peer struct {
	NodeID       string
	Node         string // full DNS name without the final dot
	UserID       int64  // 0 for a tagged node
	Login        string
	DisplayName  string
	Tags         []string
	Shared       bool
	Expired      bool
	Addresses    []netip.Prefix
	Capabilities tailcfg.PeerCapMap
}

// whois answers from the node's own state: it is asked for every request, so
// that a changed grant, tag or user counts at once, and nothing is cached.
func (n *Node) whois(source, destination string) ([]byte, error) {
	src, dst, err := parseWhois(source, destination)
	if err != nil {
		return nil, err
	}
	ext, err := n.running("whois")
	if err != nil {
		return nil, err
	}
	if ext == nil || ext.backend == nil {
		return n.whoisLocalAPI(src, dst)
	}
	answer, ok := ext.appendWhois(make([]byte, 0, 512), src, dst)
	if !ok {
		return nil, errorf(codeNotFound, "whois", "no node of this tailnet has the address %s", src.Addr())
	}
	return answer, nil
}

// appendWhois appends the answer for a source from the node's own state; not ok if no
// node of the tailnet has that address. A destination that is not valid means any.
func (e *extension) appendWhois(b []byte, src netip.AddrPort, dst netip.Addr) (_ []byte, ok bool) {
	node, user, ok := e.backend.WhoIs("tcp", src)
	if !ok {
		return b, false
	}
	var caps tailcfg.PeerCapMap
	if addrs := node.Addresses(); addrs.Len() > 0 {
		if from := addrs.At(0).Addr(); dst.IsValid() {
			caps = e.backend.PeerCapsForIP(from, dst)
		} else {
			caps = e.backend.PeerCaps(from)
		}
	}
	return appendPeer(b, newPeer(node, user, caps)), true
}

// whoisLocalAPI is the same answer through tailscale's public API, at 300 times
// the cost: the fallback when the direct way is not there, and the yardstick of
// the test that compares both.
func (n *Node) whoisLocalAPI(src netip.AddrPort, dst netip.Addr) ([]byte, error) {
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, errorf(codeNotRunning, "whois", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.life, 5*time.Second)
	defer cancel()
	var answer *apitype.WhoIsResponse
	if dst.IsValid() {
		answer, err = client.WhoIsForIP(ctx, src.String(), dst)
	} else {
		answer, err = client.WhoIs(ctx, src.String())
	}
	if errors.Is(err, local.ErrPeerNotFound) {
		return nil, errorf(codeNotFound, "whois", "no node of this tailnet has the address %s", src.Addr())
	}
	if err != nil {
		return nil, errorf(codeInternal, "whois", "%v", err)
	}
	return appendPeer(nil, newPeer(answer.Node.View(), *answer.UserProfile, compacted(answer.CapMap))), nil
}

// compacted takes out the white space that the LocalAPI's indented answer adds.
func compacted(caps tailcfg.PeerCapMap) tailcfg.PeerCapMap {
	out := make(tailcfg.PeerCapMap, len(caps))
	for name, values := range caps {
		for _, value := range values {
			var b bytes.Buffer
			if json.Compact(&b, []byte(value)) == nil { // it was decoded: it is valid
				out[name] = append(out[name], tailcfg.RawMessage(b.String()))
			}
		}
		if len(values) == 0 {
			out[name] = nil
		}
	}
	return out
}

func parseWhois(source, destination string) (src netip.AddrPort, dst netip.Addr, err error) {
	src, err = netip.ParseAddrPort(source)
	if err != nil {
		addr, addrErr := netip.ParseAddr(source)
		if addrErr != nil {
			return src, dst, errorf(codeBadArgument, "whois", "the source %q is neither ip:port nor ip", source)
		}
		src = netip.AddrPortFrom(addr, 0)
	}
	if destination != "" {
		if dst, err = netip.ParseAddr(destination); err != nil {
			return src, dst, errorf(codeBadArgument, "whois", "the destination %q is no ip", destination)
		}
	}
	return src, dst, nil
}

func newPeer(node tailcfg.NodeView, user tailcfg.UserProfile, caps tailcfg.PeerCapMap) peer {
	p := peer{
		NodeID:       string(node.StableID()),
		Node:         strings.TrimSuffix(node.Name(), "."),
		Expired:      isExpired(node),
		Shared:       node.Sharer() != 0,
		Capabilities: caps,
	}
	// ShareeNode marks a node of another tailnet that somebody shared ours with.
	if info := node.Hostinfo(); info.Valid() && info.ShareeNode() {
		p.Shared = true
	}
	p.Addresses = node.Addresses().AppendTo(make([]netip.Prefix, 0, 2))
	if node.IsTagged() {
		// The profile is the pseudo user "tagged-devices": nobody.
		p.Tags = node.Tags().AsSlice()
		return p
	}
	p.UserID = int64(node.User())
	p.Login = user.LoginName
	p.DisplayName = user.DisplayName
	return p
}

// isExpired reports whether the node's key has expired; tailscale's own flag comes
// some seconds late.
func isExpired(node tailcfg.NodeView) bool {
	expiry := node.KeyExpiry()
	return node.Expired() || (!expiry.IsZero() && expiry.Before(time.Now()))
}
