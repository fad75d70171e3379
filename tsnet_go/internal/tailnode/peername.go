package main

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// processTag makes the peer names of this process unlike those of any other process
// in the same network namespace, where abstract names are shared.
var processTag = func() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process first
	return hex.EncodeToString(b[:])
}()

// peerPrefix is how every peer name of this process begins, after the NUL (or @)
// that marks an abstract address.
var peerPrefix = "tailnet/" + processTag + "/"

var connectionNumber atomic.Uint64 // never reused: a name in use cannot be bound twice

// peerName returns the abstract Unix address that says who is behind a connection:
//
//	@tailnet/<tag of the process>/<listener>/<ip:port>/<slot>.<generation>
//
// or <number> in place of <slot>.<generation> for a connection without a slot; all
// three are in base 36. tailbone/tsnet/peername.py reads it.
func peerName(listener string, source netip.AddrPort, slot *callers.Slot) string {
	name := "@" + peerPrefix + listener + "/" + source.String() + "/"
	if slot == nil {
		return name + strconv.FormatUint(connectionNumber.Add(1), 36)
	}
	return name + strconv.FormatInt(int64(slot.Index()), 36) + "." + strconv.FormatUint(uint64(slot.Generation()), 36)
}
