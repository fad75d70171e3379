package devnet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// A devnet that restarts with its state directory is the same tailnet: nodes return
// without a key and keep their identity, and old keys stay valid.
func TestRestartWithState(t *testing.T) {
	dir := t.TempDir()
	d := startDevnet(t, Config{StateDir: dir})
	key := addKey(t, d, "dev@example.com", map[string]any{"display_name": "The Dev"})
	refused := addKey(t, d, "dev@example.com")
	do[done](t, d, "refuse_key", map[string]any{"key": refused})
	do[done](t, d, "set_grants", map[string]any{"grants": []any{map[string]any{
		"src": []string{"*"}, "dst": []string{"*"}, "ip": []string{"80"}, "app": map[string]any{"example.com/cap": []any{1}},
	}}})
	server := join(t, d, "server", "tag:server")
	client := newNode(t, d, "client", key)
	client.up(t)
	client.close(t)
	before, info := *nodeInfo(t, d, "client"), d.Info()
	stopDevnet(t, d)

	d = startDevnet(t, Config{StateDir: dir})
	if got := d.Info(); got != info {
		t.Errorf("after the restart %+v, want %+v", got, info)
	}
	// The client restarts with its state and without a key; the server kept running.
	client = newNodeIn(t, client.dir, d, "client", "")
	client.up(t)
	server.serve(t)
	client.awaitPeer(t, "server.dev.tailnet.test")
	tbtest.Eventually(t, "the server has reconnected", func() bool { return nodeInfo(t, d, "server").Online })
	// Each side may have a WireGuard session that the other has forgotten, which ends after
	// several handshakes five seconds apart. A connection that was begun before then times
	// out, since its SYNs become ever rarer.
	var err error
	for begun := time.Now(); time.Since(begun) < 3*tbtest.Limit; {
		if _, err = client.get(t, "server.dev.tailnet.test", tbtest.Limit/6); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("after the restart: %v", err)
	}
	after := *nodeInfo(t, d, "client")
	if after.StableID != before.StableID || after.Addresses[0] != before.Addresses[0] || after.DisplayName != "The Dev" {
		t.Errorf("after the restart %+v, want %+v", after, before)
	}
	v4, _ := client.TailscaleIPs()
	tbtest.Eventually(t, "the grants are kept", func() bool {
		who, err := server.whois(t, v4)
		return err == nil && len(who.CapMap["example.com/cap"]) == 1
	})
	newNode(t, d, "another", key).up(t)
	if got, want := upFails(t, newNode(t, d, "intruder", refused)), "auth key was revoked"; !strings.Contains(got, want) {
		t.Errorf("the refused key: %q, want %q in it", got, want)
	}
}

// A node that joins after a restart does not get the id or address of an earlier node,
// not even of a removed one.
func TestAddressesAreNotReused(t *testing.T) {
	dir := t.TempDir()
	d := startDevnet(t, Config{StateDir: dir})
	join(t, d, "old", "tag:ci")
	old := *nodeInfo(t, d, "old")
	do[done](t, d, "remove_node", map[string]any{"node": "old"})
	stopDevnet(t, d)
	d = startDevnet(t, Config{StateDir: dir})
	join(t, d, "old", "tag:ci")
	if got := *nodeInfo(t, d, "old"); got.ID == old.ID || got.Addresses[0] == old.Addresses[0] {
		t.Errorf("the new node %+v has id or address of the removed %+v", got, old)
	}
}

// Only its user can read the state, and it contains no auth key in clear text.
func TestStateFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	d := startDevnet(t, Config{StateDir: dir})
	key := addKey(t, d, "dev@example.com")
	path := filepath.Join(dir, stateFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of the state file %o, want 600", got)
	}
	if info, err = os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("mode of the state directory %o, want 700", got)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), key) {
		t.Error("the state file holds an auth key")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("the state directory holds %v, want the state and its lock", entries)
	}
}

// A state directory that another devnet uses is an error: they would overwrite each
// other's nodes.
func TestStateInUse(t *testing.T) {
	dir := t.TempDir()
	startDevnet(t, Config{StateDir: dir})
	var e *Error
	if _, err := Start(t.Context(), Config{StateDir: dir}); !errors.As(err, &e) || e.Code != CodeStateInUse {
		t.Fatalf("second start: %v, want %v", err, CodeStateInUse)
	}
	if want := "another `tailbone dev` uses the state directory " + dir; !strings.Contains(e.Error(), want) {
		t.Errorf("second start: %q, want %q", e, want)
	}
}

// A damaged state file is an error that names the file, and the file is not changed.
func TestDamagedState(t *testing.T) {
	for name, content := range map[string]string{
		"empty":         "",
		"cut":           `{"version":1,"domain":"dev.tai`,
		"not an object": `[]`,
		"other version": `{"version":2}`,
		"no keys":       `{"version":1}`,
		"zero node":     `{"version":1,"noise_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","derp_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","nodes":[{}]}`,
		"null node":     `{"version":1,"noise_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","derp_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","nodes":[null]}`,
		"null key":      `{"version":1,"noise_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","derp_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","auth_keys":{"ab":null}}`,
		"bad grant":     `{"version":1,"noise_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","derp_key":"privkey:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","grants":[{"src":["group:x"],"dst":["*"],"ip":["*"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			tbtest.CheckNoLeaks(t)
			dir := t.TempDir()
			path := filepath.Join(dir, stateFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Start(t.Context(), Config{StateDir: dir})
			if err == nil {
				stopDevnet(t, d)
			}
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeStateUnreadable || !strings.Contains(e.Message, path) {
				t.Errorf("start: %v, want %v with the file's name", err, CodeStateUnreadable)
			}
			if kept, _ := os.ReadFile(path); string(kept) != content {
				t.Errorf("the file was changed to %q", kept)
			}
		})
	}
}

// If the state cannot be written, the command returns an error.
func TestStateNotSaved(t *testing.T) {
	dir := t.TempDir()
	d, err := Start(t.Context(), Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := doFails(t, d, "add_key", map[string]any{"identity": "tag:ci"}).Code; got != CodeStateNotSaved {
		t.Errorf("add_key: %v, want %v", got, CodeStateNotSaved)
	}
	var e *Error
	if err := d.Stop(t.Context()); !errors.As(err, &e) || e.Code != CodeStateNotSaved {
		t.Errorf("stop: %v, want %v", err, CodeStateNotSaved)
	}
}
