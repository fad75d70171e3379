package devnet

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"tailscale.com/tailcfg"
)

// testTailnet has the nodes server (tag:ci) and client (dev@example.com).
func testTailnet(t *testing.T) (r *registry, server, client *node) {
	t.Helper()
	r, userKey, tagKey := testRegistry(t)
	m, nk := newKeys()
	server = r.mustRegister(t, m, registerRequest(nk, tagKey, "server"), testNow)
	m, nk = newKeys()
	client = r.mustRegister(t, m, registerRequest(nk, userKey, "client"), testNow)
	return r, server, client
}

func (r *registry) mustDelta(t *testing.T, s *sent, n *node, now time.Time) *tailcfg.MapResponse {
	t.Helper()
	resp, err := s.delta(r.netmapFor(n, nil, now), now)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// The first message has everything; later ones have only changes, and are omitted if there
// are none.
func TestDelta(t *testing.T) {
	r, server, client := testTailnet(t)
	sent := newSent()
	first := r.mustDelta(t, sent, server, testNow)
	if first.Node == nil || first.Domain != "t.test" || first.DNSConfig == nil || len(first.PeersChanged) != 1 || len(first.UserProfiles) != 2 || first.PacketFilters["devnet"] == nil {
		t.Errorf("the first message is incomplete: %+v", first)
	}
	if again := r.mustDelta(t, sent, server, testNow); again != nil {
		t.Errorf("nothing changed, got %+v", again)
	}
	client.Shared = true
	change := r.mustDelta(t, sent, server, testNow)
	if len(change.PeersChanged) != 1 || change.Node != nil || change.PacketFilters != nil || change.UserProfiles != nil || change.DNSConfig != nil {
		t.Errorf("a peer changed, got %+v", change)
	}
	r.grants = []grant{}
	change = r.mustDelta(t, sent, server, testNow)
	if !slices.Equal(change.PeersRemoved, []tailcfg.NodeID{client.ID}) || change.PeersChanged != nil {
		t.Errorf("the last peer was removed, got %+v", change)
	}
	filter, err := json.Marshal(change.PacketFilters)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(filter), `{"devnet":[]}`; got != want {
		t.Errorf("the filter that lets nothing in is sent as %s, want %s: null would mean as before", got, want)
	}
}

// Expired nodes, nodes that wait for approval and removed nodes see no peers.
func TestUnusableNodeSeesNobody(t *testing.T) {
	for name, brk := range map[string]func(r *registry, n *node){
		"expired":    func(_ *registry, n *node) { n.expire(testNow) },
		"unapproved": func(_ *registry, n *node) { n.Approved = false },
		"removed":    func(r *registry, n *node) { r.remove(n, testNow) },
	} {
		t.Run(name, func(t *testing.T) {
			r, server, client := testTailnet(t)
			brk(r, client)
			nm := r.netmapFor(client, nil, testNow)
			if len(nm.peers) != 0 || len(nm.filter) != 0 {
				t.Errorf("it sees %d peers through %d rules, want none", len(nm.peers), len(nm.filter))
			}
			seen := r.netmapFor(server, nil, testNow).peers
			switch {
			case name == "expired" && (len(seen) != 1 || !seen[0].Expired || seen[0].HomeDERP != 0 || seen[0].Endpoints != nil):
				t.Errorf("its peer sees %+v, want it expired and without endpoints", seen)
			case name != "expired" && len(seen) != 0:
				t.Errorf("its peer sees %+v, want no peer", seen)
			}
		})
	}
}

// Peers do not receive a node's private fields.
func TestPeerHostinfo(t *testing.T) {
	r, _, client := testTailnet(t)
	client.Hostinfo = &tailcfg.Hostinfo{Hostname: "client", OS: "linux", BackendLogID: "secret"}
	client.Shared = true
	hi := r.peerNode(client, testNow).Hostinfo
	if hi.OS() != "linux" || !hi.ShareeNode() || hi.BackendLogID() != "" {
		t.Errorf("peers receive %+v", hi)
	}
}
