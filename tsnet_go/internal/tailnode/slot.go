package tailnode

import (
	"net/netip"

	"github.com/tailbone/tailbone/tsnet_go/internal/callers"
)

// callerSlot keeps one connection's slot in the table of callers up to date.
type callerSlot struct {
	node   *Node
	source netip.AddrPort
	slot   *callers.Slot // nil if none was free: Python then calls tb_whois
	answer []byte
}

func newCallerSlot(n *Node, source netip.AddrPort) *callerSlot {
	c := &callerSlot{node: n, source: source}
	if table, err := callers.Shared(); err == nil { // tb_callers has reported the error
		c.slot = table.Acquire()
	}
	return c
}

// update writes who has the source address now. The relay calls it for each piece of
// bytes before handing it on. The slot is emptied for an unknown caller, and if whois
// needs the LocalAPI: Python then calls tb_whois, which knows the reason.
func (c *callerSlot) update() {
	if c.slot == nil {
		return
	}
	c.answer = c.answer[:0]
	if ext, err := c.node.running("whois"); err == nil && ext != nil && ext.backend != nil {
		c.answer, _ = ext.appendWhois(c.answer, c.source)
	}
	c.slot.Set(c.answer)
}

// release gives the slot back after the connection has ended.
func (c *callerSlot) release() {
	if c.slot != nil {
		c.slot.Release()
	}
}
