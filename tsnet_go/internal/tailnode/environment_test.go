package tailnode

import (
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// A connection whose peer vanished without closing it is detected within minutes, not
// after netstack's default of two hours.
func TestKeepalivesAreShort(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	server.listenOn(tbtest.StartUnixServer(t, tbtest.Echo), 10)
	conn := client.mustDial(server.port80())
	defer conn.Close()
	tbtest.MustExchange(t, conn, "in")
	endpoint := connectedEndpoint(t, stackOf(t, server.stack))
	var idle tcpip.KeepaliveIdleOption
	var interval tcpip.KeepaliveIntervalOption
	if err := endpoint.GetSockOpt(&idle); err != nil {
		t.Fatal(err)
	}
	if err := endpoint.GetSockOpt(&interval); err != nil {
		t.Fatal(err)
	}
	if time.Duration(idle) != 2*time.Minute || time.Duration(interval) != 15*time.Second {
		t.Errorf("idle %v, interval %v", time.Duration(idle), time.Duration(interval))
	}
}

// connectedEndpoint returns the TCP endpoint of the one open connection of a stack.
func connectedEndpoint(t *testing.T, s *stack.Stack) tcpip.Endpoint {
	t.Helper()
	for _, registered := range s.RegisteredEndpoints() {
		endpoint, ok := registered.(tcpip.Endpoint)
		if ok && tcp.EndpointState(endpoint.State()) == tcp.StateEstablished {
			return endpoint
		}
	}
	t.Fatal("the stack has no open connection")
	return nil
}

// With IgnoreEnv a node ignores the variables of tsnet and tailscale, including values
// that were read before.
func TestIgnoreEnvRemovesTheVariables(t *testing.T) {
	checkNoLeaks(t)
	knob := envknob.RegisterBool("TS_DEBUG_OF_THIS_TEST")
	names := []string{"TS_AUTHKEY", "TS_CLIENT_SECRET", "TSNET_FORCE_LOGIN", "TS_DEBUG_OF_THIS_TEST"}
	for _, name := range names {
		envknob.SetenvForTest(t, name, "1")
	}
	t.Setenv("OTHER_TS_SETTING", "1")
	logs := os.Getenv(logsDirVariable)
	if _, err := prepareProcess(Config{}); err != nil || os.Getenv("TS_AUTHKEY") != "1" || !knob() {
		t.Errorf("removed without IgnoreEnv: %v", err)
	}
	if _, err := prepareProcess(Config{IgnoreEnv: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, set := os.LookupEnv(name); set {
			t.Errorf("%s is still set", name)
		}
	}
	if knob() {
		t.Error("envknob still has the value it had read")
	}
	if os.Getenv("OTHER_TS_SETTING") != "1" || os.Getenv(logsDirVariable) != logs {
		t.Error("a variable that is not tailscale's was removed")
	}
}

// Only the loopback settings disable anything, and the node says what.
func TestPrepareProcessReportsWhatIsDisabled(t *testing.T) {
	for _, loopback := range []bool{true, false} {
		off, err := prepareProcess(Config{Loopback: loopback})
		if err != nil || off == nil || (len(off) > 0) != loopback {
			t.Errorf("loopback %v: %q, %v", loopback, off, err)
		}
	}
}
