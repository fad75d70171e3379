package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
)

// The whole C interface without C: a tailnet, two nodes, a listener, a forward, an
// identity, and the end of all of them.
func TestCallsFromBeginToEnd(t *testing.T) {
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
	net, info := open(callDevnetStart(`{}`))
	key := must(callDevnetDo(net, `{"op":"add_key","identity":"dev@example.com"}`))["key"]
	var nodes []int64
	for _, name := range []string{"server", "client"} {
		config := fmt.Sprintf(`{"hostname":%q,"dir":%q,"auth_key":%q,"control_url":%q,"loopback":true}`,
			name, t.TempDir(), key, info["control_url"])
		node, made := open(callNodeNew(config, -1))
		if made["peer_prefix"] != peerPrefix || len(made["switched_off"].([]any)) == 0 {
			t.Errorf("%v", made)
		}
		if state := must(callNodeUp(node, waitLimit.Milliseconds()))["state"]; state != "Running" {
			t.Errorf("%s is %v", name, state)
		}
		nodes = append(nodes, node)
	}
	server := startUnixServer(t, echo)
	listener, _ := open(callListen(nodes[0], fmt.Sprintf(
		`{"kind":"tcp","name":"x","port":80,"unix_path":%q,"max_connections":5}`, server.path)))
	forward, made := open(callForward(nodes[1], `{"local":"127.0.0.1:0","remote":"server:80","wait_ms":30000}`))
	object, err := lookup[*Forward]("test", forward)
	if err != nil || object.local() != made["local"] {
		t.Fatalf("%v, %v", made, err)
	}
	conn := object.mustConnect(t)
	mustExchange(t, conn, "hello")
	address := must(callNodeStatus(nodes[1]))["addresses"].([]any)[0].(string)
	if who := must(callWhois(nodes[0], address, "")); who["login"] != "dev@example.com" {
		t.Errorf("%v", who)
	}
	if counted := must(callStats()); counted["handles"] != 5.0 || counted["connections"] != 2.0 {
		t.Errorf("%v", counted)
	}
	conn.Close()
	must(callNodeCancel(nodes[0]))
	for range 2 { // every close can be repeated
		must(callListenerClose(listener, 1000))
		must(callNodeClose(nodes[1], waitLimit.Milliseconds())) // with its forward
		must(callNodeClose(nodes[0], waitLimit.Milliseconds()))
		must(callDevnetStop(net, waitLimit.Milliseconds()))
		must(callListenerClose(forward, 0))
	}
	if version := must(callVersion()); version["go"] == "" || version["tailscale"] == "" {
		t.Errorf("%v", version)
	}
	if count, err := callMaxProcs(0); err != nil || string(count) != fmt.Sprint(runtime.GOMAXPROCS(0)) {
		t.Errorf("%s, %v", count, err)
	}
}

// A stale handle, one of another kind and one that never was are errors, and never
// somebody else's object.
func TestCallsCheckTheirHandles(t *testing.T) {
	checkNoLeaks(t)
	net := startTailnet(t)
	node := newTestNode(t, net.config("node", "dev@example.com"))
	other := registry.add("of another kind")
	stale := registry.add("gone")
	registry.remove(stale)
	defer registry.remove(other)
	for handle, want := range map[int64]string{
		other: codeUnknownHandle, stale: codeClosed, 0: codeUnknownHandle, -1: codeUnknownHandle, 1 << 60: codeUnknownHandle,
	} {
		for name, call := range map[string]func() error{
			"up":      func() error { _, err := callNodeUp(handle, 1); return err },
			"cancel":  func() error { _, err := callNodeCancel(handle); return err },
			"status":  func() error { _, err := callNodeStatus(handle); return err },
			"whois":   func() error { _, err := callWhois(handle, "", ""); return err },
			"listen":  func() error { _, _, err := callListen(handle, "{}"); return err },
			"forward": func() error { _, _, err := callForward(handle, "{}"); return err },
			"do":      func() error { _, err := callDevnetDo(handle, "{}"); return err },
		} {
			if got := codeOf(call()); got != want {
				t.Errorf("%s of %d: want %s, got %s", name, handle, want, got)
			}
		}
	}
	_, err := callListenerClose(node.handle, 0)
	wantCode(t, codeUnknownHandle, err)
	_, err = callNodeClose(other, 0)
	wantCode(t, codeUnknownHandle, err)
	for _, config := range []string{"", "null x", "[]", `{"hostname":1}`, `{"port":-1}`, `{"port":70000}`} {
		_, _, err := callNodeNew(config, -1)
		if codeOf(err) != codeBadArgument {
			t.Errorf("%q: %v", config, err)
		}
		_, _, err = callListen(node.handle, config)
		if code := codeOf(err); code != codeBadArgument && code != codeNotRunning {
			t.Errorf("%q: %v", config, err)
		}
	}
}
