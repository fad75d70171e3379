package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"tailscale.com/tailcfg"
)

// maxEvent keeps a line below PIPE_BUF (4096 on Linux): up to there a write to a
// pipe is whole or not at all, beyond it half a line could get through.
const maxEvent = 4096

// events is the writing end of a node's pipe to Python: one JSON line an event.
// It never blocks: what the pipe has no room for is dropped and counted.
type events struct {
	verbose bool

	mu sync.Mutex
	fd int // -1 when closed
}

type event struct {
	Type      string   `json:"type"` // state, self, auth_url, control_unreachable, warning, fault, log
	Line      string   `json:"line,omitempty"`
	State     string   `json:"state,omitempty"`
	URL       string   `json:"url,omitempty"`
	DNSName   string   `json:"dns_name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// selfEvent tells how the node is reached, as the control server says now.
func selfEvent(self tailcfg.NodeView) event {
	ev := event{Type: "self", DNSName: strings.TrimSuffix(self.Name(), ".")}
	for _, prefix := range self.Addresses().All() {
		ev.Addresses = append(ev.Addresses, prefix.Addr().String())
	}
	return ev
}

// newEvents takes a copy of fd; the caller keeps its own. A negative fd means
// that nobody listens.
func newEvents(fd int, verbose bool) (*events, error) {
	if fd < 0 {
		return &events{fd: -1}, nil
	}
	// Not 0 to 2, even where a daemon has closed those: whatever writes to
	// standard output or standard error would write into the pipe.
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, errorf(codeBadArgument, "node new", "the events descriptor: %v", err)
	}
	if err := unix.SetNonblock(copied, true); err != nil {
		unix.Close(copied)
		return nil, errorf(codeBadArgument, "node new", "the events descriptor: %v", err)
	}
	return &events{fd: copied, verbose: verbose}, nil
}

func (e *events) send(ev event) {
	line, ok := ev.encode()
	if !ok {
		droppedEvents.Add(1)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd < 0 {
		return
	}
	// A reader that is gone raises SIGPIPE here as well, but not to the process's
	// harm: Go ignores the signal when its own code wrote, and not to fd 1 or 2.
	_, err := unix.Write(e.fd, line)
	switch {
	case err == nil:
	case errors.Is(err, unix.EPIPE):
		droppedEvents.Add(1)
		unix.Close(e.fd)
		e.fd = -1
	default:
		droppedEvents.Add(1)
	}
}

// encode makes one line of the event, shortened until it fits. It says no when
// it cannot be.
func (ev event) encode() ([]byte, bool) {
	for {
		b, err := json.Marshal(ev)
		if err != nil {
			return nil, false
		}
		if len(b) < maxEvent {
			return append(b, '\n'), true
		}
		if ev.Line == "" {
			return nil, false
		}
		// Escapes make a text up to six times as long, so its length alone says
		// nothing; halving ends soon.
		ev.Line = strings.ToValidUTF8(ev.Line[:min(len(ev.Line)-1, len(ev.Line)/2, maxEvent/2)], "")
	}
}

// logf takes tsnet's own log: Logf and UserLogf of its Server.
func (e *events) logf(format string, args ...any) {
	if e.verbose {
		e.send(event{Type: "log", Line: redact(strings.TrimRight(fmt.Sprintf(format, args...), "\n"))})
	}
}

// warnf tells what an operator has to know, whether tsnet's log is wanted or not.
func (e *events) warnf(format string, args ...any) {
	e.send(event{Type: "warning", Line: redact(fmt.Sprintf(format, args...))})
}

func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd >= 0 {
		unix.Close(e.fd)
		e.fd = -1
	}
}
