package devnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/control/controlbase"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/dnsname"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// shortLimit is how long a test waits for a limit to end a request.
const shortLimit = 500 * time.Millisecond

// hostileDevnet returns a devnet for broken clients. At the end of the test it must have
// panicked only where the test expects it, leak nothing, and still admit a node. Tests
// shorten only the limit that they are about: on a busy machine a valid request can
// exceed a short one.
func hostileDevnet(t *testing.T, l limits, knownPanics ...string) *Devnet {
	t.Helper()
	tbtest.CheckNoLeaks(t)
	var mu sync.Mutex
	var panics []string
	d := startDevnet(t, Config{
		limits: l,
		Logf: func(format string, args ...any) {
			if line := fmt.Sprintf(format, args...); strings.Contains(line, "panic") {
				mu.Lock()
				defer mu.Unlock()
				panics = append(panics, line)
			}
		},
	})
	t.Cleanup(func() {
		machine, nodeKey := key.NewMachine(), key.NewNode()
		c := newRawClient(t, d, machine)
		resp := c.register(t, registerRequest(nodeKey.Public(), addKey(t, d, "tag:last"), "last"))
		if resp.Error != "" || !resp.MachineAuthorized {
			t.Errorf("a valid node is answered %+v afterwards", resp)
		}
		c.close()
		mu.Lock()
		defer mu.Unlock()
		if len(panics) != len(knownPanics) {
			t.Fatalf("the devnet panicked %d times, want %d: %q", len(panics), len(knownPanics), panics)
		}
		for i, p := range panics {
			if !strings.Contains(p, knownPanics[i]) {
				t.Errorf("the devnet panicked: %s", p)
			}
		}
	})
	return d
}

// Before the handshake, each broken request gets its status.
func TestBrokenHTTP(t *testing.T) {
	d := hostileDevnet(t, limits{})
	valid := base64.StdEncoding.EncodeToString(validInit(t, d))
	for name, tt := range map[string]struct {
		method, path string
		header       http.Header
		want         int
	}{
		"unknown path":         {"GET", "/", nil, 501},
		"climbing path":        {"GET", "/machine/../../etc/passwd", nil, 307}, // to the path without the dots, which is unknown
		"encoded path":         {"GET", "/%00%ff", nil, 501},
		"map in the clear":     {"POST", "/machine/map", nil, 501},
		"key by POST":          {"POST", "/key", nil, 501},
		"unknown login":        {"GET", "/a/abc", nil, 404},
		"handshake by GET":     {"GET", "/ts2021", nil, 405},
		"handshake by PUT":     {"PUT", "/ts2021", nil, 405},
		"no upgrade":           {"POST", "/ts2021", nil, 400},
		"unknown upgrade":      {"POST", "/ts2021", http.Header{"Upgrade": {"h2c"}, "Connection": {"upgrade"}}, 400},
		"websocket":            {"POST", "/ts2021", http.Header{"Upgrade": {"WebSocket"}, "Connection": {"upgrade"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}, "Sec-Websocket-Version": {"13"}}, 400},
		"no initiation":        {"POST", "/ts2021", http.Header{"Upgrade": {"tailscale-control-protocol"}, "Connection": {"upgrade"}}, 400},
		"initiation no base64": {"POST", "/ts2021", http.Header{"Upgrade": {"tailscale-control-protocol"}, "Connection": {"upgrade"}, "X-Tailscale-Handshake": {valid + "*"}}, 400},
		"huge header":          {"GET", "/key", http.Header{"X-Filler": {strings.Repeat("x", 2*maxHeader)}}, 431},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tbtest.Limit)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, tt.method, d.Info().ControlURL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.header != nil {
				req.Header = tt.header
			}
			tr := &http.Transport{DisableKeepAlives: true}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("status %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
}

func validInit(t *testing.T, d *Devnet) []byte {
	t.Helper()
	init, _, err := controlbase.ClientDeferred(key.NewMachine(), d.noiseKey.Public(), uint16(tailcfg.CurrentCapabilityVersion))
	if err != nil {
		t.Fatal(err)
	}
	return init
}

// A broken initiation ends the connection, without a hang and without a session.
func TestBrokenHandshake(t *testing.T) {
	d := hostileDevnet(t, limits{})
	valid := validInit(t, d)
	flip := func(i int) []byte {
		b := bytes.Clone(valid)
		b[i] ^= 0x55
		return b
	}
	otherServer, _, err := controlbase.ClientDeferred(key.NewMachine(), key.NewMachine().Public(), 1)
	if err != nil {
		t.Fatal(err)
	}
	zeroKey := bytes.Clone(valid)
	clear(zeroKey[5:37]) // the ephemeral key; all zero is a point of low order
	for name, init := range map[string][]byte{
		"one byte":         {0},
		"cut":              valid[:len(valid)-1],
		"too long":         append(bytes.Clone(valid), 0),
		"very long":        make([]byte, 30<<10),
		"all zero":         make([]byte, len(valid)),
		"other version":    flip(0),
		"other type":       flip(2),
		"wrong length":     flip(4),
		"zero ephemeral":   zeroKey,
		"broken ephemeral": flip(8),
		"broken machine":   flip(40),
		"broken tag":       flip(len(valid) - 1),
		"another server's": otherServer,
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialControl(t, d)
			upgrade(t, conn, init)
			rest, err := io.ReadAll(conn)
			if err != nil && !isReset(err) {
				t.Errorf("the connection stays open: read %q, %v", rest, err)
			}
			if len(rest) > 0 && rest[0] != 3 { // 3: an error message, in clear text
				t.Errorf("answered %x, want an error message or nothing", rest)
			}
		})
	}
}

