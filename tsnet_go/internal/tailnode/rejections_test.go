package main

import (
	"testing"
	"time"
)

// Rejections are told of at once, then at most once in ten seconds, and none is left out.
func TestRejectionsAreToldNowAndThen(t *testing.T) {
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
			t.Errorf("%v after the first: %d are told of, want %d", step.after, got, step.want)
		}
	}
}

// A full listener warns who it is, and how many connections it takes.
func TestFullListenerWarns(t *testing.T) {
	checkNoLeaks(t)
	ev, read := newPipe(t, false)
	l := &Listener{node: &Node{events: ev}, config: ListenConfig{Name: "issuer", MaxConnections: 300}, conns: connections{share: 75}}
	l.rejected()
	l.rejected()
	ev.close()
	want := `{"type":"warning","line":"the listener issuer is full (300 connections at a time, 75 of one address): ` +
		`1 more were reset since this was last reported"}` + "\n"
	if got := readFile(t, read); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
