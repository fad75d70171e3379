package devnet

import (
	"encoding/json"
	"slices"
	"testing"

	"tailscale.com/tailcfg"
)

// Each selector matches exactly the nodes that it names.
func TestSelectors(t *testing.T) {
	r, server, client := testTailnet(t)
	for selector, want := range map[string]string{
		"*":                   "server client",
		"tag:ci":              "server",
		"tag:c":               "",
		"dev@example.com":     "client",
		"DEV@example.com":     "client",
		"tagged-devices":      "",
		"ops@example.com":     "",
		"server":              "server",
		"server.t.test":       "server",
		"Server.t.test.":      "server",
		"server.other.test":   "",
		"100.64.0.2":          "client",
		server.V6.String():    "server",
		"100.64.0.0/10":       "server client",
		"100.64.0.2/32":       "client",
		"fd7a:115c:a1e0::/48": "server client",
		"10.0.0.1":            "",
	} {
		if err := checkSelector(selector); err != nil {
			t.Errorf("%s is refused: %v", selector, err)
		}
		got := ""
		for _, n := range []*node{server, client} {
			if r.matches(selector, n) {
				got += " " + n.Name
			}
		}
		if got != "" {
			got = got[1:]
		}
		if got != want {
			t.Errorf("%s means %q, want %q", selector, got, want)
		}
	}
	for _, selector := range []string{"", "group:x", "autogroup:member", "tag:", "tag:1", "a b", "a/b", "a,b", "**", "svc:x"} {
		if checkSelector(selector) == nil {
			t.Errorf("%q is accepted, want it refused", selector)
		}
	}
}

// The filter of a node has the grants to that node, in tailscaled's form.
func TestFilter(t *testing.T) {
	r, server, client := testTailnet(t)
	r.grants = []grant{
		{Src: []string{"dev@example.com"}, Dst: []string{"tag:ci"}, IP: []string{"tcp:80-81", "udp:*"}},
		{Src: []string{"*"}, Dst: []string{"server"}, App: map[tailcfg.PeerCapability][]tailcfg.RawMessage{"example.com/cap": {`{"a":1}`}}},
		{Src: []string{"tag:ci"}, Dst: []string{"client"}, IP: []string{"443"}},
		{Src: []string{"nobody"}, Dst: []string{"*"}, IP: []string{"*"}},
	}
	if err := checkGrants(r.grants); err != nil {
		t.Fatal(err)
	}
	v6s, v6c := server.V6.String(), client.V6.String()
	for _, tt := range []struct {
		n    *node
		want string
	}{
		{server, `[{"SrcIPs":["100.64.0.2","` + v6c + `"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":80,"Last":81}},{"IP":"` + v6s + `","Ports":{"First":80,"Last":81}}],"IPProto":[6]},` +
			`{"SrcIPs":["100.64.0.2","` + v6c + `"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":0,"Last":65535}},{"IP":"` + v6s + `","Ports":{"First":0,"Last":65535}}],"IPProto":[17]},` +
			`{"SrcIPs":["*"],"CapGrant":[{"Dsts":["100.64.0.1/32","` + v6s + `/128"],"CapMap":{"example.com/cap":[{"a":1}]}}]}]`},
		{client, `[{"SrcIPs":["100.64.0.1","` + v6s + `"],"DstPorts":[{"IP":"100.64.0.2","Ports":{"First":443,"Last":443}},{"IP":"` + v6c + `","Ports":{"First":443,"Last":443}}]}]`},
	} {
		peers := slices.DeleteFunc([]*node{server, client}, func(p *node) bool { return p == tt.n })
		got, err := json.Marshal(r.filterFor(tt.n, peers))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.n.Name, got, tt.want)
		}
	}
}
