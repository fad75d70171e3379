// Package main is libtsnet: Tailscale's tsnet as a C shared library for the
// tailbone Python package.
//
// This file is the C interface and nothing else: decode, guard, call, encode.
// Every function returns 0 or -1 and, through out, a string that tb_free frees:
// the result, or {"code","op","message"}. No panic leaves it.
package main

// #include <stdint.h>
// #include <stdlib.h>
import "C"

import (
	"context"
	"encoding/json"
	"runtime"
	"time"
	"unsafe"

	"tailscale.com/version"

	"github.com/tailbone/tailbone/tsnet_go/devnet"
)

func main() {}

// buildVersion is set by the linker to the version of the Python package.
var buildVersion = "unknown"

// guard runs one call: its result or its error goes to out, a panic becomes an error.
func guard(op string, out **C.char, call func() ([]byte, error)) (code C.int32_t) {
	defer func() {
		if r := recover(); r != nil {
			code = give(out, panicError(op, r).encode(), -1)
		}
	}()
	result, err := call()
	if err != nil {
		return give(out, asError(op, err).encode(), -1)
	}
	return give(out, result, 0)
}

func give(out **C.char, text []byte, code C.int32_t) C.int32_t {
	p := C.malloc(C.size_t(len(text) + 1))
	copied := unsafe.Slice((*byte)(p), len(text)+1)
	copy(copied, text)
	copied[len(text)] = 0
	*out = (*C.char)(p)
	return code
}

func decode[T any](op string, config *C.char) (T, error) {
	var value T
	if err := json.Unmarshal([]byte(C.GoString(config)), &value); err != nil {
		return value, errorf(codeBadArgument, op, "the configuration is no JSON of the right form: %v", err)
	}
	return value, nil
}

func milliseconds(ms C.int64_t) time.Duration { return time.Duration(ms) * time.Millisecond }

var nothing = []byte("{}")

//export tb_free
func tb_free(p *C.char) { C.free(unsafe.Pointer(p)) }

//export tb_version
func tb_version(out **C.char) C.int32_t {
	return guard("version", out, func() ([]byte, error) {
		return json.Marshal(map[string]string{
			"go": runtime.Version(), "tailscale": version.Short(), "tailbone": buildVersion,
		})
	})
}

//export tb_stats
func tb_stats(out **C.char) C.int32_t {
	return guard("stats", out, func() ([]byte, error) { return json.Marshal(stats()) })
}

// tb_max_procs sets how many threads may run Go code at once; 0 only asks.
//
//export tb_max_procs
func tb_max_procs(count C.int32_t, out **C.char) C.int32_t {
	return guard("max procs", out, func() ([]byte, error) { return json.Marshal(runtime.GOMAXPROCS(int(count))) })
}

//export tb_node_new
func tb_node_new(config *C.char, eventsFD C.int32_t, handle *C.int64_t, out **C.char) C.int32_t {
	return guard("node new", out, func() ([]byte, error) {
		settings, err := decode[NodeConfig]("node new", config)
		if err != nil {
			return nil, err
		}
		node, err := newNode(settings, int(eventsFD))
		if err != nil {
			return nil, err
		}
		*handle = C.int64_t(registry.add(node))
		return json.Marshal(map[string]any{"peer_prefix": peerPrefix, "switched_off": node.switchedOff})
	})
}

//export tb_node_up
func tb_node_up(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return guard("up", out, func() ([]byte, error) {
		n, err := lookup[*Node]("up", int64(node))
		if err != nil {
			return nil, err
		}
		status, err := n.up(milliseconds(timeoutMS))
		if err != nil {
			return nil, err
		}
		return json.Marshal(status)
	})
}

//export tb_node_cancel
func tb_node_cancel(node C.int64_t, out **C.char) C.int32_t {
	return guard("cancel", out, func() ([]byte, error) {
		n, err := lookup[*Node]("cancel", int64(node))
		if err != nil {
			return nil, err
		}
		n.cancel()
		return nothing, nil
	})
}

