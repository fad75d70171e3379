package tailnode

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// A source sends a burst without delay, then at the rate; other sources are not delayed.
func TestPaceDelaysEachSourceAlone(t *testing.T) {
	p, now := newPace(16<<10), time.Unix(1_795_518_230, 0)
	one, other := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	for sent := 0; sent < paceBurst; sent += 8 << 10 {
		if delay := p.delay(now, one, 8<<10); delay != 0 {
			t.Fatalf("delayed %v after %d bytes", delay, sent)
		}
	}
	for i, want := range []time.Duration{500 * time.Millisecond, time.Second} {
		if delay := p.delay(now, one, 8<<10); delay != want {
			t.Errorf("piece %d after the burst is delayed %v, want %v", i, delay, want)
		}
	}
	if delay := p.delay(now, other, 8<<10); delay != 0 {
		t.Errorf("the other source is delayed %v", delay)
	}
	if delay := p.delay(now.Add(time.Minute), one, 8<<10); delay != 0 {
		t.Errorf("a minute later it is still delayed %v", delay)
	}
}

// A rate of 0 delays nothing.
func TestPaceWithoutLimit(t *testing.T) {
	p := newPace(0)
	for range 1000 {
		if delay := p.delay(time.Now(), netip.Addr{}, 8<<10); delay != 0 {
			t.Fatalf("delayed %v", delay)
		}
	}
}

// A wait ends with the listener.
func TestPaceWaitEndsWithContext(t *testing.T) {
	p := newPace(1)
	p.delay(time.Now(), netip.Addr{}, paceBurst)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if tbtest.Within(t, "wait", func() bool { return p.wait(ctx, netip.Addr{}, 8<<10) }) {
		t.Error("it reports that the bytes may be handed on")
	}
}
