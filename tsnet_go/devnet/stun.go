package devnet

import (
	"net"
	"net/netip"

	"tailscale.com/net/stun"
)

// serveSTUN answers each binding request with the address that it came from
// (RFC 8489), until the socket is closed. Everything else is ignored.
func serveSTUN(conn *net.UDPConn) error {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		id, err := stun.ParseBindingRequest(buf[:n])
		if err != nil {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		// A lost answer is as normal as a lost request: the client repeats it.
		_, _ = conn.WriteToUDPAddrPort(stun.Response(id, from), from)
	}
}
