package main

import (
	"log"
	"sync"
)

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

// Write passes a line to every open node: nothing tells whose it is.
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
