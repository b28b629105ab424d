package server

import (
	"net/netip"
	"testing"
)

// A port that a server is to listen on later must not be one that an outgoing
// connection can get meanwhile.
func TestFreePort(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, ephemeral := range []portRange{ephemeralPorts(), {32768, 60999}, {1024, 40000}, {0, 50000}, {20000, 65535}} {
		taken := map[uint16]bool{}
		for range 100 {
			got, err := freePort(loopback, ephemeral, taken)
			if err != nil {
				t.Fatal(err)
			}
			if p := int(got.Port()); got.Addr() != loopback || p < lowestPort || p >= ephemeral.first && p <= ephemeral.last {
				t.Errorf("got %s of a machine with the ephemeral ports %v", got, ephemeral)
			}
		}
		if len(taken) != 100 {
			t.Errorf("%d of 100 ports are different", len(taken))
		}
	}
	if got, err := freePort(loopback, portRange{1024, 65535}, map[uint16]bool{}); err == nil {
		t.Errorf("got %s where every port is ephemeral", got)
	}
}
