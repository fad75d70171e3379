package devnet

import (
	"slices"
	"testing"
)

// What is told is what a node of this build otherwise has: it never uploads logs.
func TestWhatTheKnobsSwitchOff(t *testing.T) {
	want := []string{
		"noticing that the network is down",
		"binding sockets to the interface of the default route",
		"port mapping (UPnP, NAT-PMP, PCP)",
	}
	if got := SetLoopbackKnobs(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
