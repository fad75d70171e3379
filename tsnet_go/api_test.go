package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"tailscale.com/envknob"

	"github.com/tailbone/tailbone/tsnet_go/internal/relay"
	"github.com/tailbone/tailbone/tsnet_go/internal/tailnode"
	"github.com/tailbone/tailbone/tsnet_go/internal/tberr"
	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
	"github.com/tailbone/tailbone/tsnet_go/loopback"
)

func TestMain(m *testing.M) {
	loopback.Prepare()
	// A node that falls back to the real control server must fail its test.
	envknob.Setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")
	os.Exit(m.Run())
}

// checkNoLeaks is tbtest.CheckNoLeaks that also counts handles and sessions.
func checkNoLeaks(t *testing.T) {
	t.Helper()
	tbtest.CheckNoLeaks(t, registry.count, func() int { return int(relay.OpenSessions()) })
}

// The whole C interface without C: a tailnet, two nodes, a listener, a forward, whois,
// and closing all of them.
func TestAPIFromStartToEnd(t *testing.T) {
	checkNoLeaks(t)
	must := func(answer []byte, err error) map[string]any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var decoded map[string]any
		if err := json.Unmarshal(answer, &decoded); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		return decoded
	}
	open := func(handle int64, answer []byte, err error) (int64, map[string]any) {
		t.Helper()
		decoded := must(answer, err)
		return handle, decoded
	}
	tailnet, info := open(devnetStart(`{}`))
	key := must(devnetDo(tailnet, `{"op":"add_key","identity":"dev@example.com"}`))["key"]
	var nodes []int64
	for _, name := range []string{"server", "client"} {
		config := fmt.Sprintf(`{"hostname":%q,"dir":%q,"auth_key":%q,"control_url":%q,"loopback":true}`,
			name, t.TempDir(), key, info["control_url"])
		node, made := open(newNode(config, -1))
		if made["peer_prefix"] != tailnode.PeerPrefix || len(made["switched_off"].([]any)) == 0 {
			t.Errorf("%v", made)
		}
		if state := must(nodeUp(node, tbtest.Limit.Milliseconds()))["state"]; state != "Running" {
			t.Errorf("%s is %v", name, state)
		}
		nodes = append(nodes, node)
	}
	server := tbtest.StartUnixServer(t, tbtest.Echo)
	listener, _ := open(listen(nodes[0], fmt.Sprintf(
		`{"name":"x","port":80,"unix_path":%q,"max_connections":5}`, server)))
	forwarder, made := open(forward(nodes[1], `{"local":"127.0.0.1:0","remote":"server:80","wait_ms":30000}`))
	conn, err := net.Dial("tcp", made["local"].(string))
	if err != nil {
		t.Fatal(err)
	}
	tbtest.Bound(t, conn)
	tbtest.MustExchange(t, conn, "hello")
	address := must(nodeStatus(nodes[1]))["addresses"].([]any)[0].(string)
	if who := must(whois(nodes[0], address)); who["login"] != "dev@example.com" {
		t.Errorf("%v", who)
	}
	if counted := must(stats()); counted["handles"] != 5.0 || counted["connections"] != 2.0 {
		t.Errorf("%v", counted)
	}
	conn.Close()
	must(nodeCancel(nodes[0]))
	for range 2 { // every close can be repeated
		must(bridgeClose(listener, 1000))
		must(nodeClose(nodes[1], tbtest.Limit.Milliseconds())) // with its forward
		must(nodeClose(nodes[0], tbtest.Limit.Milliseconds()))
		must(devnetStop(tailnet, tbtest.Limit.Milliseconds()))
		must(bridgeClose(forwarder, 0))
	}
	if version := must(versions()); version["go"] == "" || version["tailscale"] == "" {
		t.Errorf("%v", version)
	}
	if count, err := setMaxProcs(0); err != nil || string(count) != fmt.Sprint(runtime.GOMAXPROCS(0)) {
		t.Errorf("%s, %v", count, err)
	}
}

// A stale handle, one of another type and one that never existed are errors, and never
// reach another object.
func TestAPIChecksHandles(t *testing.T) {
	checkNoLeaks(t)
	node, _, err := newNode(fmt.Sprintf(`{"hostname":"node","dir":%q,"loopback":true}`, t.TempDir()), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer nodeClose(node, tbtest.Limit.Milliseconds())
	other := registry.add("of another type")
	stale := registry.add("gone")
	registry.remove(stale)
	defer registry.remove(other)
	for handle, want := range map[int64]tberr.Code{
		other: tberr.UnknownHandle, stale: tberr.Closed, 0: tberr.UnknownHandle, -1: tberr.UnknownHandle, 1 << 60: tberr.UnknownHandle,
	} {
		for name, call := range map[string]func() error{
			"up":      func() error { _, err := nodeUp(handle, 1); return err },
			"cancel":  func() error { _, err := nodeCancel(handle); return err },
			"status":  func() error { _, err := nodeStatus(handle); return err },
			"whois":   func() error { _, err := whois(handle, ""); return err },
			"listen":  func() error { _, _, err := listen(handle, "{}"); return err },
			"forward": func() error { _, _, err := forward(handle, "{}"); return err },
			"do":      func() error { _, err := devnetDo(handle, "{}"); return err },
		} {
			if got := tberr.CodeOf(call()); got != want {
				t.Errorf("%s of %d: want %s, got %s", name, handle, want, got)
			}
		}
	}
	if _, err := bridgeClose(node, 0); tberr.CodeOf(err) != tberr.UnknownHandle {
		t.Errorf("a node closed as a listener: %v", err)
	}
	if _, err := nodeClose(other, 0); tberr.CodeOf(err) != tberr.UnknownHandle {
		t.Errorf("a string closed as a node: %v", err)
	}
	for _, config := range []string{"", "null x", "[]", `{"hostname":1}`, `{"port":-1}`, `{"port":70000}`} {
		_, _, err := newNode(config, -1)
		if tberr.CodeOf(err) != tberr.BadArgument {
			t.Errorf("%q: %v", config, err)
		}
		_, _, err = listen(node, config)
		if code := tberr.CodeOf(err); code != tberr.BadArgument && code != tberr.NotRunning {
			t.Errorf("%q: %v", config, err)
		}
	}
}

// A listener that was opened while its node was being closed does not get a handle:
// nothing would remove it.
func TestAddBridgeOfAClosedNode(t *testing.T) {
	checkNoLeaks(t)
	node, err := tailnode.New(tailnode.Config{Hostname: "node", Dir: t.TempDir(), Loopback: true}, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Close(tbtest.Limit); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.addBridge("test", closedBridge{node}); tberr.CodeOf(err) != tberr.Closed {
		t.Errorf("got %v, want the code %s", err, tberr.Closed)
	}
}

type closedBridge struct{ node *tailnode.Node }

func (b closedBridge) Node() *tailnode.Node { return b.node }
func (b closedBridge) Close(time.Duration)  {}
