package devnet

import "time"

// removeWhenGone removes an ephemeral node that stays offline. Time while control is
// paused does not count, since no node can reconnect then.
func (d *Devnet) removeWhenGone(n *node) {
	grace := time.Duration(d.cfg.EphemeralGraceS * float64(time.Second))
	d.goGuarded("removing an ephemeral node", func() {
		for {
			timer := time.NewTimer(grace)
			select {
			case <-d.stopping:
				timer.Stop()
				return
			case <-timer.C:
			}
			if !d.controlGate.isPaused() {
				break
			}
		}
		d.mu.Lock()
		gone := n.stream == nil && n.Ephemeral && !n.Removed
		if gone {
			d.reg.remove(n, d.now())
		}
		d.mu.Unlock()
		if gone {
			d.wakeStreams()
			d.saveSoon()
		}
	})
}
