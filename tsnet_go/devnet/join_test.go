package devnet

import (
	"strings"
	"testing"
	"time"
)

// Two nodes join with auth keys and reach each other by full name.
func TestTwoNodesTalk(t *testing.T) {
	start := time.Now()
	d := startDevnet(t, Config{})
	started := time.Since(start)
	server := join(t, d, "server", "dev@example.com")
	client := join(t, d, "client", "tag:ci")
	joined := time.Since(start)
	server.serve(t)
	client.awaitPeer(t, "server.dev.tailnet.test")
	body, err := client.get(t, "server.dev.tailnet.test", waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start %v, both joined %v, first answer %v", started, joined, time.Since(start))
	if v4, _ := client.TailscaleIPs(); !strings.HasPrefix(body, v4.String()+":") {
		t.Errorf("the server saw the caller %q, want the address %v", body, v4)
	}
}
