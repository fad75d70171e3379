package devnet

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// twoNodes joins a server and a client, and waits until they have communicated.
func twoNodes(t *testing.T, cfg Config) (d *Devnet, server, client *testNode) {
	t.Helper()
	d = startDevnet(t, cfg)
	server = join(t, d, "server", "tag:server")
	client = join(t, d, "client", "dev@example.com")
	server.serve(t)
	client.awaitPeer(t, "server.dev.tailnet.test")
	server.awaitPeer(t, "client.dev.tailnet.test")
	if _, err := client.get(t, "server.dev.tailnet.test", tbtest.Limit); err != nil {
		t.Fatal(err)
	}
	return d, server, client
}

func (n *testNode) awaitState(t *testing.T, want ipn.State) {
	t.Helper()
	tbtest.Eventually(t, n.Hostname+" is in state "+want.String(), func() bool {
		return n.status(t).BackendState == want.String()
	})
}

// An expired node must log in again, and its peers see it as expired.
func TestExpireNode(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	do[done](t, d, "expire_node", map[string]any{"node": "client"})
	client.awaitState(t, ipn.NeedsLogin)
	tbtest.Eventually(t, "the server sees the client expired", func() bool {
		p := server.peer(t, "client.dev.tailnet.test")
		return p != nil && p.Expired
	})
	if info := nodeInfo(t, d, "client"); info == nil || !info.Expired {
		t.Errorf("nodes lists %+v, want it expired", info)
	}
}

// An expired node that logs in again keeps its id and address.
func TestExpiredNodeComesBack(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	before := nodeInfo(t, d, "client")
	oldKey := client.status(t).Self.PublicKey
	do[done](t, d, "expire_node", map[string]any{"node": before.StableID})
	client.awaitState(t, ipn.NeedsLogin)
	if _, err := localAPI(t, client, func(ctx context.Context, c *local.Client) (any, error) {
		return nil, c.StartLoginInteractive(ctx)
	}); err != nil {
		t.Fatal(err)
	}
	client.awaitState(t, ipn.Running)
	tbtest.Eventually(t, "the server sees the client with its new key", func() bool {
		p := server.peer(t, "client.dev.tailnet.test")
		return p != nil && !p.Expired && p.PublicKey != oldKey
	})
	after := nodeInfo(t, d, "client")
	if after.StableID != before.StableID || after.Addresses[0] != before.Addresses[0] {
		t.Errorf("after the login the node is %+v, want id and address of %+v", after, before)
	}
	if _, err := client.get(t, "server.dev.tailnet.test", tbtest.Limit); err != nil {
		t.Errorf("after the login: %v", err)
	}
}

// A removed node disappears from its peers and must log in again.
func TestRemoveNode(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	v4, _ := client.TailscaleIPs()
	do[done](t, d, "remove_node", map[string]any{"node": "client.dev.tailnet.test"})
	tbtest.Eventually(t, "the server has forgotten the client", func() bool {
		return server.peer(t, "client.dev.tailnet.test") == nil
	})
	if who, err := server.whois(t, v4); err == nil {
		t.Errorf("whois of the removed node gives %v, want not found", who.Node.Name)
	}
	client.awaitState(t, ipn.NeedsLogin)
	if info := nodeInfo(t, d, "client"); info != nil {
		t.Errorf("nodes lists %+v, want it gone", info)
	}
}

// A forgotten node disappears from its peers and from the list of nodes.
func TestForgetNode(t *testing.T) {
	d, server, _ := twoNodes(t, Config{})
	do[done](t, d, "forget_node", map[string]any{"node": "client"})
	tbtest.Eventually(t, "the server has forgotten the client", func() bool {
		return server.peer(t, "client.dev.tailnet.test") == nil
	})
	if info := nodeInfo(t, d, "client"); info != nil {
		t.Errorf("nodes lists %+v, want it gone", info)
	}
}

