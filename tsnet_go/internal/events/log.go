package events

import (
	"log"
	"sync"
)

// logWriter receives what any package writes with the standard logger. By default
// that would go to descriptor 2, and if Python has closed it the write would end the
// process (SIGPIPE).
type logWriter struct {
	mu    sync.Mutex
	pipes map[*Pipe]struct{}
}

var standardLog = &logWriter{pipes: make(map[*Pipe]struct{})}

// CaptureStandardLog makes the standard logger write to the open pipes that are
// verbose, and nowhere else.
func CaptureStandardLog() {
	log.SetOutput(standardLog)
	log.SetFlags(0)
}

// Write sends a line to every open pipe: nothing says which node it belongs to.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range w.pipes {
		p.Logf("%s", line)
	}
	return len(line), nil
}

func (w *logWriter) add(p *Pipe) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pipes[p] = struct{}{}
}

func (w *logWriter) remove(p *Pipe) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pipes, p)
}
