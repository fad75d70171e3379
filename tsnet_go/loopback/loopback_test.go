package loopback

import (
	"slices"
	"testing"
)

// The list has only what a node of this build otherwise does; it never uploads logs.
func TestPrepareReturnsWhatItDisables(t *testing.T) {
	want := []string{
		"noticing that the network is down",
		"binding sockets to the interface of the default route",
		"port mapping (UPnP, NAT-PMP, PCP)",
	}
	if got := Prepare(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