// Peers see that a node is marked as shared, and that the mark is removed.
func TestShareNode(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	v4, _ := client.TailscaleIPs()
	shared := func() bool {
		who, err := server.whois(t, v4)
		return err == nil && who.Node.Hostinfo.ShareeNode()
	}
	if shared() {
		t.Fatal("the client is shared at first, want not")
	}
	do[done](t, d, "share_node", map[string]any{"node": v4.String(), "shared": true})
	tbtest.Eventually(t, "the server sees the client as shared in", shared)
	do[done](t, d, "share_node", map[string]any{"node": "client", "shared": false})
	tbtest.Eventually(t, "the server sees the client as its own", func() bool { return !shared() })
}

// Nodes that join with a shared key are shared from the start.
func TestSharedKey(t *testing.T) {
	d := startDevnet(t, Config{})
	server := join(t, d, "server", "tag:server")
	guest := join(t, d, "guest", "guest@example.org", map[string]any{"shared": true})
	server.awaitPeer(t, "guest.dev.tailnet.test")
	v4, _ := guest.TailscaleIPs()
	who, err := server.whois(t, v4)
	if err != nil {
		t.Fatal(err)
	}
	if !who.Node.Hostinfo.ShareeNode() {
		t.Error("the guest is not shared, want shared")
	}
}

// Peers see a user's new display name at once.
func TestDisplayNameChanges(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	addKey(t, d, "dev@example.com", map[string]any{"display_name": "Renamed"})
	v4, _ := client.TailscaleIPs()
	tbtest.Eventually(t, "the server sees the new display name", func() bool {
		who, err := server.whois(t, v4)
		return err == nil && who.UserProfile.DisplayName == "Renamed"
	})
}

// whois has a grant's capabilities at once, and loses them at once.
func TestGrantCapabilitiesLive(t *testing.T) {
	const admin = "tailbone.dev/cap/admin"
	d, server, client := twoNodes(t, Config{})
	v4, _ := client.TailscaleIPs()
	roles := func() string {
		who, err := server.whois(t, v4)
		if err != nil || len(who.CapMap[admin]) != 1 {
			return ""
		}
		// The LocalAPI indents its answers, and with them the values.
		var value bytes.Buffer
		if err := json.Compact(&value, []byte(who.CapMap[admin][0])); err != nil {
			t.Fatal(err)
		}
		return value.String()
	}
	all := map[string]any{"src": []string{"*"}, "dst": []string{"*"}, "ip": []string{"*"}}
	give := func(src, role string) map[string]any {
		return map[string]any{"src": []string{src}, "dst": []string{"tag:server"}, "app": map[string]any{
			admin: []any{map[string]any{"roles": []string{role}}},
		}}
	}
	if got := roles(); got != "" {
		t.Fatalf("roles %q before any grant, want none", got)
	}
	for _, src := range []string{"dev@example.com", "client", "client.dev.tailnet.test", v4.String(), "*"} {
		do[done](t, d, "set_grants", map[string]any{"grants": []any{all, give(src, "admin")}})
		tbtest.Eventually(t, "admin for "+src, func() bool { return roles() == `{"roles":["admin"]}` })
		do[done](t, d, "set_grants", map[string]any{"grants": []any{all, give("tag:other", "admin")}})
		tbtest.Eventually(t, "nothing after "+src, func() bool { return roles() == "" })
	}
	do[done](t, d, "set_grants", map[string]any{"grants": []any{all, give("dev@example.com", "viewer")}})
	tbtest.Eventually(t, "viewer", func() bool { return roles() == `{"roles":["viewer"]}` })
}

// Only ports that a grant opens are open.
func TestGrantPorts(t *testing.T) {
	d, _, client := twoNodes(t, Config{})
	set := func(port string) {
		do[done](t, d, "set_grants", map[string]any{"grants": []any{
			map[string]any{"src": []string{"dev@example.com"}, "dst": []string{"tag:server"}, "ip": []string{port}},
		}})
	}
	set("tcp:443")
	tbtest.Eventually(t, "port 80 is closed", func() bool {
		_, err := client.get(t, "server.dev.tailnet.test", 200*time.Millisecond)
		return err != nil
	})
	set("80-81")
	tbtest.Eventually(t, "port 80 is open", func() bool {
		_, err := client.get(t, "server.dev.tailnet.test", 200*time.Millisecond)
		return err == nil
	})
}

