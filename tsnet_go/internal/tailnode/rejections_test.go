package tailnode

import (
	"reflect"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/events/eventstest"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// Rejections are reported at once, then at most every ten seconds, and none is left out.
func TestRejectionsAreReportedNowAndThen(t *testing.T) {
	var r rejections
	start := time.Unix(1795518230, 0)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{
		{0, 1},
		{time.Second, 0},
		{10*time.Second - 1, 0},
		{10 * time.Second, 3},
		{11 * time.Second, 0},
		{time.Minute, 2},
	} {
		if got := r.add(start.Add(step.after)); got != step.want {
			t.Errorf("%v after the first: %d are reported, want %d", step.after, got, step.want)
		}
	}
}

// A full listener's warning has its name and its limits.
func TestFullListenerWarns(t *testing.T) {
	checkNoLeaks(t)
	log, pipe := eventstest.Open(t)
	l := &Listener{node: &Node{events: pipe}, config: ListenConfig{Name: "issuer", MaxConnections: 300}, perSource: 75}
	l.reportRejection()
	l.reportRejection()
	want := []events.Event{{Type: "warning", Line: "the listener issuer is full (300 connections at a time, 75 per address): " +
		"1 more were reset since the last report"}}
	pipe.Close()
	tbtest.Eventually(t, "the warning arrives", func() bool { return len(log.All()) > 0 })
	if got := log.All(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
