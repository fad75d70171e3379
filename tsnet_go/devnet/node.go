package devnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/dnsname"
)

// userKeyLife is how long a user's node key is valid, as in the real service.
// Tagged nodes do not expire.
const userKeyLife = 180 * 24 * time.Hour

// node is one machine of the tailnet. The registry's lock guards it.
type node struct {
	ID       tailcfg.NodeID       `json:"id"`
	StableID tailcfg.StableNodeID `json:"stable_id"`
	Name     string               `json:"name"` // one DNS label, unique in the tailnet
	Machine  key.MachinePublic    `json:"machine"`
	Key      key.NodePublic       `json:"key"`
	Owner    identity             `json:"owner"`
	V4       netip.Addr           `json:"v4"`
	V6       netip.Addr           `json:"v6"`
	Created  time.Time            `json:"created"`

	KeyExpiry time.Time `json:"key_expiry,omitzero"` // zero: never
	Ephemeral bool      `json:"ephemeral,omitempty"`
	Approved  bool      `json:"approved"`
	Shared    bool      `json:"shared,omitempty"`
	// Removed nodes are remembered only so that they can be notified.
	Removed bool `json:"removed,omitempty"`

	// What the node says about itself. Kept across restarts, because a node
	// sends it again only when it changes.
	Hostname  string                    `json:"hostname"` // as asked for
	Hostinfo  *tailcfg.Hostinfo         `json:"hostinfo,omitempty"`
	DiscoKey  key.DiscoPublic           `json:"disco_key,omitzero"`
	Endpoints []netip.AddrPort          `json:"endpoints,omitempty"`
	HomeDERP  int                       `json:"home_derp,omitempty"`
	Cap       tailcfg.CapabilityVersion `json:"cap,omitempty"`
	LastSeen  time.Time                 `json:"last_seen,omitzero"`

	stream *mapStream // the open map stream; nil means offline
}

func (n *node) expired(now time.Time) bool {
	return !n.KeyExpiry.IsZero() && !now.Before(n.KeyExpiry)
}

// expire ends the node's key now: a second ago, since others compare with their
// own clocks.
func (n *node) expire(now time.Time) {
	n.KeyExpiry = now.Add(-time.Second).UTC()
}

// usable reports whether the node takes part in the tailnet.
func (n *node) usable(now time.Time) bool {
	return !n.Removed && n.Approved && !n.expired(now)
}

func (n *node) prefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(n.V4, 32), netip.PrefixFrom(n.V6, 128)}
}

// userID returns the node's user in the netmap: the pseudo user for tagged nodes.
func (n *node) userID() tailcfg.UserID {
	if n.Owner.tagged() {
		return userIDOf(taggedDevicesLogin)
	}
	return userIDOf(n.Owner.Login)
}

// maxEndpoints and maxServices bound what one node can make the devnet send to all others.
const (
	maxEndpoints = 64
	maxServices  = 64
)

// bounded returns the part of a node's own description that the devnet keeps.
func bounded(hi *tailcfg.Hostinfo) *tailcfg.Hostinfo {
	kept := &tailcfg.Hostinfo{
		Hostname:     firstBytes(hi.Hostname, maxNameBytes),
		OS:           firstBytes(hi.OS, maxNameBytes),
		OSVersion:    firstBytes(hi.OSVersion, maxNameBytes),
		IPNVersion:   firstBytes(hi.IPNVersion, maxNameBytes),
		BackendLogID: firstBytes(hi.BackendLogID, maxNameBytes),
		Userspace:    hi.Userspace,
	}
	for _, s := range hi.Services[:min(len(hi.Services), maxServices)] {
		s.Description = firstBytes(s.Description, maxNameBytes)
		kept.Services = append(kept.Services, s)
	}
	return kept
}

// firstBytes truncates s at a character boundary.
func firstBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// boundedEndpoints drops endpoints that no peer can reach. A zone names an interface
// of the node's own machine.
func boundedEndpoints(eps []netip.AddrPort) []netip.AddrPort {
	var kept []netip.AddrPort
	for _, ep := range eps {
		if ep.IsValid() && ep.Port() != 0 && ep.Addr().Zone() == "" && len(kept) < maxEndpoints {
			kept = append(kept, ep)
		}
	}
	return kept
}

// labelOf returns a valid DNS label for any hostname.
func labelOf(hostname string) string {
	label := dnsname.SanitizeHostname(hostname)
	if dnsname.ValidLabel(label) != nil {
		return "node"
	}
	return label
}

// numbered returns label, or label-n truncated to the 63 bytes that DNS allows.
func numbered(label string, n int) string {
	if n == 0 {
		return label
	}
	suffix := fmt.Sprintf("-%d", n)
	if len(label)+len(suffix) > 63 {
		label = strings.TrimRight(label[:63-len(suffix)], "-")
	}
	return label + suffix
}

// maxNodes keeps the addresses inside 100.64.0.0/16.
const maxNodes = 1<<16 - 2

// addressesOf returns the addresses of the i-th node ever made, counted from 1.
func addressesOf(i int) (v4, v6 netip.Addr) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 100<<24|64<<16|uint32(i))
	v4 = netip.AddrFrom4(b)
	return v4, tsaddr.Tailscale4To6(v4)
}
