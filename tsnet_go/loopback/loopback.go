// Package loopback prepares a process for nodes whose whole tailnet is on this machine.
package loopback

import (
	"sync"

	"tailscale.com/envknob"
	"tailscale.com/net/netns"
)

var once sync.Once

// Prepare sets up this process for nodes whose whole tailnet is on loopback. It must run
// before the first node of the process is made, holds for the rest of the process and
// may be called any number of times.
//
// It returns what it disables, one short phrase each, for a warning: a node on a
// real network lacks these.
func Prepare() []string {
	once.Do(func() {
		// With only lo up, the network monitor reports "down", and a node waits
		// for the network forever.
		envknob.Setenv("TS_ASSUME_NETWORK_UP_FOR_TEST", "1")
		// Sockets bound to the interface of the default route cannot reach
		// 127.0.0.1: joining takes 3 s more and STUN packets leave the machine.
		netns.SetEnabled(false)
		envknob.SetNoLogsNoSupport()
		// UPnP, NAT-PMP and PCP ask the router of the host's network.
		envknob.Setenv("TS_DISABLE_PORTMAPPER", "1")
	})
	return []string{
		"noticing that the network is down",
		"binding sockets to the interface of the default route",
		"port mapping (UPnP, NAT-PMP, PCP)",
	}
}
