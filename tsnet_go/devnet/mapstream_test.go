package devnet

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// openMap opens a map stream and returns its body.
func (c *rawClient) openMap(t *testing.T, req *tailcfg.MapRequest) io.ReadCloser {
	t.Helper()
	body, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), tbtest.Limit)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "POST", "http://control/machine/map", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.h2.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("map: %v", res.Status)
	}
	return res.Body
}

// registeredClient returns a client and the request for its map stream.
func registeredClient(t *testing.T, d *Devnet, hostname string) (*rawClient, *tailcfg.MapRequest) {
	t.Helper()
	nodeKey := key.NewNode().Public()
	c := newRawClient(t, d, key.NewMachine())
	if resp := c.register(t, registerRequest(nodeKey, addKey(t, d, "tag:ci"), hostname)); resp.Error != "" {
		t.Fatal(resp.Error)
	}
	return c, &tailcfg.MapRequest{Version: tailcfg.CurrentCapabilityVersion, NodeKey: nodeKey, Stream: true, DiscoKey: key.NewDisco().Public()}
}

// A stream begins with the whole netmap and is kept alive, compressed or not.
func TestMapStream(t *testing.T) {
	d := startDevnet(t, Config{limits: limits{keepAlive: 10 * time.Millisecond}})
	for _, compress := range []string{"", "zstd"} {
		c, req := registeredClient(t, d, "node"+compress)
		req.Compress = compress
		stream := c.openMap(t, req)
		first, err := readFrame(stream, compress != "")
		if err != nil || first.Node == nil || first.DERPMap == nil {
			t.Fatalf("compress %q: first message %+v, %v", compress, first, err)
		}
		for {
			resp, err := readFrame(stream, compress != "")
			if err != nil {
				t.Fatalf("compress %q: %v, before any keep-alive", compress, err)
			}
			if resp.KeepAlive {
				break
			}
		}
	}
}

// A node has one stream: the next one ends it.
func TestSecondStreamEndsFirst(t *testing.T) {
	d := startDevnet(t, Config{})
	c, req := registeredClient(t, d, "node")
	first := c.openMap(t, req)
	if _, err := readFrame(first, false); err != nil {
		t.Fatal(err)
	}
	second := c.openMap(t, req)
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("the first stream ended with %v, want its end", err)
	}
	if _, err := readFrame(second, false); err != nil {
		t.Errorf("the second stream: %v", err)
	}
	if n := nodeInfo(t, d, "node"); !n.Online {
		t.Error("the node is offline after its first stream ended, want it online by its second")
	}
}

// A stream request does not change its node, unless the devnet knows nothing about it.
func TestStreamIsReadOnly(t *testing.T) {
	d := startDevnet(t, Config{})
	c, req := registeredClient(t, d, "node")
	original := req.DiscoKey
	if _, err := readFrame(c.openMap(t, req), false); err != nil {
		t.Fatal(err)
	}
	req.DiscoKey = key.NewDisco().Public()
	first, err := readFrame(c.openMap(t, req), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := first.Node.DiscoKey; got != original {
		t.Errorf("the second stream changed the disco key to %v, want the first's %v", got, original)
	}
	update := *req
	update.Stream, update.OmitPeers = false, true
	if status, body := c.post(t, "/machine/map", &update); status != http.StatusOK || len(body) != 0 {
		t.Fatalf("update: %d %q, want 200 and nothing", status, body)
	}
	if first, err = readFrame(c.openMap(t, req), false); err != nil {
		t.Fatal(err)
	}
	if got := first.Node.DiscoKey; got != req.DiscoKey {
		t.Errorf("after an update the disco key is %v, want %v", got, req.DiscoKey)
	}
}
