package devnet

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tailscale.com/net/tlsdial"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// While control is paused, nodes that know each other still communicate. A change reaches
// them as soon as control is resumed.
func TestPauseControl(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	do[done](t, d, "pause_control", nil)
	do[done](t, d, "share_node", map[string]any{"node": "client", "shared": true})
	if _, err := client.get(t, "server.dev.tailnet.test", tbtest.Limit); err != nil {
		t.Errorf("while control is paused: %v", err)
	}
	v4, _ := client.TailscaleIPs()
	shared := func() bool {
		who, err := server.whois(t, v4)
		return err == nil && who.Node.Hostinfo.ShareeNode()
	}
	if shared() {
		t.Error("the change passed the paused control server, want it delayed")
	}
	start := time.Now()
	do[done](t, d, "resume_control", nil)
	tbtest.Eventually(t, "the change arrives", shared)
	t.Logf("resumed in %v", time.Since(start))
}

// A dial to a paused control server connects, and is answered after the pause.
func TestPausedControlQueuesDials(t *testing.T) {
	d := startDevnet(t, Config{})
	do[done](t, d, "pause_control", nil)
	conn, err := net.Dial("tcp", net.JoinHostPort(loopbackIP, port(d.Info().ControlPort)))
	if err != nil {
		t.Fatalf("dialling the paused control server: %v", err)
	}
	conn.Close()
	answered := make(chan error, 1)
	go func() {
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := (&http.Client{Transport: tr}).Get(d.Info().ControlURL + "/key?v=1")
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered while paused (error %v), want to be queued", err)
	case <-time.After(50 * time.Millisecond): // no condition to wait for: nothing may happen
	}
	do[done](t, d, "resume_control", nil)
	if err := tbtest.Receive(t, "the answer after the pause", answered); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

// A node that starts while control is paused joins when it is resumed.
func TestJoinOverAPause(t *testing.T) {
	d := startDevnet(t, Config{})
	do[done](t, d, "pause_control", nil)
	n := newNode(t, d, "node", addKey(t, d, "tag:ci"))
	if _, err := n.tryUp(t, 100*time.Millisecond); err == nil {
		t.Fatal("joined while control was paused")
	}
	do[done](t, d, "resume_control", nil)
	n.up(t)
}

// Nodes whose connections to control were closed during a pause reconnect after it.
func TestDropControl(t *testing.T) {
	d, server, client := twoNodes(t, Config{})
	do[done](t, d, "pause_control", nil)
	if closed := do[struct{ Closed int }](t, d, "drop_control", nil).Closed; closed < 2 {
		t.Errorf("%d connections closed, want those of both nodes", closed)
	}
	tbtest.Eventually(t, "both nodes are offline", func() bool {
		return !nodeInfo(t, d, "server").Online && !nodeInfo(t, d, "client").Online
	})
	do[done](t, d, "resume_control", nil)
	tbtest.Eventually(t, "both nodes are back", func() bool {
		return nodeInfo(t, d, "server").Online && nodeInfo(t, d, "client").Online
	})
	do[done](t, d, "share_node", map[string]any{"node": "client", "shared": true})
	v4, _ := client.TailscaleIPs()
	tbtest.Eventually(t, "changes arrive again", func() bool {
		who, err := server.whois(t, v4)
		return err == nil && who.Node.Hostinfo.ShareeNode()
	})
}

// An ephemeral node is not removed during a pause of control in which its connection was
// closed.
func TestEphemeralSurvivesPause(t *testing.T) {
	d, _, _ := twoNodes(t, Config{EphemeralGraceS: 0.05})
	join(t, d, "brief", "tag:ci", map[string]any{"ephemeral": true})
	tbtest.Eventually(t, "it is online", func() bool { return nodeInfo(t, d, "brief").Online })
	do[done](t, d, "pause_control", nil)
	do[map[string]int](t, d, "drop_control", nil)
	tbtest.Eventually(t, "it is offline", func() bool { return !nodeInfo(t, d, "brief").Online })
	<-time.After(200 * time.Millisecond) // four times the grace period, in which the node must stay
	if nodeInfo(t, d, "brief") == nil {
		t.Fatal("removed during the pause")
	}
}

// While DERP is paused, the relay does not answer and nodes communicate on the direct path.
// Requests are answered after the pause.
func TestPauseDERP(t *testing.T) {
	d, _, client := twoNodes(t, Config{})
	do[done](t, d, "pause_derp", nil)
	answered := make(chan error, 1)
	go func() { answered <- probeDERP(t, d) }()
	if _, err := client.get(t, "server.dev.tailnet.test", tbtest.Limit); err != nil {
		t.Errorf("while DERP is paused, on the direct path: %v", err)
	}
	select {
	case err := <-answered:
		t.Fatalf("the paused relay answered (error %v), want to be queued", err)
	case <-time.After(50 * time.Millisecond): // nothing may happen
	}
	do[done](t, d, "resume_derp", nil)
	if err := tbtest.Receive(t, "the answer after the pause", answered); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

// probeDERP probes the relay as nodes do, with the certificate of the DERP map.
func probeDERP(t *testing.T, d *Devnet) error {
	ctx, cancel := context.WithTimeout(t.Context(), tbtest.Limit)
	defer cancel()
	cfg := &tls.Config{ServerName: loopbackIP}
	node := d.derpMap.Regions[derpRegion].Nodes[0]
	tlsdial.SetConfigExpectedCertHash(cfg, strings.TrimPrefix(node.CertName, "sha256-raw:"))
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	url := "https://" + net.JoinHostPort(node.IPv4, port(node.DERPPort)) + "/derp/probe"
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// Nodes whose relay connections were closed reconnect.
func TestDropDERP(t *testing.T) {
	d, _, _ := twoNodes(t, Config{})
	if closed := do[struct{ Closed int }](t, d, "drop_derp", nil).Closed; closed < 2 {
		t.Errorf("%d connections closed, want those of both nodes", closed)
	}
	tbtest.Eventually(t, "both nodes are connected again", func() bool {
		d.derpGate.mu.Lock()
		defer d.derpGate.mu.Unlock()
		return len(d.derpGate.conns) >= 2
	})
}
