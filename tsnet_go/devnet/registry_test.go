package devnet

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

var testNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// testRegistry returns a registry with one reusable key for a login and one for a tag.
func testRegistry(t *testing.T) (r *registry, userKey, tagKey string) {
	t.Helper()
	r = newRegistry("t.test")
	for secret, short := range map[string]string{"user": "dev@example.com", "tag": "tag:ci"} {
		id, err := newIdentity(short, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.keys[hashAuthKey(secret)] = &authKey{Identity: id, Reusable: true}
	}
	return r, "user", "tag"
}

func (r *registry) mustRegister(t *testing.T, m key.MachinePublic, req *tailcfg.RegisterRequest, now time.Time) *node {
	t.Helper()
	resp, _ := r.register(m, req, "http://control", now)
	if resp.Error != "" || resp.AuthURL != "" || resp.NodeKeyExpired {
		t.Fatalf("register: %+v", resp)
	}
	return r.nodeByKey(req.NodeKey)
}

func newKeys() (key.MachinePublic, key.NodePublic) {
	return key.NewMachine().Public(), key.NewNode().Public()
}

// A login's user id is the same in every devnet, regardless of case.
func TestUserIDIsOfTheLogin(t *testing.T) {
	if got, want := userIDOf("dev@example.com"), userIDOf("Dev@Example.com"); got != want {
		t.Errorf("ids %d and %d, want one", got, want)
	}
	if got := userIDOf("dev@example.com"); got != 4137147662623163 {
		t.Errorf("id %d, want 4137147662623163", got)
	}
	if userIDOf("dev@example.com") == userIDOf("ops@example.com") {
		t.Error("two logins have one id")
	}
}

// A user's node key expires after 180 days, a tagged node's never.
func TestKeyExpiry(t *testing.T) {
	r, userKey, tagKey := testRegistry(t)
	m, nk := newKeys()
	n := r.mustRegister(t, m, registerRequest(nk, userKey, "a"), testNow)
	if want := testNow.Add(180 * 24 * time.Hour); !n.KeyExpiry.Equal(want) {
		t.Errorf("a user's key expires at %v, want %v", n.KeyExpiry, want)
	}
	if n.expired(testNow.Add(180*24*time.Hour-time.Second)) || !n.expired(testNow.Add(180*24*time.Hour)) {
		t.Error("it does not expire at its expiry")
	}
	m, nk = newKeys()
	if n = r.mustRegister(t, m, registerRequest(nk, tagKey, "b"), testNow); !n.KeyExpiry.IsZero() {
		t.Errorf("a tagged node's key expires at %v, want never", n.KeyExpiry)
	}
}

// A node can ask for an earlier expiry of its key, not for a later one.
func TestExpiryOnlySooner(t *testing.T) {
	r, userKey, _ := testRegistry(t)
	m, nk := newKeys()
	req := registerRequest(nk, userKey, "a")
	n := r.mustRegister(t, m, req, testNow)
	soon := testNow.Add(time.Hour)
	req.Expiry = soon
	r.mustRegister(t, m, req, testNow)
	req.Expiry = soon.Add(time.Minute)
	r.mustRegister(t, m, req, testNow)
	if !n.KeyExpiry.Equal(soon) {
		t.Errorf("the key expires at %v, want %v", n.KeyExpiry, soon)
	}
}

// A known node needs no auth key, and one that it presents is ignored.
func TestKnownNodeNeedsNoKey(t *testing.T) {
	r, userKey, tagKey := testRegistry(t)
	m, nk := newKeys()
	n := r.mustRegister(t, m, registerRequest(nk, userKey, "a"), testNow)
	for _, k := range []string{"", "unknown", tagKey} {
		if again := r.mustRegister(t, m, registerRequest(nk, k, "a"), testNow); again != n || n.Owner.Login != "dev@example.com" {
			t.Errorf("with key %q the node is %+v, want as it was", k, again)
		}
	}
}

// A node that rotates its key keeps its id, name and addresses, and its old key becomes
// unknown.
func TestKeyRotation(t *testing.T) {
	r, userKey, _ := testRegistry(t)
	m, oldKey := newKeys()
	before := *r.mustRegister(t, m, registerRequest(oldKey, userKey, "a"), testNow)
	req := registerRequest(key.NewNode().Public(), userKey, "a")
	req.OldNodeKey = oldKey
	after := r.mustRegister(t, m, req, testNow)
	if after.ID != before.ID || after.StableID != before.StableID || after.V4 != before.V4 || after.Name != before.Name {
		t.Errorf("after the rotation %+v, want %+v", after, before)
	}
	if r.nodeByKey(oldKey) != nil {
		t.Error("the old key is still known")
	}
}

// A machine that joins as another user becomes another node.
func TestAnotherUserIsAnotherNode(t *testing.T) {
	r, userKey, _ := testRegistry(t)
	id, err := newIdentity("ops@example.com", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.keys[hashAuthKey("ops")] = &authKey{Identity: id}
	m, oldKey := newKeys()
	dev := r.mustRegister(t, m, registerRequest(oldKey, userKey, "a"), testNow)
	req := registerRequest(key.NewNode().Public(), "ops", "a")
	req.OldNodeKey = oldKey
	ops := r.mustRegister(t, m, req, testNow)
	if ops == dev || ops.ID == dev.ID || ops.V4 == dev.V4 {
		t.Errorf("the node of ops is %+v, want another than %+v", ops, dev)
	}
	if dev.Owner.Login != "dev@example.com" {
		t.Errorf("the node of dev is now of %v", dev.Owner)
	}
}

// A user's node that logs in with a tagged key becomes tagged and stays the same node.
func TestUserNodeBecomesTagged(t *testing.T) {
	r, userKey, tagKey := testRegistry(t)
	m, oldKey := newKeys()
	before := *r.mustRegister(t, m, registerRequest(oldKey, userKey, "a"), testNow)
	req := registerRequest(key.NewNode().Public(), tagKey, "a")
	req.OldNodeKey = oldKey
	after := r.mustRegister(t, m, req, testNow)
	if after.ID != before.ID || !after.Owner.tagged() || after.userID() != userIDOf("tagged-devices") || !after.KeyExpiry.IsZero() {
		t.Errorf("after the login %+v, want the same node, tagged", after)
	}
}

// A removed node learns that its key has expired, and joins as a new node.
func TestRemovedNodeJoinsAsNew(t *testing.T) {
	r, userKey, _ := testRegistry(t)
	m, oldKey := newKeys()
	old := r.mustRegister(t, m, registerRequest(oldKey, userKey, "a"), testNow)
	r.remove(old, testNow)
	if resp, _ := r.register(m, registerRequest(oldKey, userKey, "a"), "", testNow); !resp.NodeKeyExpired {
		t.Errorf("the removed node is answered %+v, want its key expired", resp)
	}
	req := registerRequest(key.NewNode().Public(), userKey, "a")
	req.OldNodeKey = oldKey
	if n := r.mustRegister(t, m, req, testNow); n == old || n.ID == old.ID || n.Name != "a" {
		t.Errorf("it joins as %+v, want a new node with the free name", n)
	}
}

// A bounded number of removed nodes is remembered, the newest ones.
func TestRemovedNodesAreBounded(t *testing.T) {
	r, userKey, _ := testRegistry(t)
	var last *node
	for range maxRemoved + 10 {
		m, nk := newKeys()
		last = r.mustRegister(t, m, registerRequest(nk, userKey, "a"), testNow)
		r.remove(last, testNow)
	}
	if len(r.nodes) != maxRemoved || r.nodeByKey(last.Key) != last {
		t.Errorf("%d nodes remembered, want %d with the last", len(r.nodes), maxRemoved)
	}
}

// The number of pending logins is bounded, and the oldest is forgotten first.
func TestPendingLoginsAreBounded(t *testing.T) {
	r, _, _ := testRegistry(t)
	m, firstKey := newKeys()
	first := r.startLogin(m, firstKey, testNow)
	for i := range maxPendingLogins {
		m, nk := newKeys()
		r.startLogin(m, nk, testNow.Add(time.Duration(i+1)*time.Millisecond))
	}
	if len(r.logins) != maxPendingLogins || r.logins[first.id] != nil {
		t.Errorf("%d logins pending, want %d without the first", len(r.logins), maxPendingLogins)
	}
	m, nk := newKeys()
	r.startLogin(m, nk, testNow.Add(2*pendingLoginLife))
	if len(r.logins) != 1 {
		t.Errorf("%d logins pending an hour later, want 1", len(r.logins))
	}
}

// Names are numbered from -1 and stay within a DNS label.
func TestNumberedNames(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, tt := range []struct {
		label string
		n     int
		want  string
	}{
		{"a", 0, "a"},
		{"a", 1, "a-1"},
		{long, 0, long},
		{long, 1, long[:61] + "-1"},
		{long[:60] + "-yy", 12, long[:60] + "-12"},
	} {
		if got := numbered(tt.label, tt.n); got != tt.want {
			t.Errorf("numbered(%q, %d) = %q, want %q", tt.label, tt.n, got, tt.want)
		}
	}
}

// The addresses of the first and the last node are in the tailnet's ranges.
func TestAddressRange(t *testing.T) {
	for i, want := range map[int]string{1: "100.64.0.1", 256: "100.64.1.0", maxNodes: "100.64.255.254"} {
		v4, v6 := addressesOf(i)
		if v4.String() != want {
			t.Errorf("address %d is %v, want %v", i, v4, want)
		}
		if !netip.MustParsePrefix("fd7a:115c:a1e0::/48").Contains(v6) {
			t.Errorf("address %d is %v, outside fd7a:115c:a1e0::/48", i, v6)
		}
	}
	r, userKey, _ := testRegistry(t)
	r.made = maxNodes
	m, nk := newKeys()
	if resp, _ := r.register(m, registerRequest(nk, userKey, "a"), "", testNow); !strings.Contains(resp.Error, "all of its 65534 addresses") {
		t.Errorf("one node too many is answered %+v", resp)
	}
}