// isReset reports whether the connection has ended: closing it with unread data resets
// it.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// Connections with bytes that are not HTTP, or with unfinished requests, are closed.
func TestBrokenConnections(t *testing.T) {
	d := hostileDevnet(t, limits{header: shortLimit})
	random := make([]byte, 4096)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(random)
	for name, sent := range map[string]string{
		"nothing":           "",
		"half a line":       "POST /ts20",
		"half the headers":  "POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tail",
		"random":            string(random),
		"a TLS hello":       "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"HTTP/2 in clear":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"no host":           "GET /key HTTP/1.1\r\n\r\n",
		"two lengths":       "POST /key HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"negative length":   "POST /key HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"length and chunks": "POST /ts2021 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialControl(t, d)
			if _, err := io.WriteString(conn, sent); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
}

// After a valid handshake, garbage ends the connection. Unfinished sessions are left to
// http2's timeout of 10 s, and do not delay Stop.
func TestBrokenSession(t *testing.T) {
	d := hostileDevnet(t, limits{})
	for name, brk := range map[string]func(c *rawClient) error{
		"garbage, not encrypted": func(c *rawClient) error { _, err := c.tcp.Write(bytes.Repeat([]byte{0xff}, 5000)); return err },
		"a record of length 0":   func(c *rawClient) error { _, err := c.tcp.Write([]byte{4, 0, 0}); return err },
		"a record too long":      func(c *rawClient) error { _, err := c.tcp.Write([]byte{4, 0xff, 0xff}); return err },
		"a record of zeros": func(c *rawClient) error {
			_, err := c.tcp.Write(append([]byte{4, 0, 32}, make([]byte, 32)...))
			return err
		},
		"no HTTP/2": func(c *rawClient) error {
			_, err := c.noise.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			return err
		},
		"random frames": func(c *rawClient) error {
			junk := make([]byte, 2000)
			rand.NewChaCha8([32]byte{2}).Read(junk)
			_, err := c.noise.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), junk...))
			return err
		},
		"a frame of 16 MB": func(c *rawClient) error {
			_, err := c.noise.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := shakeHands(t, d, key.NewMachine())
			if err := brk(c); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c.tcp); err != nil && !isReset(err) {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
	for _, sent := range []string{"", "PRI * HTT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00"} {
		c := shakeHands(t, d, key.NewMachine())
		if _, err := c.noise.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
	}
	half := shakeHands(t, d, key.NewMachine())
	if _, err := half.tcp.Write([]byte{4, 0, 40, 1, 2, 3}); err != nil { // half a record
		t.Fatal(err)
	}
}

