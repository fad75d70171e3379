package tailnode

import (
	"net/netip"
	"testing"

	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// A name means one peer: a full name wins over a short one, and this tailnet's nodes win
// over those shared in. An ambiguous name is an error.
func TestFindPeer(t *testing.T) {
	addr := func(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }
	peers := []netmapPeer{
		{name: "web.mine.ts.net", addresses: addr("100.64.0.1")},
		{name: "web.other.ts.net", addresses: addr("100.64.0.2")},
		{name: "db.one.ts.net", addresses: addr("100.64.0.3")},
		{name: "db.two.ts.net", addresses: addr("100.64.0.4")},
		{name: "far.other.ts.net", addresses: addr("fd7a::5")},
		{name: "old.mine.ts.net", addresses: addr("100.64.0.6"), expired: true},
		{name: "empty.mine.ts.net"},
		{name: "", addresses: addr("100.64.0.7")},
	}
	for wanted, want := range map[string]string{
		"web":               "web.mine.ts.net",
		"WEB":               "web.mine.ts.net",
		"web.other.ts.net":  "web.other.ts.net",
		"Web.Other.ts.net.": "web.other.ts.net",
		"far":               "far.other.ts.net",
		"fd7a::5":           "far.other.ts.net",
		"100.64.0.2":        "web.other.ts.net",
		"::ffff:100.64.0.2": "web.other.ts.net",
		"db":                "",
		"old":               "old.mine.ts.net",
		"100.64.0.6":        "old.mine.ts.net",
		"empty":             "",
		"web.mine":          "",
		"mine.ts.net":       "",
		"":                  "",
		".":                 "",
		"100.64.0.9":        "",
	} {
		peer, err := findPeer("test", peers, "mine.ts.net", wanted)
		if want == "" && tberr.CodeOf(err) != tberr.PeerNotFound || want != "" && (err != nil || peer.name != want) {
			t.Errorf("%q: want %q, got %q, %v", wanted, want, peer.name, err)
		}
	}
}
