package devnet

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// A handler that panics answers 500, is logged, and does not delay Stop.
func TestGuardedHandler(t *testing.T) {
	var logged string
	d, err := newDevnet(Config{Logf: func(format string, args ...any) { logged = fmt.Sprintf(format, args...) }})
	if err != nil {
		t.Fatal(err)
	}
	h := d.guarded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken") }))
	req, err := http.NewRequestWithContext(context.Background(), "GET", "http://control/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{header: http.Header{}}
	h.ServeHTTP(a, req)
	if a.status != http.StatusInternalServerError || strings.Contains(string(a.body), "broken") {
		t.Errorf("answered %d %s, want 500 without the reason", a.status, a.body)
	}
	if !strings.Contains(logged, "panic in /x: broken") {
		t.Errorf("logged %q, want the panic", logged)
	}
	closeAndWait(t, d)
	a = &answer{header: http.Header{}}
	h.ServeHTTP(a, req)
	if a.status != http.StatusServiceUnavailable {
		t.Errorf("after the stop %d, want 503", a.status)
	}
}

// A panic in a goroutine is logged. After the stop no goroutine starts.
func TestGuardedGoroutine(t *testing.T) {
	logged := make(chan string, 1)
	d, err := newDevnet(Config{Logf: func(format string, args ...any) { logged <- fmt.Sprintf(format, args...) }})
	if err != nil {
		t.Fatal(err)
	}
	d.goGuarded("testing", func() { panic("broken") })
	if got := tbtest.Receive(t, "the panic is logged", logged); !strings.Contains(got, "panic in testing: broken") {
		t.Errorf("logged %q, want the panic", got)
	}
	closeAndWait(t, d)
	ran := make(chan struct{})
	d.goGuarded("testing", func() { close(ran) })
	select {
	case <-ran:
		t.Error("a goroutine started after the stop")
	case <-time.After(20 * time.Millisecond): // nothing may happen
	}
}

// A panic in a command is an internal error without details.
func TestGuardedCommand(t *testing.T) {
	logged := make(chan string, 1)
	d, err := newDevnet(Config{Logf: func(format string, args ...any) { logged <- fmt.Sprintf(format, args...) }})
	if err != nil {
		t.Fatal(err)
	}
	// Without openState there is no registry: listing the nodes panics.
	if e := doFails(t, d, "nodes", nil); e.Code != CodeInternal || e.Op != "nodes" || e.Message != "internal error" {
		t.Errorf("error %+v, want an internal one", e)
	}
	if got := tbtest.Receive(t, "the panic is logged", logged); !strings.Contains(got, "panic in command nodes") {
		t.Errorf("logged %q, want the panic", got)
	}
}

func closeAndWait(t *testing.T, d *Devnet) {
	t.Helper()
	ended := make(chan struct{})
	go func() { defer close(ended); d.inflight.closeAndWait() }()
	tbtest.Receive(t, "the calls in flight end", ended)
}
