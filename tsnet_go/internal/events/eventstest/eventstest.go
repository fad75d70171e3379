// Package eventstest reads event pipes in tests, as Python does.
package eventstest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// Log collects the events of one pipe.
type Log struct {
	mu     sync.Mutex
	events []events.Event
}

// New returns a Log and the descriptor that its events are written to. The caller must
// close the descriptor; at its end the test waits until every duplicate is closed too.
func New(t testing.TB) (*Log, int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	log := &Log{}
	read := os.NewFile(uintptr(fds[0]), "events")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		decoder := json.NewDecoder(read)
		for {
			var ev events.Event
			if err := decoder.Decode(&ev); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("reading the event pipe: %v", err)
				}
				return
			}
			log.mu.Lock()
			log.events = append(log.events, ev)
			log.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		tbtest.Receive(t, "the event pipe is closed", ended)
		read.Close()
	})
	return log, fds[1]
}

// Open returns a Log and a Pipe that writes to it and is closed at the test's end.
func Open(t testing.TB) (*Log, *events.Pipe) {
	t.Helper()
	log, fd := New(t)
	defer unix.Close(fd)
	pipe, err := events.Open(fd, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pipe.Close)
	return log, pipe
}

// All returns the events so far.
func (l *Log) All() []events.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Has reports whether any event so far matches.
func (l *Log) Has(match func(events.Event) bool) bool {
	return slices.ContainsFunc(l.All(), match)
}

// HasType reports whether any event so far has this type.
func (l *Log) HasType(kind string) bool {
	return l.Has(func(ev events.Event) bool { return ev.Type == kind })
}