// Inside a valid session, each broken request gets its status.
func TestBrokenMachineRequests(t *testing.T) {
	d := hostileDevnet(t, limits{})
	c := newRawClient(t, d, key.NewMachine())
	nested := strings.Repeat(`{"Hostinfo":`, 20_000)
	for name, tt := range map[string]struct {
		method, path, body string
		want               int
	}{
		"unknown path":        {"POST", "/machine/nonsense", "{}", 501},
		"root":                {"GET", "/", "", 501},
		"tailnet lock":        {"GET", "/machine/tka/init/begin", "{}", 501},
		"register by GET":     {"GET", "/machine/register", "", 501},
		"map by DELETE":       {"DELETE", "/machine/map", "", 501},
		"register empty":      {"POST", "/machine/register", "", 400},
		"register no JSON":    {"POST", "/machine/register", "{", 400},
		"register null":       {"POST", "/machine/register", "null", 200},
		"register list":       {"POST", "/machine/register", "[]", 400},
		"register number":     {"POST", "/machine/register", "1e999", 400},
		"register bad key":    {"POST", "/machine/register", `{"NodeKey":"nodekey:zz"}`, 400},
		"register bad time":   {"POST", "/machine/register", `{"Expiry":"yesterday"}`, 400},
		"register nested":     {"POST", "/machine/register", nested, 400},
		"register two":        {"POST", "/machine/register", "{}{}", 400},
		"map empty":           {"POST", "/machine/map", "", 400},
		"map no JSON":         {"POST", "/machine/map", "\x28\xb5\x2f\xfd", 400},
		"map null":            {"POST", "/machine/map", "null", 404},
		"map bad endpoint":    {"POST", "/machine/map", `{"Endpoints":["nowhere"]}`, 400},
		"map before register": {"POST", "/machine/map", mustJSON(t, &tailcfg.MapRequest{Version: 1, NodeKey: key.NewNode().Public(), Stream: true}), 404},
		"register too large":  {"POST", "/machine/register", `{"Followup":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		"map too large":       {"POST", "/machine/map", strings.Repeat(" ", maxBody+1), 413},
		"health":              {"POST", "/machine/update-health", "anything", 204},
	} {
		t.Run(name, func(t *testing.T) {
			if got, body := c.send(t, tt.method, tt.path, strings.NewReader(tt.body)); got != tt.want {
				t.Errorf("status %d (%.100s), want %d", got, body, tt.want)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An unfinished body times out, and ends when its client disconnects.
func TestUnfinishedBody(t *testing.T) {
	d := hostileDevnet(t, limits{body: shortLimit})
	c := newRawClient(t, d, key.NewMachine())
	r, w := io.Pipe()
	defer w.Close()
	go io.WriteString(w, `{"Version":`)
	if got, _ := c.send(t, "POST", "/machine/register", r); got != http.StatusBadRequest {
		t.Errorf("status %d, want 400", got)
	}
	gone := newRawClient(t, d, key.NewMachine())
	r2, w2 := io.Pipe()
	defer w2.Close()
	req, err := http.NewRequest("POST", "http://control/machine/map", r2)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		res, err := gone.h2.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	tbtest.Within(t, "the request is on its way", func() error { _, err := io.WriteString(w2, "{"); return err })
	gone.tcp.Close()
	if err := tbtest.Receive(t, "the request ends", answered); err == nil {
		t.Error("answered on a closed connection")
	}
}

// Well-formed but senseless requests are refused with the reason.
func TestSenselessRegister(t *testing.T) {
	d := hostileDevnet(t, limits{})
	good := addKey(t, d, "dev@example.com")
	machine, nodeKey := key.NewMachine(), key.NewNode().Public()
	c := newRawClient(t, d, machine)
	if resp := c.register(t, registerRequest(nodeKey, good, "victim")); resp.Error != "" {
		t.Fatal(resp.Error)
	}
	thief := newRawClient(t, d, key.NewMachine())

	zero := registerRequest(key.NodePublic{}, good, "zero")
	if got, want := thief.register(t, zero).Error, "the node key is zero"; got != want {
		t.Errorf("zero node key: %q, want %q", got, want)
	}
	old := registerRequest(key.NewNode().Public(), good, "old")
	old.Version = 0
	if got, want := thief.register(t, old).Error, "the capability version is missing"; got != want {
		t.Errorf("no version: %q, want %q", got, want)
	}
	if got, want := thief.register(t, registerRequest(nodeKey, good, "thief")).Error, "the node key belongs to another machine"; got != want {
		t.Errorf("another's node key: %q, want %q", got, want)
	}
	logout := registerRequest(nodeKey, "", "thief")
	logout.Expiry = time.Unix(123, 0)
	if got, want := thief.register(t, logout).Error, "the node key belongs to another machine"; got != want {
		t.Errorf("logout of another's node: %q, want %q", got, want)
	}
	status, _ := thief.post(t, "/machine/map", &tailcfg.MapRequest{Version: tailcfg.CurrentCapabilityVersion, NodeKey: nodeKey})
	if status != http.StatusForbidden {
		t.Errorf("map of another's node: status %d, want 403", status)
	}
	// Naming another machine's key as the old one does not take over its node.
	rotate := registerRequest(key.NewNode().Public(), good, "thief")
	rotate.OldNodeKey = nodeKey
	if resp := thief.register(t, rotate); resp.Error != "" {
		t.Errorf("rotation: %s", resp.Error)
	}
	if victim := nodeInfo(t, d, "victim"); victim == nil || victim.Expired {
		t.Errorf("the victim is now %+v", victim)
	}
	if n := nodeInfo(t, d, "thief"); n == nil || n.ID == nodeInfo(t, d, "victim").ID {
		t.Errorf("the thief is %+v, want a separate node", n)
	}
}

// A followup with another node's login URL does not admit the caller.
func TestFollowupOfAnother(t *testing.T) {
	d := hostileDevnet(t, limits{})
	owner, ownerKey := newRawClient(t, d, key.NewMachine()), key.NewNode().Public()
	url := owner.register(t, registerRequest(ownerKey, "", "owner")).AuthURL
	if url == "" {
		t.Fatal("no login URL")
	}
	if again := owner.register(t, registerRequest(ownerKey, "", "owner")).AuthURL; again != url {
		t.Errorf("asked again, the URL is %q, want %q", again, url)
	}
	do[done](t, d, "complete_login", map[string]any{"url": url, "identity": "dev@example.com"})
	thief := newRawClient(t, d, key.NewMachine())
	for _, followup := range []string{url, "http://[::1", "/a/", strings.Repeat("/", 1000), "\x00", d.Info().ControlURL + "/a/unknown"} {
		req := registerRequest(key.NewNode().Public(), "", "thief")
		req.Followup = followup
		if resp := thief.register(t, req); resp.MachineAuthorized || resp.AuthURL == "" || resp.AuthURL == url {
			t.Errorf("followup %.30q: %+v, want its own URL", followup, resp)
		}
	}
	req := registerRequest(ownerKey, "", "owner")
	req.Followup = url
	if resp := owner.register(t, req); !resp.MachineAuthorized {
		t.Errorf("the owner: %+v, want to be admitted", resp)
	}
}

// Whatever its hostname, a node gets a valid and unique DNS label.
func TestStrangeHostnames(t *testing.T) {
	d := hostileDevnet(t, limits{})
	authKey := addKey(t, d, "dev@example.com")
	c := newRawClient(t, d, key.NewMachine())
	for _, name := range []string{
		"", " ", ".", "...", "-", "a..b", "UPPER", "ümläut", "🙂", "x\x00y", "\xff\xfe", "a/b", "new\nline", "tag:ci", "*",
		"100.64.0.1", "localhost", strings.Repeat("x", 63), strings.Repeat("x", 64), strings.Repeat("x", 100_000), strings.Repeat("ü", 300),
		strings.Repeat("x", 63), "host.dev.tailnet.test",
	} {
		if resp := c.register(t, registerRequest(key.NewNode().Public(), authKey, name)); resp.Error != "" {
			t.Errorf("%.20q: %s", name, resp.Error)
		}
		// Each from its own machine, or they would all be one node.
		c = newRawClient(t, d, key.NewMachine())
	}
	seen := map[string]bool{}
	for _, n := range nodesOf(t, d) {
		label, ok := strings.CutSuffix(n.Name, ".dev.tailnet.test")
		if err := dnsname.ValidLabel(label); !ok || err != nil {
			t.Errorf("name %q: %v", n.Name, err)
		}
		if seen[n.Name] {
			t.Errorf("name %q given twice", n.Name)
		}
		seen[n.Name] = true
	}
	if len(seen) != 23 {
		t.Errorf("%d nodes, want 23", len(seen))
	}
}

// A node's description of itself is truncated before the others receive it.
func TestOversizedSelf(t *testing.T) {
	d := hostileDevnet(t, limits{})
	authKey := addKey(t, d, "dev@example.com")
	loud, loudKey := newRawClient(t, d, key.NewMachine()), key.NewNode().Public()
	req := registerRequest(loudKey, authKey, "loud")
	for i := range 5000 {
		req.Hostinfo.Services = append(req.Hostinfo.Services, tailcfg.Service{Proto: tailcfg.TCP, Port: uint16(i), Description: strings.Repeat("d", 100)})
	}
	req.Hostinfo.OS = strings.Repeat("o", 100_000)
	loud.register(t, req)
	endpoints := []string{}
	for i := range 10_000 {
		endpoints = append(endpoints, fmt.Sprintf("10.0.%d.%d:1", i/256, i%256))
	}
	body := fmt.Sprintf(`{"Version":%d,"NodeKey":%q,"OmitPeers":true,"Endpoints":%s}`, tailcfg.CurrentCapabilityVersion, loudKey, mustJSON(t, endpoints))
	if status, _ := loud.send(t, "POST", "/machine/map", strings.NewReader(body)); status != http.StatusOK {
		t.Fatalf("update: status %d", status)
	}
	quiet, quietKey := newRawClient(t, d, key.NewMachine()), key.NewNode().Public()
	quiet.register(t, registerRequest(quietKey, authKey, "quiet"))
	status, answer := quiet.post(t, "/machine/map", &tailcfg.MapRequest{Version: tailcfg.CurrentCapabilityVersion, NodeKey: quietKey})
	resp, err := readFrame(bytes.NewReader(answer), false)
	if err != nil || status != http.StatusOK || len(resp.PeersChanged) != 1 {
		t.Fatalf("map: status %d, %v, %+v", status, err, resp)
	}
	peer := resp.PeersChanged[0]
	if got := len(peer.Endpoints); got != maxEndpoints {
		t.Errorf("%d endpoints, want %d", got, maxEndpoints)
	}
	if got := peer.Hostinfo.Services().Len(); got != maxServices {
		t.Errorf("%d services, want %d", got, maxServices)
	}
	if got := len(peer.Hostinfo.OS()); got != maxNameBytes {
		t.Errorf("an OS of %d bytes, want %d", got, maxNameBytes)
	}
}

// The relay survives bytes that are not DERP, before and after TLS. Tailscale's relay
// panics on a zero key; the devnet recovers.
func TestBrokenDERP(t *testing.T) {
	d := hostileDevnet(t, limits{header: shortLimit}, "can't open with zero keys")
	addr := net.JoinHostPort(loopbackIP, port(d.Info().DERPPort))
	junk := make([]byte, 3000)
	rand.NewChaCha8([32]byte{3}).Read(junk)
	derpUpgrade := "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"
	for name, tt := range map[string]struct {
		useTLS bool
		sent   string
	}{
		"no TLS":           {false, "GET /derp HTTP/1.1\r\nHost: x\r\n\r\n"},
		"random":           {false, string(junk)},
		"nothing":          {false, ""},
		"TLS, nothing":     {true, ""},
		"TLS, random":      {true, string(junk)},
		"no upgrade":       {true, "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
		"unknown path":     {true, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
		"DERP, random":     {true, derpUpgrade + string(junk)},
		"DERP, huge frame": {true, derpUpgrade + "\x02\xff\xff\xff\xff"},
		"DERP, zero key":   {true, derpUpgrade + "\x02\x00\x00\x00\x48" + strings.Repeat("\x00", 0x48)},
		"DERP, no key":     {true, derpUpgrade + "\x04\x00\x00\x00\x20" + strings.Repeat("\x00", 0x20)},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := net.Dial("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			conn := raw
			if tt.useTLS {
				conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // any relay will do
			}
			conn.SetDeadline(time.Now().Add(tbtest.Limit))
			if _, err := io.WriteString(conn, tt.sent); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			if tc, ok := conn.(*tls.Conn); ok && tt.sent == "" {
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			_, err = io.Copy(io.Discard, conn)
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
	if err := probeDERP(t, d); err != nil {
		t.Errorf("the relay afterwards: %v", err)
	}
}

// The STUN server ignores invalid requests and answers the next valid one.
func TestBrokenSTUN(t *testing.T) {
	d := hostileDevnet(t, limits{})
	conn, err := net.Dial("udp4", net.JoinHostPort(loopbackIP, port(d.Info().STUNPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tbtest.Limit))
	id := stun.NewTxID()
	good := stun.Request(id)
	rng := rand.New(rand.NewPCG(4, 4))
	for _, bad := range [][]byte{{}, {0}, good[:19], good[:len(good)-1], bytes.Repeat([]byte{0xff}, 20), make([]byte, 1500), make([]byte, 20_000), append(bytes.Clone(good), 1, 2, 3)} {
		if _, err := conn.Write(bad); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		bad := bytes.Clone(good)
		for range 3 {
			bad[rng.IntN(8)] ^= byte(1 + rng.IntN(255)) // type, length or magic cookie
		}
		if _, err := conn.Write(bad); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(good); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	gotID, from, err := stun.ParseResponse(buf[:n])
	if err != nil || gotID != id || from.String() != conn.LocalAddr().String() {
		t.Errorf("answer %v, %v, %v: want the transaction of the valid request and %v", gotID, from, err, conn.LocalAddr())
	}
}
