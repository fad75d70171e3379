package devnet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// Bounds on what one client may send.
const (
	maxBody   = 1 << 20
	maxHeader = 64 << 10
)

// limits bound how long one client can make the devnet wait. Tests shorten them.
type limits struct {
	header    time.Duration // until a request's headers have arrived
	body      time.Duration // until its body has arrived
	handshake time.Duration // until the noise handshake is done
	idle      time.Duration // before a connection without requests is closed
	keepAlive time.Duration // between two signs of life on a map stream
}

// orDefaults fills in what is zero.
func (l limits) orDefaults() limits {
	l.header = cmp.Or(l.header, 10*time.Second)
	l.body = cmp.Or(l.body, 10*time.Second)
	l.handshake = cmp.Or(l.handshake, 10*time.Second)
	l.idle = cmp.Or(l.idle, 2*time.Minute)
	// A client gives up a silent stream after two minutes.
	l.keepAlive = cmp.Or(l.keepAlive, 50*time.Second)
	return l
}

// newControlServer serves the unencrypted part of the control protocol: the
// server's public key, and the upgrade to the encrypted part.
func (d *Devnet) newControlServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /key", d.serveKey)
	mux.HandleFunc("/ts2021", d.serveNoise)
	mux.HandleFunc("GET "+loginPath+"/{id}", d.serveLoginPage)
	mux.HandleFunc("/", serveUnknown)
	return d.httpServer(mux)
}

// newMachineHandler serves the control protocol inside the noise connection.
func (d *Devnet) newMachineHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /machine/register", d.serveRegister)
	mux.HandleFunc("POST /machine/map", d.serveMap)
	mux.HandleFunc("POST /machine/update-health", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/", serveUnknown)
	return d.guarded(mux)
}

func (d *Devnet) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           d.guarded(h),
		ReadHeaderTimeout: d.limits.header,
		IdleTimeout:       d.limits.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          logger.StdLogger(d.logf),
		BaseContext:       func(net.Listener) context.Context { return d.serving },
	}
}

// serveUnknown answers unknown paths. Nodes treat 501 as "not supported".
func serveUnknown(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "not implemented by the devnet", http.StatusNotImplemented)
}

func (d *Devnet) serveKey(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, &tailcfg.OverTLSPublicKeyResponse{PublicKey: d.noiseKey.Public()})
}

// serveLoginPage answers a browser that opens a login URL.
func (d *Devnet) serveLoginPage(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	p := d.reg.logins[r.PathValue("id")]
	d.mu.Unlock()
	if p == nil {
		http.Error(w, "no node waits for this login", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "A node of this private tailnet waits for a login. Complete it with the command complete_login and this URL.\n")
}

// readJSON reads a bounded body within a bounded time. If it cannot, it answers
// the request and returns false.
func (d *Devnet) readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(d.limits.body))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	rc.SetReadDeadline(time.Time{})
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		http.Error(w, "body too large", http.StatusRequestEntityTooLarge)
		return false
	case err != nil:
		http.Error(w, "body not read", http.StatusBadRequest)
		return false
	}
	if err := json.Unmarshal(body, into); err != nil {
		http.Error(w, "body is not the expected JSON", http.StatusBadRequest)
		return false
	}
	return true
}

// machineKeyContext holds the machine key that the noise handshake proved.
type machineKeyContext struct{}

func machineOf(r *http.Request) key.MachinePublic {
	m, _ := r.Context().Value(machineKeyContext{}).(key.MachinePublic)
	return m
}
