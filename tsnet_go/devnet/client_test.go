package devnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"tailscale.com/control/controlbase"
	"tailscale.com/control/controlhttp/controlhttpcommon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"

	"github.com/tailbone/tailbone/tsnet_go/internal/tbtest"
)

// rawClient speaks the control protocol without a node, so that a test can send what no
// node would.
type rawClient struct {
	d       *Devnet
	machine key.MachinePrivate
	tcp     net.Conn
	noise   *controlbase.Conn
	h2      *http.Transport // HTTP/2 inside noise
	closed  chan struct{}
}

func dialControl(t *testing.T, d *Devnet) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", net.JoinHostPort(loopbackIP, port(d.Info().ControlPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(tbtest.Limit)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// upgrade requests the noise handshake with the given initiation.
func upgrade(t *testing.T, conn net.Conn, init []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequest("POST", "http://"+conn.RemoteAddr().String()+"/ts2021", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Upgrade", controlhttpcommon.UpgradeHeaderValue)
	req.Header.Set("Connection", "upgrade")
	req.Header.Set(controlhttpcommon.HandshakeHeaderName, base64.StdEncoding.EncodeToString(init))
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	// One byte at a time: what follows the headers belongs to the handshake.
	res, err := http.ReadResponse(bufio.NewReaderSize(oneByteReader{conn}, 16), req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

type oneByteReader struct{ r io.Reader }

func (o oneByteReader) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// shakeHands returns a connection after its noise handshake.
func shakeHands(t *testing.T, d *Devnet, machine key.MachinePrivate) *rawClient {
	t.Helper()
	c := &rawClient{d: d, machine: machine, tcp: dialControl(t, d)}
	init, finish, err := controlbase.ClientDeferred(machine, d.noiseKey.Public(), uint16(tailcfg.CurrentCapabilityVersion))
	if err != nil {
		t.Fatal(err)
	}
	if res := upgrade(t, c.tcp, init); res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v", res.Status)
	}
	if c.noise, err = finish(context.Background(), c.tcp); err != nil {
		t.Fatal(err)
	}
	return c
}

// newRawClient returns a client that speaks HTTP/2 inside its noise connection. It uses
// net/http, since golang.org/x/net/http2.ClientConn v0.56.0 can deadlock on Go 1.27:
// RoundTrip holds a mutex that the connection's state hook locks, if the server's
// settings arrive at that moment.
func newRawClient(t *testing.T, d *Devnet, machine key.MachinePrivate) *rawClient {
	t.Helper()
	c := shakeHands(t, d, machine)
	conns := make(chan net.Conn, 1)
	conns <- c.noise
	c.h2 = &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case conn := <-conns:
				return conn, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-c.closed: // until then a request waits for the one connection
				return nil, net.ErrClosed
			}
		},
	}
	c.h2.Protocols.SetUnencryptedHTTP2(true)
	c.closed = make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(c.closed); c.close() }))
	return c
}

// close ends the client's connection.
func (c *rawClient) close() {
	c.noise.Close()
	c.h2.CloseIdleConnections()
}

// send sends a request and returns the status and the body of the response.
func (c *rawClient) send(t *testing.T, method, path string, body io.Reader) (int, []byte) {
	t.Helper()
	// Not t.Context(), which has ended when a cleanup sends.
	ctx, cancel := context.WithTimeout(context.Background(), tbtest.Limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.h2.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, out
}

func (c *rawClient) post(t *testing.T, path string, v any) (int, []byte) {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return c.send(t, "POST", path, bytes.NewReader(body))
}

func (c *rawClient) register(t *testing.T, req *tailcfg.RegisterRequest) *tailcfg.RegisterResponse {
	t.Helper()
	status, body := c.post(t, "/machine/register", req)
	var resp tailcfg.RegisterResponse
	if err := json.Unmarshal(body, &resp); err != nil || status != http.StatusOK {
		t.Fatalf("register: %d %s", status, body)
	}
	return &resp
}

// registerRequest returns a valid request with an auth key.
func registerRequest(nodeKey key.NodePublic, authKey, hostname string) *tailcfg.RegisterRequest {
	req := &tailcfg.RegisterRequest{
		Version:  tailcfg.CurrentCapabilityVersion,
		NodeKey:  nodeKey,
		Hostinfo: &tailcfg.Hostinfo{Hostname: hostname},
	}
	if authKey != "" {
		req.Auth = &tailcfg.RegisterResponseAuth{AuthKey: authKey}
	}
	return req
}

// readFrame reads one message of a map response.
func readFrame(r io.Reader, compressed bool) (*tailcfg.MapResponse, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > 16<<20 {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	if compressed {
		var err error
		if body, err = zstdframe.AppendDecode(nil, body); err != nil {
			return nil, err
		}
	}
	resp := new(tailcfg.MapResponse)
	return resp, json.Unmarshal(body, resp)
}
