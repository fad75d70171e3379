package tailnode

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// processTag makes the peer names of this process unique in its network namespace,
// where processes share abstract names.
var processTag = func() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}()

// PeerPrefix is how every peer name of this process begins, after the NUL (or @) that
// marks an abstract address.
var PeerPrefix = "tailnet/" + processTag + "/"

var connectionNumber atomic.Uint64 // never reused: a name in use cannot be bound twice

// peerName returns the abstract Unix address that says who is behind a connection:
//
//	@tailnet/<process tag>/<listener>/<ip:port>/<slot>.<generation>
//
// A connection without a slot has <number> in place of <slot>.<generation>. All three
// are in base 36. tailbone/tsnet/peername.py reads these names.
func peerName(listener string, source netip.AddrPort, slot *callers.Slot) string {
	name := "@" + PeerPrefix + listener + "/" + source.String() + "/"
	if slot == nil {
		return name + strconv.FormatUint(connectionNumber.Add(1), 36)
	}
	return name + strconv.FormatInt(int64(slot.Index()), 36) + "." + strconv.FormatUint(uint64(slot.Generation()), 36)
}
