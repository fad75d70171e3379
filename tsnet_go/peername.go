package main

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strconv"
	"sync/atomic"
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

// peerName is the abstract Unix address that tells the Python server who is
// behind a connection. tailbone/tsnet/peername.py reads it.
func peerName(listener string, source netip.AddrPort) string {
	n := connectionNumber.Add(1)
	return "@" + peerPrefix + listener + "/" + source.String() + "/" + strconv.FormatUint(n, 36)
}
