package tailnode

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// For every kind of peer, the node's own state and tailscale's public API give the same
// answer.
func TestWhoisAgreesWithTheLocalAPI(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	net.do("set_grants", map[string]any{"grants": []map[string]any{
		{"src": []string{"*"}, "dst": []string{"*"}, "ip": []string{"*"}},
		{"src": []string{"dev@example.com"}, "dst": []string{"server"}, "app": map[string]any{
			"tailbone.dev/cap/admin": []any{map[string]any{"roles": []string{"admin", "<é>"}}, "text", 1},
			"tailbone.dev/cap/empty": []any{},
		}},
	}})
	server := net.join("server", "srv@example.com")
	peers := map[string]*testNode{
		"user":    net.join("user", "dev@example.com"),
		"tagged":  net.join("tagged", "tag:ci"),
		"shared":  net.join("shared", "friend@example.org"),
		"expired": net.join("expired", "late@example.com"),
	}
	addresses := map[string][2]string{}
	for name, peer := range peers {
		server.sees(peer)
		addresses[name] = [2]string{peer.v4().String(), peer.v6().String()}
	}
	net.do("share_node", map[string]any{"node": "shared", "shared": true})
	net.do("expire_node", map[string]any{"node": "expired"})
	who := func(source string) (p struct {
		UserID          int64 `json:"user_id"`
		Login           string
		Tags            []string
		Shared, Expired bool
		KeyExpiry       int64 `json:"key_expiry"`
		Capabilities    map[string][]string
	}) {
		answer, err := server.Whois(source)
		if err == nil {
			err = json.Unmarshal(answer, &p)
		}
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		return p
	}
	tbtest.Eventually(t, "the server knows what changed", func() bool {
		return who(addresses["shared"][0]).Shared && who(addresses["expired"][0]).Expired
	})
	if p := who(addresses["user"][0]); p.Login != "dev@example.com" || p.UserID == 0 || len(p.Tags) != 0 || len(p.Capabilities) != 2 || p.KeyExpiry <= time.Now().Unix() {
		t.Errorf("the user is %+v", p)
	}
	if p := who(addresses["tagged"][0]); p.Login != "" || p.UserID != 0 || len(p.Tags) != 1 || p.Tags[0] != "tag:ci" || p.KeyExpiry != 0 {
		t.Errorf("the tagged node is %+v", p)
	}
	// A name means the peer with its address, also after its key has expired.
	for _, name := range []string{"user", "tagged", "shared", "expired"} {
		byName, err := server.Whois(name)
		byAddress, _ := server.Whois(addresses[name][0])
		if err != nil || string(byName) != string(byAddress) {
			t.Errorf("%s: by name %s, %v; by address %s", name, byName, err, byAddress)
		}
	}
	_, err := server.Whois("nobody")
	wantCode(t, tberr.PeerNotFound, err)
	sources := []string{"100.127.255.254", "192.168.7.7", "::1", "fd7a:115c:a1e0::dead", server.v4().String()}
	for _, both := range addresses {
		sources = append(sources, both[0], both[1], "::ffff:"+both[0])
	}
	for _, source := range sources {
		compareWhois(t, server, source)
	}
}

func compareWhois(t *testing.T, node *testNode, source string) {
	t.Helper()
	src, err := node.sourceOf(source)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := node.Whois(source)
	other, otherErr := node.whoisLocalAPI(src)
	if tberr.CodeOf(err) != tberr.CodeOf(otherErr) {
		t.Errorf("%s: directly %v, through the LocalAPI %v", source, err, otherErr)
	}
	if err == nil && !json.Valid(direct) {
		t.Errorf("%s is not JSON", direct)
	}
	if string(direct) != string(other) {
		t.Errorf("%s: directly\n%s\nthrough the LocalAPI\n%s", source, direct, other)
	}
}

// Without the extension, or with one whose backend has other methods, whois still works.
func TestWhoisFallsBackToTheLocalAPI(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	direct, err := server.Whois(client.v4().String())
	if err != nil {
		t.Fatal(err)
	}
	whole := server.ext
	for name, ext := range map[string]*extension{"no extension": nil, "an unknown backend": {sys: whole.sys, host: whole.host}} {
		server.mu.Lock()
		server.ext = ext
		server.mu.Unlock()
		fallback, err := server.Whois(client.v4().String())
		if err != nil || string(fallback) != string(direct) {
			t.Errorf("with %s: %s, %v; want %s", name, fallback, err, direct)
		}
		_, err = server.Whois("100.127.255.254")
		wantCode(t, tberr.NotFound, err)
	}
	server.mu.Lock()
	server.ext = whole
	server.mu.Unlock()
}

// A changed grant counts for the next whois: nothing is cached.
func TestWhoisSeesAChangedGrantAtOnce(t *testing.T) {
	checkNoLeaks(t)
	net, server, client := two(t)
	net.do("set_grants", map[string]any{"grants": []map[string]any{
		{"src": []string{"*"}, "dst": []string{"*"}, "ip": []string{"*"}},
		{"src": []string{"dev@example.com"}, "dst": []string{"*"}, "app": map[string]any{"example.com/cap/x": []any{1}}},
	}})
	tbtest.Eventually(t, "the grant is in the answer", func() bool {
		answer, err := server.Whois(client.v4().String())
		var p struct{ Capabilities map[string][]string }
		return err == nil && json.Unmarshal(answer, &p) == nil && len(p.Capabilities["example.com/cap/x"]) == 1
	})
}

// Sources that mean no peer, and a whois before Up, are errors with their own codes.
func TestWhoisErrors(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	node := newTestNode(t, net.config("node", "dev@example.com"))
	_, err := node.Whois("100.64.0.1")
	wantCode(t, tberr.NotRunning, err)
	node.mustUp()
	for _, source := range []string{"", "x", "100.64.0", "100.64.0.1:", "[100.64.0.1", "100.64.0.1:99999"} {
		_, err := node.Whois(source)
		wantCode(t, tberr.PeerNotFound, err)
	}
}

// Strange names still give valid JSON.
func TestAppendIdentityIsJSON(t *testing.T) {
	for _, text := range []string{"", "<&>\u2028", "\x00\x1f\"\\", "\xff\xfe", "é\U0001F600"} {
		var back struct {
			Login string
			Tags  []string
		}
		b := appendIdentity(nil, identity{Login: text, Tags: []string{text, text}})
		if err := json.Unmarshal(b, &back); err != nil {
			t.Errorf("%q: %s: %v", text, b, err)
		}
		if want := string([]rune(text)); back.Login != want || back.Tags[1] != want {
			t.Errorf("want %q, got %q", want, back.Login)
		}
	}
}

func BenchmarkWhois(b *testing.B) {
	_, server, client := two(b)
	source := client.v4().String() + ":12345"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := server.Whois(source); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWhoisLocalAPI(b *testing.B) {
	_, server, client := two(b)
	src, err := server.sourceOf(client.v4().String() + ":12345")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := server.whoisLocalAPI(src); err != nil {
			b.Fatal(err)
		}
	}
}
