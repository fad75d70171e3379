package devnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tailscale.com/tailcfg"
	"tailscale.com/types/ipproto"
)

// grant lets its sources reach its destinations: on the ports of IP, and with
// the capabilities of App towards the application there. It has the form of a
// grant in a tailnet's policy file.
type grant struct {
	Src []string                                        `json:"src"`
	Dst []string                                        `json:"dst"`
	IP  []string                                        `json:"ip,omitempty"`
	App map[tailcfg.PeerCapability][]tailcfg.RawMessage `json:"app,omitempty"`

	ports []portGrant // IP, read by check
}

// portGrant is one entry of a grant's ip list. No protocols: TCP, UDP and ICMP.
type portGrant struct {
	protos []int
	ports  tailcfg.PortRange
}

const maxGrants = 1000

// allowAll returns the policy of a new tailnet: every node reaches every other.
func allowAll() []grant {
	gs := []grant{{Src: []string{"*"}, Dst: []string{"*"}, IP: []string{"*"}}}
	if err := checkGrants(gs); err != nil {
		panic(err)
	}
	return gs
}

// checkGrants checks and parses the grants; its error says what is allowed.
func checkGrants(gs []grant) error {
	if len(gs) > maxGrants {
		return fmt.Errorf("%d grants: allowed are %d", len(gs), maxGrants)
	}
	for i := range gs {
		if err := gs[i].check(); err != nil {
			return fmt.Errorf("grants[%d]: %w", i, err)
		}
	}
	return nil
}

func (g *grant) check() error {
	if len(g.Src) == 0 || len(g.Dst) == 0 {
		return fmt.Errorf("src and dst must each have at least one selector")
	}
	for _, s := range slices.Concat(g.Src, g.Dst) {
		if err := checkSelector(s); err != nil {
			return err
		}
	}
	if len(g.IP) == 0 && len(g.App) == 0 {
		return fmt.Errorf("grant has neither ip nor app: give at least one")
	}
	g.ports = nil
	for _, s := range g.IP {
		p, err := parsePorts(s)
		if err != nil {
			return err
		}
		g.ports = append(g.ports, p)
	}
	for name, values := range g.App {
		if name == "" || len(name) > maxNameBytes {
			return fmt.Errorf("app: %q is not a capability name", name)
		}
		for _, v := range values {
			if !json.Valid([]byte(v)) {
				return fmt.Errorf("app: a value of %q is not JSON", name)
			}
		}
	}
	return nil
}

// checkSelector returns an error for a selector that matches does not understand.
func checkSelector(s string) error {
	kind, _, hasColon := strings.Cut(s, ":")
	_, addrErr := netip.ParseAddr(s)
	_, prefixErr := netip.ParsePrefix(s)
	switch {
	case s == "*" || addrErr == nil || prefixErr == nil:
		return nil
	case s == "" || hasColon && kind != "tag" || strings.ContainsAny(s, " /*,"):
		return fmt.Errorf("%q is not a selector: allowed are *, a login, a tag, an address or prefix, and a node's name", s)
	case kind == "tag" && hasColon && !tagPattern.MatchString(s):
		return fmt.Errorf("%q is not a tag", s)
	}
	return nil
}

// parsePorts parses "*", "80", "80-90", and the same after "tcp:" or "udp:".
func parsePorts(s string) (portGrant, error) {
	var p portGrant
	ports := s
	if proto, rest, ok := strings.Cut(s, ":"); ok {
		switch proto {
		case "tcp":
			p.protos = []int{int(ipproto.TCP)}
		case "udp":
			p.protos = []int{int(ipproto.UDP)}
		default:
			return p, badPorts(s)
		}
		ports = rest
	}
	if ports == "*" {
		p.ports = tailcfg.PortRangeAny
		return p, nil
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	lo, errLo := strconv.ParseUint(first, 10, 16)
	hi, errHi := strconv.ParseUint(last, 10, 16)
	if errLo != nil || errHi != nil || lo == 0 || lo > hi {
		return p, badPorts(s)
	}
	p.ports = tailcfg.PortRange{First: uint16(lo), Last: uint16(hi)}
	return p, nil
}

func badPorts(s string) error {
	return fmt.Errorf("ip: %q is not a port: allowed are *, 80, 80-90, tcp:80, udp:53", s)
}

// matches reports whether a grant's selector includes the node.
func (r *registry) matches(selector string, n *node) bool {
	if selector == "*" {
		return true
	}
	if strings.HasPrefix(selector, "tag:") {
		return slices.Contains(n.Owner.Tags, selector)
	}
	if strings.Contains(selector, "@") {
		return !n.Owner.tagged() && strings.EqualFold(n.Owner.Login, selector)
	}
	if a, err := netip.ParseAddr(selector); err == nil {
		return n.V4 == a || n.V6 == a
	}
	if p, err := netip.ParsePrefix(selector); err == nil {
		return p.Contains(n.V4) || p.Contains(n.V6)
	}
	return n.Name == r.shortName(selector)
}

func (r *registry) matchesAny(selectors []string, n *node) bool {
	return slices.ContainsFunc(selectors, func(s string) bool { return r.matches(s, n) })
}

// connected reports whether a grant lets either of two nodes reach the other.
// Nodes that no grant connects are not in each other's netmap.
func (r *registry) connected(a, b *node) bool {
	return slices.ContainsFunc(r.grants, func(g grant) bool {
		return r.matchesAny(g.Src, a) && r.matchesAny(g.Dst, b) ||
			r.matchesAny(g.Src, b) && r.matchesAny(g.Dst, a)
	})
}

// filterFor returns the node's packet filter: who may reach it, on which ports,
// and with which capabilities. Never nil: an empty filter admits nothing, a nil
// one means "unchanged".
func (r *registry) filterFor(n *node, peers []*node) []tailcfg.FilterRule {
	rules := []tailcfg.FilterRule{}
	for _, g := range r.grants {
		if !r.matchesAny(g.Dst, n) {
			continue
		}
		srcs := r.sourcesOf(g, n, peers)
		if len(srcs) == 0 {
			continue
		}
		for _, p := range g.ports {
			rules = append(rules, tailcfg.FilterRule{
				SrcIPs:  srcs,
				IPProto: p.protos,
				DstPorts: []tailcfg.NetPortRange{
					{IP: n.V4.String(), Ports: p.ports},
					{IP: n.V6.String(), Ports: p.ports},
				},
			})
		}
		if len(g.App) > 0 {
			rules = append(rules, tailcfg.FilterRule{
				SrcIPs:   srcs,
				CapGrant: []tailcfg.CapGrant{{Dsts: n.prefixes(), CapMap: tailcfg.PeerCapMap(g.App)}},
			})
		}
	}
	return rules
}

// sourcesOf returns the addresses of the grant's sources, including the node
// itself: whois of its own address knows its capabilities too.
func (r *registry) sourcesOf(g grant, n *node, peers []*node) []string {
	if slices.Contains(g.Src, "*") {
		return []string{"*"}
	}
	var srcs []string
	for _, p := range append([]*node{n}, peers...) {
		if r.matchesAny(g.Src, p) {
			srcs = append(srcs, p.V4.String(), p.V6.String())
		}
	}
	return srcs
}
