// Package events sends what happens to a node through a pipe to Python, one JSON
// line per event.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tailbone/tailbone/tsnet_go/internal/redact"
)

// maxLine keeps a line below PIPE_BUF (4096 on Linux). Up to that size a write to a
// pipe is all or nothing; a longer line could get through in part.
const maxLine = 4096

// dropped counts the events that no pipe had room for.
var dropped atomic.Int64

// Dropped returns the number of events that were dropped in this process.
func Dropped() int64 { return dropped.Load() }

// Event is one event of a node.
type Event struct {
	Type      string   `json:"type"` // state, self, auth_url, control_unreachable, node_deleted, warning, fault, log
	Line      string   `json:"line,omitempty"`
	State     string   `json:"state,omitempty"`
	URL       string   `json:"url,omitempty"`
	DNSName   string   `json:"dns_name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// Pipe is the writing end of a node's event pipe. It never blocks: events that the
// pipe has no room for are dropped and counted.
type Pipe struct {
	verbose bool

	mu sync.Mutex
	fd int // -1 when closed
}

// Open returns a Pipe that writes to a duplicate of fd; the caller keeps its own. A
// negative fd gives a Pipe that discards everything. A verbose Pipe also
// sends what Logf and the standard logger write.
func Open(fd int, verbose bool) (*Pipe, error) {
	if fd < 0 {
		return &Pipe{fd: -1}, nil
	}
	// Not 0 to 2, even if a daemon has closed those: anything that writes to
	// standard output or standard error would write into the pipe.
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("the events descriptor: %w", err)
	}
	if err := unix.SetNonblock(duplicate, true); err != nil {
		unix.Close(duplicate)
		return nil, fmt.Errorf("the events descriptor: %w", err)
	}
	p := &Pipe{fd: duplicate, verbose: verbose}
	standardLog.add(p)
	return p, nil
}

// Close closes the pipe. It may be called more than once; later events are discarded.
func (p *Pipe) Close() {
	standardLog.remove(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// Send writes an event to the pipe.
func (p *Pipe) Send(ev Event) {
	line, ok := ev.encode()
	if !ok {
		dropped.Add(1)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return
	}
	// A reader that has gone raises SIGPIPE here too, but Go ignores the signal when
	// its own code wrote to a descriptor other than 1 and 2.
	_, err := unix.Write(p.fd, line)
	switch {
	case err == nil:
	case errors.Is(err, unix.EPIPE):
		dropped.Add(1)
		unix.Close(p.fd)
		p.fd = -1
	default:
		dropped.Add(1)
	}
}

// encode returns the event as one line, shortening Line until it fits. It reports
// false if the event does not fit at all.
func (ev Event) encode() ([]byte, bool) {
	for {
		b, err := json.Marshal(ev)
		if err != nil {
			return nil, false
		}
		if len(b) < maxLine {
			return append(b, '\n'), true
		}
		if ev.Line == "" {
			return nil, false
		}
		// Escapes can make a text six times as long, so its length alone says
		// nothing; halving it needs few rounds.
		ev.Line = strings.ToValidUTF8(ev.Line[:min(len(ev.Line)-1, len(ev.Line)/2, maxLine/2)], "")
	}
}

// Logf sends a line of tsnet's log if the Pipe is verbose.
func (p *Pipe) Logf(format string, args ...any) {
	if p.verbose {
		p.Send(Event{Type: "log", Line: redact.Text(strings.TrimRight(fmt.Sprintf(format, args...), "\n"))})
	}
}

// Warnf sends a warning for the operator, whether the Pipe is verbose or not.
func (p *Pipe) Warnf(format string, args ...any) {
	p.Send(Event{Type: "warning", Line: redact.Text(fmt.Sprintf(format, args...))})
}

// Recover recovers from a panic and sends it as an event. It must be deferred
// directly by each goroutine: an unrecovered panic ends the Python process.
func (p *Pipe) Recover() {
	if r := recover(); r != nil {
		p.ReportPanic(r)
	}
}

// ReportPanic sends a recovered panic, with as much of its stack as fits a line.
func (p *Pipe) ReportPanic(recovered any) {
	p.Send(Event{Type: "fault", Line: redact.Text(fmt.Sprintf("%v\n%s", recovered, debug.Stack()))})
}
