// Package main is libtsnet: Tailscale's tsnet as a C shared library for the
// tailbone Python package.
//
// This file is the C interface and nothing else: decode, guard, call, encode;
// calls.go is what each function does. Every function returns 0 or -1 and,
// through out, a string that tb_free frees: the result, or
// {"code","op","message"}. No panic leaves it.
package main

// #include <stdint.h>
// #include <stdlib.h>
import "C"

import "unsafe"

func main() {}

// answer runs a call and hands its answer to C.
func answer(op string, out **C.char, call func() ([]byte, error)) C.int32_t {
	text, ok := guarded(op, call)
	return give(out, text, ok)
}

// opened is answer for a call that also gives a handle.
func opened(op string, handle *C.int64_t, out **C.char, call func() (int64, []byte, error)) C.int32_t {
	number, text, ok := guardedOpen(op, call)
	*handle = C.int64_t(number)
	return give(out, text, ok)
}

func give(out **C.char, text []byte, ok bool) C.int32_t {
	p := C.malloc(C.size_t(len(text) + 1))
	copied := unsafe.Slice((*byte)(p), len(text)+1)
	copy(copied, text)
	copied[len(text)] = 0
	*out = (*C.char)(p)
	if !ok {
		return -1
	}
	return 0
}

//export tb_free
func tb_free(p *C.char) { C.free(unsafe.Pointer(p)) }

//export tb_version
func tb_version(out **C.char) C.int32_t { return answer("version", out, callVersion) }

//export tb_stats
func tb_stats(out **C.char) C.int32_t { return answer("stats", out, callStats) }

// tb_max_procs sets how many threads may run Go code at once; 0 only asks.
//
//export tb_max_procs
func tb_max_procs(count C.int32_t, out **C.char) C.int32_t {
	return answer("max procs", out, func() ([]byte, error) { return callMaxProcs(int(count)) })
}

//export tb_callers
func tb_callers(out **C.char) C.int32_t { return answer("callers", out, callCallers) }

//export tb_node_new
func tb_node_new(config *C.char, eventsFD C.int32_t, handle *C.int64_t, out **C.char) C.int32_t {
	return opened("node new", handle, out, func() (int64, []byte, error) {
		return callNodeNew(C.GoString(config), int(eventsFD))
	})
}

//export tb_node_up
func tb_node_up(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return answer("up", out, func() ([]byte, error) { return callNodeUp(int64(node), int64(timeoutMS)) })
}

//export tb_node_cancel
func tb_node_cancel(node C.int64_t, out **C.char) C.int32_t {
	return answer("cancel", out, func() ([]byte, error) { return callNodeCancel(int64(node)) })
}

//export tb_node_status
func tb_node_status(node C.int64_t, out **C.char) C.int32_t {
	return answer("status", out, func() ([]byte, error) { return callNodeStatus(int64(node)) })
}

//export tb_node_close
func tb_node_close(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return answer("close", out, func() ([]byte, error) { return callNodeClose(int64(node), int64(timeoutMS)) })
}

//export tb_listen
func tb_listen(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return opened("listen", handle, out, func() (int64, []byte, error) {
		return callListen(int64(node), C.GoString(config))
	})
}

//export tb_forward
func tb_forward(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return opened("forward", handle, out, func() (int64, []byte, error) {
		return callForward(int64(node), C.GoString(config))
	})
}

// tb_listener_close closes a listener or a forward.
//
//export tb_listener_close
func tb_listener_close(listener, drainMS C.int64_t, out **C.char) C.int32_t {
	return answer("listener close", out, func() ([]byte, error) {
		return callListenerClose(int64(listener), int64(drainMS))
	})
}

//export tb_whois
func tb_whois(node C.int64_t, source, destination *C.char, out **C.char) C.int32_t {
	return answer("whois", out, func() ([]byte, error) {
		return callWhois(int64(node), C.GoString(source), C.GoString(destination))
	})
}

//export tb_devnet_start
func tb_devnet_start(config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return opened("devnet start", handle, out, func() (int64, []byte, error) {
		return callDevnetStart(C.GoString(config))
	})
}

//export tb_devnet_do
func tb_devnet_do(devnet C.int64_t, command *C.char, out **C.char) C.int32_t {
	return answer("devnet do", out, func() ([]byte, error) {
		return callDevnetDo(int64(devnet), C.GoString(command))
	})
}

//export tb_devnet_stop
func tb_devnet_stop(devnet, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return answer("devnet stop", out, func() ([]byte, error) {
		return callDevnetStop(int64(devnet), int64(timeoutMS))
	})
}
