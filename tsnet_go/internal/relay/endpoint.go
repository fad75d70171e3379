package relay

import (
	"net"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// gonet does not export the endpoint inside a connection, which alone can end it with a
// RST (a close sends a FIN, which tells the peer that it has received everything) and
// limit its buffers. tailscale pins gvisor's version; if the field has changed, Reset
// only closes, LimitBuffers does nothing, and a test fails.

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

// LimitBuffers bounds what netstack holds of a connection, in bytes for each direction.
// netstack gives an accepted connection 1 MiB to receive into, whatever the limit of the
// whole stack is.
func LimitBuffers(conn net.Conn, bytes int) {
	if endpoint, ok := endpointOf(conn); ok {
		endpoint.SocketOptions().SetReceiveBufferSize(int64(bytes), true)
		endpoint.SocketOptions().SetSendBufferSize(int64(bytes), true)
	}
}
