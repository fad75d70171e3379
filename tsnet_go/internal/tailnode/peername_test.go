package tailnode

import (
	"net/netip"
	"testing"

	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// Peer names are unique, and the longest one fits a Unix address (108 bytes).
func TestPeerName(t *testing.T) {
	longest := netip.MustParseAddrPort("[fd7a:115c:a1e0:1234:1234:1234:1234:1234]:65535")
	if n := len(peerName("twelve-chars", longest, nil)) + len("zzzzzzzzzzzzz"); n > 108 {
		t.Errorf("a peer name could have %d bytes", n)
	}
	table, err := callers.NewTable()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 1000 {
		slot := table.Acquire()
		for _, name := range []string{peerName("x", longest, slot), peerName("x", longest, nil)} {
			if seen[name] {
				t.Fatalf("%s is not unique", name)
			}
			seen[name] = true
		}
		slot.Release()
	}
}
