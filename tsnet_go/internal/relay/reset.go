package main

import (
	"net"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// gonet's connections can close, which ends them with a FIN: to the peer that is
// the regular end of what it gets. To say instead that something is missing takes a
// reset, which only the endpoint inside can send, and gonet keeps that private.
// gvisor's version is pinned by tailscale's; where the field is not the one we
// know, a reset becomes a close. A test tells.

// endpointField is where a gonet.TCPConn has its endpoint.
var endpointField, endpointKnown = func() (uintptr, bool) {
	field, ok := reflect.TypeFor[gonet.TCPConn]().FieldByName("ep")
	return field.Offset, ok && field.Type == reflect.TypeFor[tcpip.Endpoint]()
}()

func endpointOf(conn net.Conn) (tcpip.Endpoint, bool) {
	c, ok := conn.(*gonet.TCPConn)
	if !ok || c == nil || !endpointKnown {
		return nil, false
	}
	return *(*tcpip.Endpoint)(unsafe.Add(unsafe.Pointer(c), endpointField)), true
}

// reset ends a connection with a RST, on the tailnet or on loopback. A Unix socket
// has none: there it is a close.
func reset(conn net.Conn) {
	if endpoint, ok := endpointOf(conn); ok {
		endpoint.Abort()
	}
	if tcpConn, ok := conn.(*net.TCPConn); ok {
		_ = tcpConn.SetLinger(0) // fails on a closed connection only
	}
	conn.Close()
}

// delivered reports whether the peer has confirmed all that was sent to it, with the
// end of it.
func delivered(conn net.Conn) bool {
	endpoint, ok := endpointOf(conn)
	if !ok {
		return true
	}
	switch tcp.EndpointState(endpoint.State()) {
	case tcp.StateFinWait2, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	default:
		return false
	}
}
