package main

import (
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"tailscale.com/envknob"
)

// A connection whose peer vanished without a word is noticed within minutes, not
// after netstack's own two hours.
func TestKeepalivesAreShort(t *testing.T) {
	checkNoLeaks(t)
	_, server, client := two(t)
	listener := server.listenOn(startUnixServer(t, echo), 10)
	conn := client.mustDial(server.port80())
	defer conn.Close()
	mustExchange(t, conn, "in")
	endpoint, ok := endpointOf(listener.conns.pairs()[0].tailnet)
	if !ok {
		t.Fatal("no endpoint")
	}
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

// Where asked to, a node takes nothing from tsnet's and tailscale's own variables,
// which Python cannot take away from Go; also not what was read from one before.
func TestIgnoreEnvTakesTheVariablesAway(t *testing.T) {
	checkNoLeaks(t)
	knob := envknob.RegisterBool("TS_DEBUG_OF_THIS_TEST")
	names := []string{"TS_AUTHKEY", "TS_CLIENT_SECRET", "TSNET_FORCE_LOGIN", "TS_DEBUG_OF_THIS_TEST"}
	for _, name := range names {
		envknob.SetenvForTest(t, name, "1")
	}
	t.Setenv("OTHER_TS_SETTING", "1")
	logs := os.Getenv(logsDirVariable)
	if _, err := prepareProcess(NodeConfig{}); err != nil || os.Getenv("TS_AUTHKEY") != "1" || !knob() {
		t.Errorf("taken without being asked to: %v", err)
	}
	if _, err := prepareProcess(NodeConfig{IgnoreEnv: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, set := os.LookupEnv(name); set {
			t.Errorf("%s is still set", name)
		}
	}
	if knob() {
		t.Error("what envknob had read is still kept")
	}
	if os.Getenv("OTHER_TS_SETTING") != "1" || os.Getenv(logsDirVariable) != logs {
		t.Error("more was taken than asked for")
	}
}

// What the loopback settings take away is told, and nothing else is.
func TestSwitchedOffIsTold(t *testing.T) {
	for _, loopback := range []bool{true, false} {
		off, err := prepareProcess(NodeConfig{Loopback: loopback})
		if err != nil || off == nil || (len(off) > 0) != loopback {
			t.Errorf("loopback %v: %q, %v", loopback, off, err)
		}
	}
}
