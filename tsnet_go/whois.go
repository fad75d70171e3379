package main

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
	Addresses    []string
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
	node, user, ok := ext.backend.WhoIs("tcp", src)
	if !ok {
		return nil, errorf(codeNotFound, "whois", "no node of this tailnet has the address %s", src.Addr())
	}
	var caps tailcfg.PeerCapMap
	if addrs := node.Addresses(); addrs.Len() > 0 {
		if from := addrs.At(0).Addr(); dst.IsValid() {
			caps = ext.backend.PeerCapsForIP(from, dst)
		} else {
			caps = ext.backend.PeerCaps(from)
		}
	}
	return appendPeer(make([]byte, 0, 512), newPeer(node, user, caps)), nil
}

// whoisLocalAPI is the same answer through tailscale's public API, at 300 times
// the cost: the fallback when the direct way is not there, and the yardstick of
// the test that compares both.
func (n *Node) whoisLocalAPI(src netip.AddrPort, dst netip.Addr) ([]byte, error) {
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, errorf(codeNotRunning, "whois", "%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
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
	return appendPeer(nil, newPeer(answer.Node.View(), *answer.UserProfile, answer.CapMap)), nil
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
		Expired:      node.Expired() || (!node.KeyExpiry().IsZero() && node.KeyExpiry().Before(time.Now())),
		Shared:       node.Sharer() != 0,
		Capabilities: caps,
	}
	// ShareeNode marks a node of another tailnet that somebody shared ours with.
	if info := node.Hostinfo(); info.Valid() && info.ShareeNode() {
		p.Shared = true
	}
	for _, prefix := range node.Addresses().All() {
		p.Addresses = append(p.Addresses, prefix.Addr().String())
	}
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

// appendPeer writes the JSON by hand: with reflection it would cost more than
// the whole look-up.
func appendPeer(b []byte, p peer) []byte {
	b = appendString(append(b, `{"node_id":`...), p.NodeID)
	b = appendString(append(b, `,"node":`...), p.Node)
	b = strconv.AppendInt(append(b, `,"user_id":`...), p.UserID, 10)
	b = appendString(append(b, `,"login":`...), p.Login)
	b = appendString(append(b, `,"display_name":`...), p.DisplayName)
	b = appendStrings(append(b, `,"tags":`...), p.Tags)
	b = strconv.AppendBool(append(b, `,"shared":`...), p.Shared)
	b = strconv.AppendBool(append(b, `,"expired":`...), p.Expired)
	b = appendStrings(append(b, `,"addresses":`...), p.Addresses)
	b = append(b, `,"capabilities":{`...)
	first := true
	for name, values := range p.Capabilities {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, string(name)), ':', '[')
		for i, value := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, value...)
		}
		b = append(b, ']')
	}
	return append(b, '}', '}')
}

func appendString(b []byte, s string) []byte {
	// An error means invalid UTF-8, which AppendQuote has replaced by U+FFFD.
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil && len(quoted) == len(b) {
		return append(b, '"', '"')
	}
	return quoted
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
