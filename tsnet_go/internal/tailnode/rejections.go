package tailnode

import (
	"sync"
	"sync/atomic"
	"time"
)

// rejectionInterval bounds how often a full listener is reported: under a flood, a line
// per connection would be a second flood.
const rejectionInterval = 10 * time.Second

// rejected counts the connections of all listeners and forwards that were reset
// because too many were open.
var rejected atomic.Int64

// Rejected returns the number of connections in this process that were reset because
// a listener or a forward was full.
func Rejected() int64 { return rejected.Load() }

// rejections counts the connections that a listener has reset and not yet reported.
type rejections struct {
	mu         sync.Mutex
	unreported int
	lastReport time.Time
}

// add counts one rejection and returns how many to report now; usually zero.
func (r *rejections) add(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreported++
	if !r.lastReport.IsZero() && now.Sub(r.lastReport) < rejectionInterval {
		return 0
	}
	count := r.unreported
	r.unreported, r.lastReport = 0, now
	return count
}
