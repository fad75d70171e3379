package devnet

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

func port(p int) string { return strconv.Itoa(p) }

// Stop leaves no goroutine and no descriptor behind, even with connected nodes and while
// control is paused.
func TestStopLeavesNothing(t *testing.T) {
	for name, fault := range map[string]string{"running": "info", "control paused": "pause_control", "DERP paused": "pause_derp"} {
		t.Run(name, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			d, err := Start(t.Context(), Config{StateDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			server := newNode(t, d, "server", addKey(t, d, "tag:server"))
			server.up(t)
			do[map[string]any](t, d, fault, nil)
			start := time.Now()
			stopDevnet(t, d)
			t.Logf("stopped in %v", time.Since(start))
			server.close(t)
		})
	}
}

// Stop may be called repeatedly and concurrently. After it, commands fail.
func TestStopTwice(t *testing.T) {
	d := startDevnet(t, Config{})
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- d.Stop(context.Background()) }()
	}
	for range cap(errs) {
		if err := tbtest.Receive(t, "Stop returns", errs); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if got := doFails(t, d, "nodes", nil).Code; got != CodeClosed {
		t.Errorf("a command after Stop: %v, want %v", got, CodeClosed)
	}
}

// Stop returns when its context ends, continues in the background, and can be called
// again.
func TestStopIsBounded(t *testing.T) {
	d := startDevnet(t, Config{})
	if !d.inflight.begin() { // a request that does not end
		t.Fatal("stopped before Stop")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var e *Error
	if err := d.Stop(ctx); !errors.As(err, &e) || e.Code != CodeTimeout {
		t.Errorf("stop: %v, want %v", err, CodeTimeout)
	}
	d.inflight.end()
	stopDevnet(t, d)
}

// A failed start leaks nothing.
func TestFailedStartLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp4", loopbackIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	used := taken.Addr().(*net.TCPAddr).Port
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for name, tt := range map[string]struct {
		cfg  Config
		code Code
		text string
	}{
		"control port":  {Config{ControlPort: used}, CodeAddressInUse, "port " + port(used) + " for control is in use"},
		"DERP port":     {Config{DERPPort: used}, CodeAddressInUse, "port " + port(used) + " for DERP is in use"},
		"STUN port":     {Config{STUNPort: udp.LocalAddr().(*net.UDPAddr).Port}, CodeAddressInUse, "port " + port(udp.LocalAddr().(*net.UDPAddr).Port) + " for STUN is in use"},
		"port range":    {Config{STUNPort: 65536}, CodeBadCommand, "stun_port 65536: allowed are 0 to 65535"},
		"domain":        {Config{Domain: "no domain"}, CodeBadCommand, `domain "no domain" is not a DNS name of at most 180 characters`},
		"grace":         {Config{EphemeralGraceS: -1}, CodeBadCommand, "ephemeral_grace_s -1: allowed are 0 to 86400"},
		"state is file": {Config{StateDir: "/dev/null/x"}, CodeStateUnreadable, "making the state directory: mkdir /dev/null: not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			d, err := Start(t.Context(), tt.cfg)
			if err == nil {
				stopDevnet(t, d)
			}
			var e *Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Message != tt.text {
				t.Errorf("start: %v, want %v: %s", err, tt.code, tt.text)
			}
		})
	}
}
