// Package main is libtsnet: Tailscale's tsnet as a C shared library for the
// tailbone Python package.
//
// This file is the C interface and nothing else: it converts C's types to Go's and
// back. api.go is what each function does. Every function returns 0 or -1 and sets out
// to a string that tb_free frees: the result, or {"code","op","message"}. No panic
// leaves it.
//
// Of the packages below internal, tailnode runs nodes and uses relay, which copies bytes;
// both report through events. callers is the table of callers in shared memory, tberr
// has the errors that reach Python, and redact removes auth keys from text. devnet is the
// private tailnet.
package main

// #include <stdint.h>
// #include <stdlib.h>
import "C"

import "unsafe"

func main() {}

// call runs a function and passes its answer to C.
func call(op string, out **C.char, f func() ([]byte, error)) C.int32_t {
	text, ok := protect(op, f)
	return setOut(out, text, ok)
}

// open is call for a function that also returns a handle.
func open(op string, handle *C.int64_t, out **C.char, f func() (int64, []byte, error)) C.int32_t {
	number, text, ok := protectOpen(op, f)
	*handle = C.int64_t(number)
	return setOut(out, text, ok)
}

// setOut copies text to memory of C, and returns the status of an exported function.
func setOut(out **C.char, text []byte, ok bool) C.int32_t {
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
func tb_version(out **C.char) C.int32_t { return call("version", out, versions) }

//export tb_stats
func tb_stats(out **C.char) C.int32_t { return call("stats", out, stats) }

// tb_max_procs sets how many threads may run Go code at once, and returns the previous
// number; 0 leaves it unchanged.
//
//export tb_max_procs
func tb_max_procs(count C.int32_t, out **C.char) C.int32_t {
	return call("max procs", out, func() ([]byte, error) { return setMaxProcs(int(count)) })
}

//export tb_callers
func tb_callers(out **C.char) C.int32_t { return call("callers", out, callerTable) }

//export tb_node_new
func tb_node_new(config *C.char, eventsFD C.int32_t, handle *C.int64_t, out **C.char) C.int32_t {
	return open("node new", handle, out, func() (int64, []byte, error) {
		return newNode(C.GoString(config), int(eventsFD))
	})
}

//export tb_node_up
func tb_node_up(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return call("up", out, func() ([]byte, error) { return nodeUp(int64(node), int64(timeoutMS)) })
}

//export tb_node_cancel
func tb_node_cancel(node C.int64_t, out **C.char) C.int32_t {
	return call("cancel", out, func() ([]byte, error) { return nodeCancel(int64(node)) })
}

//export tb_node_status
func tb_node_status(node C.int64_t, out **C.char) C.int32_t {
	return call("status", out, func() ([]byte, error) { return nodeStatus(int64(node)) })
}

//export tb_node_close
func tb_node_close(node, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return call("close", out, func() ([]byte, error) { return nodeClose(int64(node), int64(timeoutMS)) })
}

//export tb_listen
func tb_listen(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return open("listen", handle, out, func() (int64, []byte, error) {
		return listen(int64(node), C.GoString(config))
	})
}

//export tb_forward
func tb_forward(node C.int64_t, config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return open("forward", handle, out, func() (int64, []byte, error) {
		return forward(int64(node), C.GoString(config))
	})
}

// tb_bridge_close closes a listener or a forward.
//
//export tb_bridge_close
func tb_bridge_close(bridge, drainMS C.int64_t, out **C.char) C.int32_t {
	return call("bridge close", out, func() ([]byte, error) {
		return bridgeClose(int64(bridge), int64(drainMS))
	})
}

//export tb_whois
func tb_whois(node C.int64_t, source *C.char, out **C.char) C.int32_t {
	return call("whois", out, func() ([]byte, error) {
		return whois(int64(node), C.GoString(source))
	})
}

//export tb_devnet_start
func tb_devnet_start(config *C.char, handle *C.int64_t, out **C.char) C.int32_t {
	return open("devnet start", handle, out, func() (int64, []byte, error) {
		return devnetStart(C.GoString(config))
	})
}

//export tb_devnet_do
func tb_devnet_do(devnet C.int64_t, command *C.char, out **C.char) C.int32_t {
	return call("devnet do", out, func() ([]byte, error) {
		return devnetDo(int64(devnet), C.GoString(command))
	})
}

//export tb_devnet_stop
func tb_devnet_stop(devnet, timeoutMS C.int64_t, out **C.char) C.int32_t {
	return call("devnet stop", out, func() ([]byte, error) {
		return devnetStop(int64(devnet), int64(timeoutMS))
	})
}
