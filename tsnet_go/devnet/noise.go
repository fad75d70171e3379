package devnet

import (
	"context"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/types/logger"
)

// serveNoise hijacks an HTTP/1 connection, proves both ends' keys by the ts2021 noise
// handshake, and serves HTTP/2 inside it until it is closed.
func (d *Devnet) serveNoise(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST required", http.StatusMethodNotAllowed)
		return
	}
	// Only nodes in a browser use WebSocket; this tailnet has none.
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "WebSocket is not served", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.limits.handshake)
	defer cancel()
	conn, err := controlhttpserver.AcceptHTTP(ctx, w, r, d.noiseKey, nil)
	if err != nil {
		d.logf("devnet: noise handshake with %s: %v", r.RemoteAddr, err)
		return
	}
	defer conn.Close()
	peer := conn.Peer()
	if peer.IsZero() {
		return
	}
	// http2 itself drops a client that sends no preface within 10 s.
	h2 := &http2.Server{IdleTimeout: d.limits.idle}
	h2.ServeConn(conn, &http2.ServeConnOpts{
		Context:    context.WithValue(d.serving, machineKeyContext{}, peer),
		BaseConfig: &http.Server{ErrorLog: logger.StdLogger(d.logf)},
		Handler:    d.machineHandler,
	})
}
