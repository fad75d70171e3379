package devnet

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A bad command is refused, with what is allowed, and changes nothing.
func TestBadCommands(t *testing.T) {
	d := unservedDevnet(t)
	for name, tt := range map[string]struct {
		cmd  string
		code Code
		op   string
		text string
	}{
		"no JSON":          {`{`, CodeBadCommand, "do", "a command must be a JSON object with an op: unexpected end of JSON input"},
		"no op":            {`{}`, CodeBadCommand, "do", `unknown op "": allowed are add_key, approve_node, complete_login, drop_control, drop_derp, expire_node, forget_node, info, logins, nodes, pause_control, pause_derp, refuse_key, remove_node, rename_node, resume_control, resume_derp, set_grants, share_node`},
		"unknown field":    {`{"op":"add_key","identity":"tag:ci","reuseable":false}`, CodeBadCommand, "add_key", `unknown field "reuseable"`},
		"field too much":   {`{"op":"nodes","node":"x"}`, CodeBadCommand, "nodes", `unknown field "node"`},
		"no identity":      {`{"op":"add_key"}`, CodeBadCommand, "add_key", `"" is not a valid identity: use a login such as dev@example.com, or a tag such as tag:ci`},
		"bad login":        {`{"op":"add_key","identity":"dev"}`, CodeBadCommand, "add_key", `"dev" is not a valid identity: use a login such as dev@example.com, or a tag such as tag:ci`},
		"bad tag":          {`{"op":"add_key","identity":"tag:-"}`, CodeBadCommand, "add_key", `"tag:-" is not a tag: a tag is tag: and a letter, then letters, digits and dashes`},
		"login and tags":   {`{"op":"add_key","identity":"tag:ci","login":"dev@example.com"}`, CodeBadCommand, "add_key", "a tagged node has no user: give tags or a login, not both"},
		"bad expiry":       {`{"op":"add_key","identity":"tag:ci","expires_in_s":-1}`, CodeBadCommand, "add_key", "expires_in_s: allowed are 0 to 1e9 seconds"},
		"unknown key":      {`{"op":"refuse_key","key":"tskey-auth-secret"}`, CodeUnknownKey, "refuse_key", "no such auth key: add_key issues them"},
		"unknown node":     {`{"op":"expire_node","node":"nobody"}`, CodeUnknownNode, "expire_node", `no node "nobody": allowed are a stable id, a name or an address of nodes`},
		"no label":         {`{"op":"rename_node","node":"nobody","name":"-A"}`, CodeBadCommand, "rename_node", `name: "-A" is not a DNS label; use a-z, 0-9, and - inside`},
		"no shared":        {`{"op":"share_node","node":"nobody"}`, CodeBadCommand, "share_node", "shared is missing: true or false"},
		"unknown login":    {`{"op":"complete_login","url":"http://127.0.0.1/a/x","identity":"tag:ci"}`, CodeUnknownLogin, "complete_login", "no node waits for this login URL: logins lists them"},
		"no grants":        {`{"op":"set_grants"}`, CodeBadCommand, "set_grants", "grants is missing: a list, [] to allow nothing"},
		"grant to nobody":  {`{"op":"set_grants","grants":[{"src":["*"]}]}`, CodeBadCommand, "set_grants", "grants[0]: src and dst must each have at least one selector"},
		"grant of nothing": {`{"op":"set_grants","grants":[{"src":["*"],"dst":["*"]}]}`, CodeBadCommand, "set_grants", "grants[0]: grant has neither ip nor app: give at least one"},
		"grant to group":   {`{"op":"set_grants","grants":[{"src":["group:x"],"dst":["*"],"ip":["*"]}]}`, CodeBadCommand, "set_grants", `grants[0]: "group:x" is not a selector: allowed are *, a login, a tag, an address or prefix, and a node's name`},
		"grant of port 0":  {`{"op":"set_grants","grants":[{"src":["*"],"dst":["*"],"ip":["0"]}]}`, CodeBadCommand, "set_grants", `grants[0]: ip: "0" is not a port: allowed are *, 80, 80-90, tcp:80, udp:53`},
		"grant backwards":  {`{"op":"set_grants","grants":[{"src":["*"],"dst":["*"],"ip":["90-80"]}]}`, CodeBadCommand, "set_grants", `grants[0]: ip: "90-80" is not a port: allowed are *, 80, 80-90, tcp:80, udp:53`},
		"grant of icmp":    {`{"op":"set_grants","grants":[{"src":["*"],"dst":["*"],"ip":["icmp:*"]}]}`, CodeBadCommand, "set_grants", `grants[0]: ip: "icmp:*" is not a port: allowed are *, 80, 80-90, tcp:80, udp:53`},
		"grant, no list":   {`{"op":"set_grants","grants":[{"src":["*"],"dst":["*"],"app":{"a/b":{}}}]}`, CodeBadCommand, "set_grants", "grants: a JSON object is not allowed here"},
		"too long":         {`{"op":"nodes"}` + strings.Repeat(" ", maxCommand), CodeBadCommand, "do", "a command must have at most 1048576 bytes"},
		"two commands":     {`{"op":"nodes"}{}`, CodeBadCommand, "do", "a command must be a JSON object with an op: invalid character '{' after top-level value"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := d.Do([]byte(tt.cmd))
			var e *Error
			if !errors.As(err, &e) || out != nil {
				t.Fatalf("result %s, error %v, want an *Error", out, err)
			}
			if e.Code != tt.code || e.Op != tt.op || e.Message != tt.text {
				t.Errorf("got  %s %s: %s\nwant %s %s: %s", e.Code, e.Op, e.Message, tt.code, tt.op, tt.text)
			}
		})
	}
	if len(d.reg.keys) != 0 || len(d.reg.grants) != 1 {
		t.Errorf("%d keys and %d grants, want none and the first one", len(d.reg.keys), len(d.reg.grants))
	}
}

// Auth keys have the form of the real service's, and are unique.
func TestAuthKeyForm(t *testing.T) {
	d := unservedDevnet(t)
	a, b := addKey(t, d, "tag:ci"), addKey(t, d, "tag:ci")
	if a == b {
		t.Error("two keys are alike")
	}
	for _, k := range []string{a, b} {
		if !strings.HasPrefix(k, "tskey-auth-k") || len(k) != len("tskey-auth-k")+11+len("CNTRL-")+32 {
			t.Errorf("key %q has another form", k)
		}
	}
}

// Neither the refusal of a key nor its printed form shows the key.
func TestErrorsHideKeys(t *testing.T) {
	d := unservedDevnet(t)
	secret := newAuthKeySecret()
	if e := doFails(t, d, "refuse_key", map[string]any{"key": secret}); strings.Contains(e.Error(), secret) {
		t.Errorf("the error shows the key: %v", e)
	}
	var k *authKey
	if why := k.refusal(time.Now()); strings.Contains(why, "tskey") {
		t.Errorf("the refusal shows a key: %v", why)
	}
}
