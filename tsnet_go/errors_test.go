package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

// A panic in an exported call is an error like any other, whatever was thrown.
func TestGuardedTurnsAPanicIntoAnError(t *testing.T) {
	var none map[string]int
	for _, fault := range []func(){
		func() { panic("injected") },
		func() { panic(errors.New("injected")) },
		func() { none["injected"] = 1 },
		func() { var n *Node; n.cancel() },
	} {
		answer, ok := guarded("test", func() ([]byte, error) { fault(); return nil, nil })
		var got Error
		if err := json.Unmarshal(answer, &got); err != nil || ok || got.Code != codePanic || got.Op != "test" || got.Message == "" {
			t.Errorf("%s, %v, %v", answer, ok, err)
		}
		handle, answer, ok := guardedOpen("test", func() (int64, []byte, error) { fault(); return 7, nil, nil })
		if handle != 0 || ok {
			t.Errorf("a handle %d came with %s", handle, answer)
		}
	}
}

// An error crosses with its code, the devnet's as well; any other is "internal".
func TestGuardedKeepsTheCodes(t *testing.T) {
	_, closed := devnet.Start(t.Context(), devnet.Config{Domain: "not a name"})
	for want, err := range map[string]error{
		codeClosed:                    errorf(codeClosed, "test", "x"),
		codeTimeout:                   fmt.Errorf("wrapped: %w", errorf(codeTimeout, "test", "x")),
		codeInternal:                  errors.New("any"),
		string(devnet.CodeBadCommand): closed,
	} {
		answer, ok := guarded("test", func() ([]byte, error) { return nil, err })
		var got Error
		if json.Unmarshal(answer, &got) != nil || ok || got.Code != want {
			t.Errorf("want %s, got %s", want, answer)
		}
	}
	answer, ok := guarded("test", func() ([]byte, error) { return []byte("{}"), nil })
	if !ok || string(answer) != "{}" {
		t.Errorf("%s, %v", answer, ok)
	}
}

// A panic in a goroutine of ours is told as an event, and the process goes on.
func TestRecoverGoroutine(t *testing.T) {
	checkNoLeaks(t)
	ev, read := newPipe(t, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer recoverGoroutine(ev)
		panic("injected")
	}()
	<-done
	ev.close()
	if got := readFile(t, read); !strings.Contains(got, `"type":"fault"`) || !strings.Contains(got, "injected") {
		t.Errorf("got %q", got)
	}
}
