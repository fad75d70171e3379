package relay

import (
	"net"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Closing a gonet connection ends it with a FIN, which tells the peer that it has
// received everything. Telling it that something is missing takes a RST, which only
// the endpoint inside can send, and gonet does not export it. tailscale pins gvisor's
// version; if the field has changed, Reset only closes, and a test fails.

// endpointOffset is where a gonet.TCPConn has its endpoint.
var endpointOffset, endpointFound = func() (uintptr, bool) {
	field, ok := reflect.TypeFor[gonet.TCPConn]().FieldByName("ep")
	return field.Offset, ok && field.Type == reflect.TypeFor[tcpip.Endpoint]()
}()

func endpointOf(conn net.Conn) (tcpip.Endpoint, bool) {
	c, ok := conn.(*gonet.TCPConn)
	if !ok || c == nil || !endpointFound {
		return nil, false
	}
	return *(*tcpip.Endpoint)(unsafe.Add(unsafe.Pointer(c), endpointOffset)), true
}

// Reset closes a connection on the tailnet or on loopback with a RST. A Unix socket
// has no reset and is closed.
func Reset(conn net.Conn) {
	if endpoint, ok := endpointOf(conn); ok {
		endpoint.Abort()
	}
	if tcpConn, ok := conn.(*net.TCPConn); ok {
		_ = tcpConn.SetLinger(0) // fails on a closed connection only
	}
	conn.Close()
}

// acknowledged reports whether the peer has acknowledged everything that was sent to
// it, including the FIN.
func acknowledged(conn net.Conn) bool {
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