//export tb_node_status
func tb_node_status(node C.int64_t, out **C.char) C.int32_t {
	return guard("status", out, func() ([]byte, error) {
		n, err := lookup[*Node]("status", int64(node))
		if err != nil {
			return nil, err
		}
		status, err := n.status()
		if err != nil {
			return nil, err
		}
		return json.Marshal(status)
	})
}

//export tb_node_close
func tb_node_close(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return guard("close", out, func() ([]byte, error) {
		n, err := lookup[*Node]("close", int64(node))
		if err != nil {
			return nil, err
		}
		defer func() {
			registry.remove(int64(node))
			registry.removeParts(n)
		}()
		return nothing, n.close(milliseconds(timeoutMS))
	})
}

//export tb_listen
func tb_listen(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return guard("listen", out, func() ([]byte, error) {
		n, err := lookup[*Node]("listen", int64(node))
		if err != nil {
			return nil, err
		}
		settings, err := decode[ListenConfig]("listen", config)
		if err != nil {
			return nil, err
		}
		listener, err := n.listen(settings)
		if err != nil {
			return nil, err
		}
		*handle = C.int64_t(registry.add(listener))
		return nothing, nil
	})
}

//export tb_forward
func tb_forward(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return guard("forward", out, func() ([]byte, error) {
		n, err := lookup[*Node]("forward", int64(node))
		if err != nil {
			return nil, err
		}
		settings, err := decode[ForwardConfig]("forward", config)
		if err != nil {
			return nil, err
		}
		forward, err := n.forward(settings)
		if err != nil {
			return nil, err
		}
		*handle = C.int64_t(registry.add(forward))
		return json.Marshal(map[string]string{"local": forward.local()})
	})
}

// tb_listener_close closes a listener or a forward.
//
//export tb_listener_close
func tb_listener_close(listener, drainMS C.int64_t, out **C.char) C.int32_t {
	return guard("listener close", out, func() ([]byte, error) {
		part, err := lookup[closer]("listener close", int64(listener))
		if err != nil {
			return nil, err
		}
		defer registry.remove(int64(listener))
		part.close(milliseconds(drainMS))
		return nothing, nil
	})
}

//export tb_whois
func tb_whois(node C.int64_t, source, destination *C.char, out **C.char) C.int32_t {
	return guard("whois", out, func() ([]byte, error) {
		n, err := lookup[*Node]("whois", int64(node))
		if err != nil {
			return nil, err
		}
		return n.whois(C.GoString(source), C.GoString(destination))
	})
}

//export tb_devnet_start
func tb_devnet_start(config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return guard("devnet start", out, func() ([]byte, error) {
		settings, err := decode[devnet.Config]("devnet start", config)
		if err != nil {
			return nil, err
		}
		d, err := devnet.Start(context.Background(), settings)
		if err != nil {
			return nil, err
		}
		*handle = C.int64_t(registry.add(d))
		return json.Marshal(d.Info())
	})
}

//export tb_devnet_do
func tb_devnet_do(devnetHandle C.int64_t, command *C.char, out **C.char) C.int32_t {
	return guard("devnet do", out, func() ([]byte, error) {
		d, err := lookup[*devnet.Devnet]("devnet do", int64(devnetHandle))
		if err != nil {
			return nil, err
		}
		return d.Do([]byte(C.GoString(command)))
	})
}

//export tb_devnet_stop
func tb_devnet_stop(devnetHandle, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return guard("devnet stop", out, func() ([]byte, error) {
		d, err := lookup[*devnet.Devnet]("devnet stop", int64(devnetHandle))
		if err != nil {
			return nil, err
		}
		defer registry.remove(int64(devnetHandle))
		ctx, cancel := context.WithTimeout(context.Background(), milliseconds(timeoutMS))
		defer cancel()
		return nothing, d.Stop(ctx)
	})
}
