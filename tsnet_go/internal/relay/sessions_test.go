package relay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// The set accepts as many sessions as allowed, in all and of one source; a place that
// is given back can be taken again.
func TestSessionsLimits(t *testing.T) {
	a, b := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	sessions := NewSessions(3, 2)
	first := &Session{Source: a}
	for _, tt := range []struct {
		session *Session
		want    bool
	}{
		{first, true}, {&Session{Source: a}, true}, {&Session{Source: a}, false},
		{&Session{Source: b}, true}, {&Session{Source: b}, false},
	} {
		if full := sessions.IsFull(tt.session.Source); full == tt.want {
			t.Errorf("IsFull(%v) = %v with %d open", tt.session.Source, full, sessions.Len())
		}
		if got := sessions.Add(tt.session); got != tt.want {
			t.Errorf("Add of a session from %v = %v with %d open", tt.session.Source, got, sessions.Len())
		}
	}
	sessions.Remove(first)
	sessions.Remove(first) // does nothing
	if n := sessions.Len(); n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
	if !sessions.Add(&Session{Source: b}) {
		t.Error("the place was not given back")
	}
	for _, s := range sessions.all() {
		sessions.Remove(s)
	}
	sessions.Close(0, func() {})
	if sessions.Add(first) {
		t.Error("a closed set accepted a session")
	}
	if n := OpenSessions(); n != 0 {
		t.Errorf("%d sessions are counted as open", n)
	}
}

// Close waits for a session that ends by itself, and aborts one that does not.
func TestSessionsClose(t *testing.T) {
	for name, drain := range map[string]time.Duration{"drains": tbtest.Limit, "aborts": 0} {
		t.Run(name, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			s := startSession(t)
			sessions := NewSessions(1, 0)
			sessions.Add(s.Session)
			go func() { <-s.ended; sessions.Remove(s.Session) }()
			if drain > 0 {
				go func() { s.peer.Close(); s.server.Close() }()
			}
			canceled := false
			sessions.Close(drain, func() { canceled = true })
			if n := sessions.Len(); n != 0 || !canceled {
				t.Errorf("%d sessions are left, canceled %v", n, canceled)
			}
		})
	}
}
