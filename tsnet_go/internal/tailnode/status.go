package tailnode

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/ipn"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// Status is the state of a node.
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

// Status returns the node's state.
func (n *Node) Status() (*Status, error) {
	if n.IsClosed() {
		return nil, errClosed("status")
	}
	if !n.isStarted() {
		return &Status{State: ipn.NoState.String(), Hostname: n.config.Hostname, Addresses: []string{}, Health: []string{}}, nil
	}
	client, err := n.srv.LocalClient()
	if err != nil {
		return nil, tberr.Errorf(tberr.NotRunning, "status", "%v", err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, localAPITimeout)
	defer cancel()
	st, err := client.StatusWithoutPeers(ctx)
	switch {
	case err != nil && n.ctx.Err() != nil:
		return nil, errClosed("status")
	case err != nil:
		return nil, tberr.Errorf(tberr.Internal, "status", "%v", err)
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

// localAPITimeout bounds one call of the LocalAPI, which is in this process.
const localAPITimeout = 5 * time.Second

// inMapPoll reports whether the node is connected to the control server.
func (n *Node) inMapPoll() bool { return n.srv.Sys().HealthTracker.Get().GetInPollNetMap() }

// hasAddress reports whether addr is one of the node's own tailnet addresses.
func (n *Node) hasAddress(addr netip.Addr) bool {
	v4, v6 := n.srv.TailscaleIPs()
	return addr.IsValid() && (addr == v4 || addr == v6)
}

// addresses returns the node's own tailnet addresses.
func (n *Node) addresses() []netip.Addr {
	v4, v6 := n.srv.TailscaleIPs()
	return slices.DeleteFunc([]netip.Addr{v4, v6}, func(a netip.Addr) bool { return !a.IsValid() })
}

func addressStrings(addrs []netip.Addr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
