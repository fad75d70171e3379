package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
	"github.com/tailbone/tailbone/tsnet_go/internal/tailnode"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// A panic in an exported function is an error like any other, whatever its value.
func TestProtectTurnsAPanicIntoAnError(t *testing.T) {
	var none map[string]int
	for _, fault := range []func(){
		func() { panic("injected") },
		func() { panic(errors.New("injected")) },
		func() { none["injected"] = 1 },
		func() { var n *tailnode.Node; n.Cancel() },
	} {
		answer, ok := protect("test", func() ([]byte, error) { fault(); return nil, nil })
		var got tberr.Error
		if err := json.Unmarshal(answer, &got); err != nil || ok || got.Code != tberr.Panic || got.Op != "test" || got.Message == "" {
			t.Errorf("%s, %v, %v", answer, ok, err)
		}
		handle, answer, ok := protectOpen("test", func() (int64, []byte, error) { fault(); return 7, nil, nil })
		if handle != 0 || ok {
			t.Errorf("got the handle %d with %s", handle, answer)
		}
	}
}

// Errors keep their codes, including the devnet's. Any other error is "internal".
func TestProtectKeepsTheCodes(t *testing.T) {
	_, closed := devnet.Start(t.Context(), devnet.Config{Domain: "not a name"})
	for want, err := range map[tberr.Code]error{
		tberr.Closed:                      tberr.Errorf(tberr.Closed, "test", "x"),
		tberr.Timeout:                     fmt.Errorf("wrapped: %w", tberr.Errorf(tberr.Timeout, "test", "x")),
		tberr.Internal:                    errors.New("any"),
		tberr.Code(devnet.CodeBadCommand): closed,
	} {
		answer, ok := protect("test", func() ([]byte, error) { return nil, err })
		var got tberr.Error
		if json.Unmarshal(answer, &got) != nil || ok || got.Code != want {
			t.Errorf("want %s, got %s", want, answer)
		}
	}
	answer, ok := protect("test", func() ([]byte, error) { return []byte("{}"), nil })
	if !ok || string(answer) != "{}" {
		t.Errorf("%s, %v", answer, ok)
	}
}
