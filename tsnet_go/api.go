package main

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"tailscale.com/version"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tailnode"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
)

// This file is what each exported function does, in Go's types: it decodes the
// configuration, finds the handle, calls, and encodes the result.

// buildVersion is set by the linker to the version of the Python package.
var buildVersion = "unknown"

// noResult is the answer of a function without a result.
var noResult = []byte("{}")

func decode[T any](op, config string) (T, error) {
	var value T
	if err := json.Unmarshal([]byte(config), &value); err != nil {
		return value, tberr.Errorf(tberr.BadArgument, op, "invalid JSON configuration: %v", err)
	}
	return value, nil
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func versions() ([]byte, error) {
	return json.Marshal(map[string]string{
		"go": runtime.Version(), "tailscale": version.Short(), "tailbone": buildVersion,
	})
}

// statistics counts what is open, so that tests can check for leaks.
type statistics struct {
	Handles     int   `json:"handles"`
	Connections int64 `json:"connections"`
	Rejected    int64 `json:"rejected"`
	Dropped     int64 `json:"dropped_events"`
	Goroutines  int   `json:"goroutines"`
	MaxProcs    int   `json:"max_procs"`
}

func stats() ([]byte, error) {
	return json.Marshal(statistics{
		Handles:     registry.count(),
		Connections: relay.OpenSessions(),
		Rejected:    tailnode.Rejected(),
		Dropped:     events.Dropped(),
		Goroutines:  runtime.NumGoroutine(),
		MaxProcs:    runtime.GOMAXPROCS(0),
	})
}

func setMaxProcs(count int) ([]byte, error) { return json.Marshal(runtime.GOMAXPROCS(count)) }

// callerTable describes the table of callers to its reader.
func callerTable() ([]byte, error) {
	table, err := callers.Shared()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]uint64{
		"address": uint64(table.Address()), "count": callers.Count, "size": callers.Size,
	})
}

func newNode(config string, eventsFD int) (int64, []byte, error) {
	settings, err := decode[tailnode.Config]("node new", config)
	if err != nil {
		return 0, nil, err
	}
	node, err := tailnode.New(settings, eventsFD)
	if err != nil {
		return 0, nil, err
	}
	answer, err := json.Marshal(map[string]any{"peer_prefix": tailnode.PeerPrefix, "switched_off": node.Disabled()})
	return registry.add(node), answer, err
}

func nodeUp(handle, timeoutMS int64) ([]byte, error) {
	node, err := lookup[*tailnode.Node]("up", handle)
	if err != nil {
		return nil, err
	}
	status, err := node.Up(milliseconds(timeoutMS))
	if err != nil {
		return nil, err
	}
	return json.Marshal(status)
}

func nodeCancel(handle int64) ([]byte, error) {
	node, err := lookup[*tailnode.Node]("cancel", handle)
	if err != nil {
		return nil, err
	}
	node.Cancel()
	return noResult, nil
}

func nodeStatus(handle int64) ([]byte, error) {
	node, err := lookup[*tailnode.Node]("status", handle)
	if err != nil {
		return nil, err
	}
	status, err := node.Status()
	if err != nil {
		return nil, err
	}
	return json.Marshal(status)
}

func nodeClose(handle, timeoutMS int64) ([]byte, error) {
	return closeHandle("close", handle, func(node *tailnode.Node) error {
		defer registry.removeBridges(node)
		return node.Close(milliseconds(timeoutMS))
	})
}

func listen(handle int64, config string) (int64, []byte, error) {
	node, err := lookup[*tailnode.Node]("listen", handle)
	if err != nil {
		return 0, nil, err
	}
	settings, err := decode[tailnode.ListenConfig]("listen", config)
	if err != nil {
		return 0, nil, err
	}
	listener, err := node.Listen(settings)
	if err != nil {
		return 0, nil, err
	}
	bridge, err := registry.addBridge("listen", listener)
	return bridge, noResult, err
}

func forward(handle int64, config string) (int64, []byte, error) {
	node, err := lookup[*tailnode.Node]("forward", handle)
	if err != nil {
		return 0, nil, err
	}
	settings, err := decode[tailnode.ForwardConfig]("forward", config)
	if err != nil {
		return 0, nil, err
	}
	forward, err := node.Forward(settings)
	if err != nil {
		return 0, nil, err
	}
	answer, err := json.Marshal(map[string]string{"local": forward.Local()})
	if err != nil {
		return 0, nil, err
	}
	bridge, err := registry.addBridge("forward", forward)
	return bridge, answer, err
}

// bridgeClose closes a listener or a forward.
func bridgeClose(handle, drainMS int64) ([]byte, error) {
	return closeHandle("bridge close", handle, func(bridge tailnode.Bridge) error {
		bridge.Close(milliseconds(drainMS))
		return nil
	})
}

func whois(handle int64, source string) ([]byte, error) {
	node, err := lookup[*tailnode.Node]("whois", handle)
	if err != nil {
		return nil, err
	}
	return node.Whois(source)
}

func devnetStart(config string) (int64, []byte, error) {
	settings, err := decode[devnet.Config]("devnet start", config)
	if err != nil {
		return 0, nil, err
	}
	d, err := devnet.Start(context.Background(), settings)
	if err != nil {
		return 0, nil, err
	}
	answer, err := json.Marshal(d.Info())
	return registry.add(d), answer, err
}

func devnetDo(handle int64, command string) ([]byte, error) {
	d, err := lookup[*devnet.Devnet]("devnet do", handle)
	if err != nil {
		return nil, err
	}
	return d.Do([]byte(command))
}

func devnetStop(handle, timeoutMS int64) ([]byte, error) {
	return closeHandle("devnet stop", handle, func(d *devnet.Devnet) error {
		ctx, cancel := context.WithTimeout(context.Background(), milliseconds(timeoutMS))
		defer cancel()
		return d.Stop(ctx)
	})
}
