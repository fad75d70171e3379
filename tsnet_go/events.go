package main

import (
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxEvent keeps a line below PIPE_BUF (4096 on Linux), where a write to a pipe
// is whole or not at all.
const maxEvent = 3500

// events is the writing end of a node's pipe to Python: one JSON line an event.
// It never blocks: what the pipe has no room for is dropped and counted.
type events struct {
	mu      sync.Mutex
	fd      int // -1 when closed
	verbose bool
}

type event struct {
	Type  string `json:"type"`
	Line  string `json:"line,omitempty"`
	State string `json:"state,omitempty"`
	URL   string `json:"url,omitempty"`
}

// newEvents takes a copy of fd; the caller keeps its own. A negative fd means
// that nobody listens.
func newEvents(fd int, verbose bool) (*events, error) {
	if fd < 0 {
		return &events{fd: -1}, nil
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
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
	if len(ev.Line) > maxEvent/2 {
		ev.Line = strings.ToValidUTF8(ev.Line[:maxEvent/2], "") + "…"
	}
	line, err := json.Marshal(ev)
	if err != nil {
		droppedEvents.Add(1)
		return
	}
	line = append(line, '\n')
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd < 0 {
		return
	}
	if n, err := unix.Write(e.fd, line); err != nil || n != len(line) || len(line) > maxEvent {
		droppedEvents.Add(1)
	}
}

func (e *events) logf(format string, args ...any) {
	if e.verbose {
		e.send(event{Type: "log", Line: redact(strings.TrimRight(fmt.Sprintf(format, args...), "\n"))})
	}
}

func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd >= 0 {
		unix.Close(e.fd)
		e.fd = -1
	}
}

// strayLog takes what any package writes with the standard logger. Left alone it
// would go to fd 2, where a write after Python closed it ends the process (SIGPIPE).
type strayLog struct {
	mu    sync.Mutex
	sinks map[*events]struct{}
}

var stray = &strayLog{sinks: make(map[*events]struct{})}

func init() {
	log.SetOutput(stray)
	log.SetFlags(0)
}

func (s *strayLog) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sink := range s.sinks {
		sink.logf("%s", line)
	}
	return len(line), nil
}

func (s *strayLog) add(sink *events) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinks[sink] = struct{}{}
}

func (s *strayLog) remove(sink *events) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sinks, sink)
}
