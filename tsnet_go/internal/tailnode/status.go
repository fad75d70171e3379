package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/ipn"
)

// Status is a node's state for Python.
type Status struct {
	State            string   `json:"state"`
	Hostname         string   `json:"hostname"`
	DNSName          string   `json:"dns_name"` // without the final dot
	Tailnet          string   `json:"tailnet"`
	Addresses        []string `json:"addresses"`
	NodeID           string   `json:"node_id"`
	AuthURL          string   `json:"auth_url,omitempty"`
	KeyExpiry        *float64 `json:"key_expiry"` // unix seconds, null for never
	ControlReachable bool     `json:"control_reachable"`
	Health           []string `json:"health"`
}

func (n *Node) status() (*Status, error) {
	if n.isClosing() {
		return nil, errorf(codeClosed, "status", "the node is closed")
	}
	if !n.isStarted() {
		return &Status{State: ipn.NoState.String(), Hostname: n.config.Hostname, Addresses: []string{}, Health: []string{}}, nil
	}
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, errorf(codeNotRunning, "status", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.life, 5*time.Second)
	defer cancel()
	st, err := client.StatusWithoutPeers(ctx)
	switch {
	case err != nil && n.life.Err() != nil:
		return nil, errorf(codeClosed, "status", "the node is closed")
	case err != nil:
		return nil, errorf(codeInternal, "status", "%v", err)
	}
	out := &Status{
		State:            st.BackendState,
		Hostname:         n.config.Hostname,
		Addresses:        addressStrings(st.TailscaleIPs),
		AuthURL:          st.AuthURL,
		ControlReachable: n.inMapPoll(),
		Health:           append([]string{}, st.Health...),
	}
	if st.CurrentTailnet != nil {
		out.Tailnet = st.CurrentTailnet.Name
	}
	if st.Self != nil {
		out.DNSName = strings.TrimSuffix(st.Self.DNSName, ".")
		out.NodeID = string(st.Self.ID)
		if expiry := st.Self.KeyExpiry; expiry != nil && !expiry.IsZero() {
			seconds := float64(expiry.UnixMilli()) / 1000
			out.KeyExpiry = &seconds
		}
	}
	return out, nil
}

// inMapPoll reports whether the control server is connected now.
func (n *Node) inMapPoll() bool { return n.srv.Sys().HealthTracker.Get().GetInPollNetMap() }

func addressStrings(addrs []netip.Addr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// owns reports whether addr is one of the node's own tailnet addresses.
func (n *Node) owns(addr netip.Addr) bool {
	v4, v6 := n.srv.TailscaleIPs()
	return addr.IsValid() && (addr == v4 || addr == v6)
}

func (n *Node) ownAddresses() []netip.Addr {
	v4, v6 := n.srv.TailscaleIPs()
	return slices.DeleteFunc([]netip.Addr{v4, v6}, func(a netip.Addr) bool { return !a.IsValid() })
}
