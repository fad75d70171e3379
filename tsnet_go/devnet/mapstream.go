package devnet

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"
)

// mapStream is one open /machine/map request that receives every change.
type mapStream struct {
	wake     chan struct{} // one buffered token: something changed
	replaced chan struct{} // closed when the node opens another stream
}

// serveMap answers /machine/map: a node describes itself, and receives what it
// may know of the tailnet.
func (d *Devnet) serveMap(w http.ResponseWriter, r *http.Request) {
	var req tailcfg.MapRequest
	if !d.readJSON(w, r, &req) {
		return
	}
	n, why, status := d.mapNode(machineOf(r), &req)
	if n == nil {
		http.Error(w, why, status)
		return
	}
	// A streaming request is read-only: what it says of the node may be older than
	// what the node sent beside it.
	if !req.Stream || d.knowsNothingOf(n) {
		d.takeUpdate(n, &req)
	}
	send := &mapSender{w: w, compress: req.Compress == "zstd"}
	if req.Stream {
		d.streamMap(r, n, send)
		return
	}
	if req.OmitPeers {
		return // an empty 200: the node only sent an update
	}
	d.sendChanges(n, newSent(), send)
}

// mapNode finds the node that asks. It must be on the machine that registered it.
func (d *Devnet) mapNode(m key.MachinePublic, req *tailcfg.MapRequest) (n *node, why string, status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = d.reg.nodeByKey(req.NodeKey)
	switch {
	case n == nil:
		return nil, "node not found", http.StatusNotFound
	case n.Machine != m:
		return nil, errForeignNodeKey.Error(), http.StatusForbidden
	}
	return n, "", 0
}

// knowsNothingOf reports whether the node's own updates are missing, because they went to
// an earlier run that kept no state. The devnet then uses what the stream request says.
func (d *Devnet) knowsNothingOf(n *node) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.DiscoKey.IsZero()
}

// takeUpdate stores what a node says about itself.
func (d *Devnet) takeUpdate(n *node, req *tailcfg.MapRequest) {
	d.mu.Lock()
	n.Endpoints = boundedEndpoints(req.Endpoints)
	n.DiscoKey = req.DiscoKey
	d.reg.describe(n, req.Hostinfo, req.Version)
	d.mu.Unlock()
	d.wakeStreams()
	d.saveSoon()
}

// streamMap sends the node every change until it hangs up, opens another
// stream, or the devnet stops.
func (d *Devnet) streamMap(r *http.Request, n *node, send *mapSender) {
	s := &mapStream{wake: make(chan struct{}, 1), replaced: make(chan struct{})}
	d.openStream(n, s)
	defer d.closeStream(n, s)

	sent := newSent()
	keepAlive := time.NewTicker(d.limits.keepAlive)
	defer keepAlive.Stop()
	for {
		if err := d.sendChanges(n, sent, send); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-d.stopping:
			return
		case <-s.replaced:
			return
		case <-s.wake:
		case <-keepAlive.C:
			if err := send.message(&tailcfg.MapResponse{KeepAlive: true}); err != nil {
				return
			}
		}
	}
}

func (d *Devnet) openStream(n *node, s *mapStream) {
	d.mu.Lock()
	if n.stream != nil {
		close(n.stream.replaced)
	}
	n.stream = s
	d.mu.Unlock()
	d.wakeStreams()
}

func (d *Devnet) closeStream(n *node, s *mapStream) {
	d.mu.Lock()
	if n.stream != s {
		d.mu.Unlock()
		return // another stream of the node took over
	}
	n.stream = nil
	n.LastSeen = d.now().UTC().Round(time.Second)
	ephemeral := n.Ephemeral && !n.Removed
	d.mu.Unlock()
	d.wakeStreams()
	d.saveSoon()
	if ephemeral {
		d.removeWhenGone(n)
	}
}

// wakeStreams makes every stream look for changes.
func (d *Devnet) wakeStreams() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.reg.nodes {
		if n.stream != nil {
			select {
			case n.stream.wake <- struct{}{}:
			default: // it has not looked for an earlier change yet
			}
		}
	}
}

func (d *Devnet) sendChanges(n *node, sent *sent, send *mapSender) error {
	d.mu.Lock()
	now := d.now()
	nm := d.reg.netmapFor(n, d.derpMap, now)
	resp, err := sent.delta(nm, now)
	d.mu.Unlock()
	if err != nil || resp == nil {
		return err
	}
	return send.message(resp)
}

// mapSender writes framed messages to a map request: 4 bytes of length, little
// endian, then JSON, zstd-compressed where asked for.
type mapSender struct {
	w        http.ResponseWriter
	compress bool
}

func (s *mapSender) message(resp *tailcfg.MapResponse) error {
	body, err := json.Marshal(resp)
	if err != nil {
		return err
	}
	if s.compress {
		body = zstdframe.AppendEncode(nil, body, zstdframe.FastestCompression)
	}
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := s.w.Write(append(frame, body...)); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}
