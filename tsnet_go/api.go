package main

import (
	"context"
	"encoding/json"
	"runtime"
	"time"

	"tailscale.com/version"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// What each exported function does, on Go values: exports.go adds the C types,
// tests need none.

// buildVersion is set by the linker to the version of the Python package.
var buildVersion = "unknown"

// nothing is the answer of a call that has none.
var nothing = []byte("{}")

func decode[T any](op, config string) (T, error) {
	var value T
	if err := json.Unmarshal([]byte(config), &value); err != nil {
		return value, errorf(codeBadArgument, op, "the configuration is no JSON of the right form: %v", err)
	}
	return value, nil
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func callVersion() ([]byte, error) {
	return json.Marshal(map[string]string{
		"go": runtime.Version(), "tailscale": version.Short(), "tailbone": buildVersion,
	})
}

func callStats() ([]byte, error) { return json.Marshal(stats()) }

func callMaxProcs(count int) ([]byte, error) { return json.Marshal(runtime.GOMAXPROCS(count)) }

// callCallers describes the table of callers to its reader.
func callCallers() ([]byte, error) {
	table, err := callerTable()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]uint64{
		"address": uint64(table.Address()), "count": callers.Count, "size": callers.Size,
	})
}

func callNodeNew(config string, eventsFD int) (int64, []byte, error) {
	settings, err := decode[NodeConfig]("node new", config)
	if err != nil {
		return 0, nil, err
	}
	node, err := newNode(settings, eventsFD)
	if err != nil {
		return 0, nil, err
	}
	answer, err := json.Marshal(map[string]any{"peer_prefix": peerPrefix, "switched_off": node.switchedOff})
	return registry.add(node), answer, err
}

func callNodeUp(handle, timeoutMS int64) ([]byte, error) {
	node, err := lookup[*Node]("up", handle)
	if err != nil {
		return nil, err
	}
	status, err := node.up(milliseconds(timeoutMS))
	if err != nil {
		return nil, err
	}
	return json.Marshal(status)
}

func callNodeCancel(handle int64) ([]byte, error) {
	node, err := lookup[*Node]("cancel", handle)
	if err != nil {
		return nil, err
	}
	node.cancel()
	return nothing, nil
}

func callNodeStatus(handle int64) ([]byte, error) {
	node, err := lookup[*Node]("status", handle)
	if err != nil {
		return nil, err
	}
	status, err := node.status()
	if err != nil {
		return nil, err
	}
	return json.Marshal(status)
}

func callNodeClose(handle, timeoutMS int64) ([]byte, error) {
	return closing("close", handle, func(node *Node) error {
		defer registry.removeParts(node)
		return node.close(milliseconds(timeoutMS))
	})
}

func callListen(handle int64, config string) (int64, []byte, error) {
	node, err := lookup[*Node]("listen", handle)
	if err != nil {
		return 0, nil, err
	}
	settings, err := decode[ListenConfig]("listen", config)
	if err != nil {
		return 0, nil, err
	}
	listener, err := node.listen(settings)
	if err != nil {
		return 0, nil, err
	}
	part, err := registry.addPart("listen", listener)
	return part, nothing, err
}

func callForward(handle int64, config string) (int64, []byte, error) {
	node, err := lookup[*Node]("forward", handle)
	if err != nil {
		return 0, nil, err
	}
	settings, err := decode[ForwardConfig]("forward", config)
	if err != nil {
		return 0, nil, err
	}
	forward, err := node.forward(settings)
	if err != nil {
		return 0, nil, err
	}
	answer, err := json.Marshal(map[string]string{"local": forward.local()})
	if err != nil {
		return 0, nil, err
	}
	part, err := registry.addPart("forward", forward)
	return part, answer, err
}

// callListenerClose closes a listener or a forward.
func callListenerClose(handle, drainMS int64) ([]byte, error) {
	return closing("listener close", handle, func(part closer) error {
		part.close(milliseconds(drainMS))
		return nil
	})
}

func callWhois(handle int64, source, destination string) ([]byte, error) {
	node, err := lookup[*Node]("whois", handle)
	if err != nil {
		return nil, err
	}
	return node.whois(source, destination)
}

func callDevnetStart(config string) (int64, []byte, error) {
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

func callDevnetDo(handle int64, command string) ([]byte, error) {
	d, err := lookup[*devnet.Devnet]("devnet do", handle)
	if err != nil {
		return nil, err
	}
	return d.Do([]byte(command))
}

func callDevnetStop(handle, timeoutMS int64) ([]byte, error) {
	return closing("devnet stop", handle, func(d *devnet.Devnet) error {
		ctx, cancel := context.WithTimeout(context.Background(), milliseconds(timeoutMS))
		defer cancel()
		return d.Stop(ctx)
	})
}
