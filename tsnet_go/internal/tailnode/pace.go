package tailnode

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// paceBurst is how many bytes one source address may send at once before it is delayed.
const paceBurst = 128 << 10

// pace delays the bytes of each source address so that they arrive at a limited rate.
type pace struct {
	bytesPerSecond int // 0: no limit

	mu sync.Mutex
	// Kept for every source there has been, of which there are no more than peers:
	// else a source that reconnects would begin with a new burst.
	limiters map[netip.Addr]*rate.Limiter
}

func newPace(bytesPerSecond int) *pace {
	return &pace{bytesPerSecond: bytesPerSecond, limiters: make(map[netip.Addr]*rate.Limiter)}
}

// delay counts n bytes, at most paceBurst, from source, and returns how long they must
// wait.
func (p *pace) delay(now time.Time, source netip.Addr, n int) time.Duration {
	if p.bytesPerSecond == 0 {
		return 0
	}
	p.mu.Lock()
	limiter, ok := p.limiters[source]
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(p.bytesPerSecond), paceBurst)
		p.limiters[source] = limiter
	}
	p.mu.Unlock()
	return limiter.ReserveN(now, n).DelayFrom(now)
}

// wait counts n bytes from source and waits accordingly. It reports false if ctx ends
// first.
func (p *pace) wait(ctx context.Context, source netip.Addr, n int) bool {
	delay := p.delay(time.Now(), source, n)
	if delay == 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
