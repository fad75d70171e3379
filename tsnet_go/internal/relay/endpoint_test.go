package relay

import (
	"context"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// gonetPair returns both ends of a connection inside a netstack.
func gonetPair(t *testing.T) (near, far *gonet.TCPConn) {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	t.Cleanup(s.Destroy)
	if err := s.CreateNIC(1, loopback.New()); err != nil {
		t.Fatal(err)
	}
	address := tcpip.AddrFrom4([4]byte{100, 64, 0, 1})
	protocolAddress := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address.WithPrefix()}
	if err := s.AddProtocolAddress(1, protocolAddress, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: protocolAddress.AddressWithPrefix.Subnet(), NIC: 1}})
	at := tcpip.FullAddress{NIC: 1, Addr: address, Port: 80}
	listener, err := gonet.ListenTCP(s, at, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), tbtest.Limit)
	defer cancel()
	if far, err = gonet.DialContextTCP(ctx, s, at, ipv4.ProtocolNumber); err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near = accepted.(*gonet.TCPConn)
	tbtest.Bound(t, near, far)
	return near, far
}

// Reset finds the endpoint of a gonet connection, so that the peer sees a reset.
func TestResetOfAGonetConnection(t *testing.T) {
	if !endpointFound {
		t.Fatal("gonet has another field than expected: Reset only closes")
	}
	near, far := gonetPair(t)
	Reset(near)
	if _, err := io.ReadAll(far); !tbtest.IsReset(err) {
		t.Errorf("the peer sees %v", err)
	}
}

// A sent FIN counts as acknowledged once the peer has acknowledged it.
func TestAcknowledged(t *testing.T) {
	near, far := gonetPair(t)
	if acknowledged(near) {
		t.Error("an open connection counts as acknowledged")
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := tbtest.ReadAll(t, far); got != "" {
		t.Errorf("got %q", got)
	}
	tbtest.Eventually(t, "the FIN is acknowledged", func() bool { return acknowledged(near) })
}

// isTimeout recognizes gonet's expired deadlines, which are not os.ErrDeadlineExceeded.
func TestIsTimeoutOfAGonetConnection(t *testing.T) {
	near, _ := gonetPair(t)
	if err := near.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("gonet's expired deadline gives %v", err)
	}
}
