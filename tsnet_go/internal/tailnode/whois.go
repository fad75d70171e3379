package tailnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/tailcfg"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// identity is who is behind an address. tailbone/tsnet decodes its JSON.
type identity struct {
	NodeID       string
	Node         string // full DNS name without the final dot
	UserID       int64  // 0 for a tagged node
	Login        string
	DisplayName  string
	Tags         []string
	Shared       bool
	Expired      bool
	KeyExpiry    int64 // Unix seconds; 0 for never
	Addresses    []netip.Prefix
	Capabilities tailcfg.PeerCapMap
}

// Whois returns who has the source address or peer name, as JSON. It reads the node's own
// state and caches nothing, so that a changed grant, tag or user counts for the next request.
func (n *Node) Whois(source string) ([]byte, error) {
	src, err := n.sourceOf(source)
	if err != nil {
		return nil, err
	}
	ext, err := n.running("whois")
	if err != nil {
		return nil, err
	}
	if ext == nil || ext.backend == nil {
		return n.whoisLocalAPI(src)
	}
	answer, ok := ext.appendWhois(make([]byte, 0, 512), src)
	if !ok {
		return nil, tberr.Errorf(tberr.NotFound, "whois", "no node of this tailnet has the address %s", src.Addr())
	}
	return answer, nil
}

// appendWhois appends the answer for a source from the node's own state. It reports
// false if no node of the tailnet has that address.
func (e *extension) appendWhois(b []byte, src netip.AddrPort) (_ []byte, ok bool) {
	node, user, ok := e.backend.WhoIs("tcp", src)
	if !ok {
		return b, false
	}
	var caps tailcfg.PeerCapMap
	if addrs := node.Addresses(); addrs.Len() > 0 {
		caps = e.backend.PeerCaps(addrs.At(0).Addr())
	}
	return appendIdentity(b, newIdentity(node, user, caps)), true
}

// whoisLocalAPI is Whois through tailscale's public API, at 300 times the cost. It is
// the fallback without a backend, and what a test compares Whois with.
func (n *Node) whoisLocalAPI(src netip.AddrPort) ([]byte, error) {
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, tberr.Errorf(tberr.NotRunning, "whois", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, localAPITimeout)
	defer cancel()
	answer, err := client.WhoIs(ctx, src.String())
	if errors.Is(err, local.ErrPeerNotFound) {
		return nil, tberr.Errorf(tberr.NotFound, "whois", "no node of this tailnet has the address %s", src.Addr())
	}
	if err != nil {
		return nil, tberr.Errorf(tberr.Internal, "whois", "%v", err)
	}
	return appendIdentity(nil, newIdentity(answer.Node.View(), *answer.UserProfile, compactCaps(answer.CapMap))), nil
}

// compactCaps removes the white space that the LocalAPI's indented answer adds.
func compactCaps(caps tailcfg.PeerCapMap) tailcfg.PeerCapMap {
	out := make(tailcfg.PeerCapMap, len(caps))
	for name, values := range caps {
		for _, value := range values {
			var b bytes.Buffer
			if json.Compact(&b, []byte(value)) == nil { // always: it was decoded before
				out[name] = append(out[name], tailcfg.RawMessage(b.String()))
			}
		}
		if len(values) == 0 {
			out[name] = nil
		}
	}
	return out
}

// sourceOf parses ip:port or ip. Any other text is the name of a peer.
func (n *Node) sourceOf(text string) (netip.AddrPort, error) {
	if src, err := netip.ParseAddrPort(text); err == nil {
		return src, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr, 0), nil
	}
	peer, err := n.peerNamed("whois", text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(peer.addresses[0], 0), nil
}

func newIdentity(node tailcfg.NodeView, user tailcfg.UserProfile, caps tailcfg.PeerCapMap) identity {
	id := identity{
		NodeID:       string(node.StableID()),
		Node:         strings.TrimSuffix(node.Name(), "."),
		Expired:      isExpired(node),
		Shared:       node.Sharer() != 0,
		Capabilities: caps,
	}
	// ShareeNode marks a node of another tailnet that this node was shared with.
	if info := node.Hostinfo(); info.Valid() && info.ShareeNode() {
		id.Shared = true
	}
	if expiry := node.KeyExpiry(); !expiry.IsZero() {
		id.KeyExpiry = expiry.Unix()
	}
	id.Addresses = node.Addresses().AppendTo(make([]netip.Prefix, 0, 2))
	if node.IsTagged() {
		// The profile is that of the pseudo user "tagged-devices".
		id.Tags = node.Tags().AsSlice()
		return id
	}
	id.UserID = int64(node.User())
	id.Login = user.LoginName
	id.DisplayName = user.DisplayName
	return id
}

// isExpired reports whether the node's key has expired. tailscale sets its own flag some
// seconds late.
func isExpired(node tailcfg.NodeView) bool {
	expiry := node.KeyExpiry()
	return node.Expired() || (!expiry.IsZero() && expiry.Before(time.Now()))
}
