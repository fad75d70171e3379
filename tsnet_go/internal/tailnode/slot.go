package main

import (
	"net/netip"
	"sync"

	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// callerTable returns the one table of this process, and makes it when first asked.
var callerTable = sync.OnceValues(callers.NewTable)

// caller keeps one connection's slot in the table of callers up to date.
type caller struct {
	node   *Node
	source netip.AddrPort
	slot   *callers.Slot // nil: none was free, and Python asks by tb_whois
	answer []byte
}

func newCaller(n *Node, source netip.AddrPort) *caller {
	c := &caller{node: n, source: source}
	if table, err := callerTable(); err == nil { // tb_callers has reported the error
		c.slot = table.Acquire()
	}
	return c
}

// update writes who has the source address now. The bridge calls it for every piece
// that arrives, before it hands the piece on. An unknown caller empties the slot, and
// so does a tailscale whose own state cannot be asked directly: then Python asks by
// tb_whois, which knows the reason.
func (c *caller) update() {
	if c.slot == nil {
		return
	}
	c.answer = c.answer[:0]
	if ext, err := c.node.running("whois"); err == nil && ext != nil && ext.backend != nil {
		c.answer, _ = ext.appendWhois(c.answer, c.source, netip.Addr{})
	}
	c.slot.Set(c.answer)
}

// release gives the slot back after the connection has ended.
func (c *caller) release() {
	if c.slot != nil {
		c.slot.Release()
	}
}