// Nodes that no grant connects do not see each other, not even a last peer.
func TestUnconnectedNodesAreUnseen(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	do[done](t, d, "set_grants", map[string]any{"grants": []any{}})
	for _, n := range []*testNode{server, client} {
		tbtest.Eventually(t, n.Hostname+" sees no peer", func() bool { return len(n.status(t).Peer) == 0 })
	}
	do[done](t, d, "set_grants", map[string]any{"grants": []any{
		map[string]any{"src": []string{"client"}, "dst": []string{"server"}, "ip": []string{"80"}},
	}})
	server.awaitPeer(t, "client.dev.tailnet.test")
	client.awaitPeer(t, "server.dev.tailnet.test")
}

// Peers see whether a node is online, and a new host name.
func TestPeersSeeChanges(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	tbtest.Eventually(t, "the client is online", func() bool {
		p := server.peer(t, "client.dev.tailnet.test")
		return p != nil && p.Online
	})
	prefs := &ipn.MaskedPrefs{Prefs: ipn.Prefs{Hostname: "renamed"}, HostnameSet: true}
	if _, err := localAPI(t, client, func(ctx context.Context, c *local.Client) (*ipn.Prefs, error) {
		return c.EditPrefs(ctx, prefs)
	}); err != nil {
		t.Fatal(err)
	}
	server.awaitPeer(t, "renamed.dev.tailnet.test")
	client.close(t)
	tbtest.Eventually(t, "the client is offline", func() bool {
		p := server.peer(t, "renamed.dev.tailnet.test")
		return p != nil && !p.Online
	})
	if info := nodeInfo(t, d, "renamed"); info == nil || info.Online {
		t.Errorf("nodes lists %+v, want it offline", info)
	}
}

// Closing an ephemeral node logs it out, which removes it.
func TestEphemeralLogsOut(t *testing.T) {
	d, server, _ := twoNodes(t, Config{})
	n := newNode(t, d, "brief", addKey(t, d, "tag:ci"))
	n.Ephemeral = true
	n.up(t)
	server.awaitPeer(t, "brief.dev.tailnet.test")
	n.close(t)
	tbtest.Eventually(t, "the ephemeral node is removed", func() bool { return nodeInfo(t, d, "brief") == nil })
}

// An ephemeral node that disappears is removed after the grace period.
func TestEphemeralDisappears(t *testing.T) {
	d, server, _ := twoNodes(t, Config{EphemeralGraceS: 0.05})
	n := join(t, d, "brief", "tag:ci", map[string]any{"ephemeral": true})
	server.awaitPeer(t, "brief.dev.tailnet.test")
	n.close(t) // only its key is ephemeral, so it does not log out
	tbtest.Eventually(t, "the ephemeral node is removed", func() bool { return nodeInfo(t, d, "brief") == nil })
}

// A node that logs out is expired. It keeps its id and address when it logs in again.
func TestLogout(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	before := nodeInfo(t, d, "client")
	if _, err := localAPI(t, client, func(ctx context.Context, c *local.Client) (any, error) {
		return nil, c.Logout(ctx)
	}); err != nil {
		t.Fatal(err)
	}
	tbtest.Eventually(t, "the server sees the client expired", func() bool {
		p := server.peer(t, "client.dev.tailnet.test")
		return p != nil && p.Expired
	})
	client.close(t)
	again := newNodeIn(t, client.dir, d, "client", addKey(t, d, "dev@example.com"))
	again.up(t)
	after := nodeInfo(t, d, "client")
	if after == nil || after.StableID != before.StableID || after.Addresses[0] != before.Addresses[0] {
		t.Errorf("after the login the node is %+v, want id and address of %+v", after, before)
	}
}
