package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
)

// portRange has its first and its last port.
type portRange struct{ first, last int }

func (r portRange) size() int { return max(r.last-r.first+1, 0) }

// ephemeralPorts are those that the system gives to outgoing connections.
func ephemeralPorts() portRange {
	r := portRange{32768, 60999}
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var is portRange
		if _, err := fmt.Sscan(string(data), &is.first, &is.last); err == nil {
			r = is
		}
	}
	return r
}

// lowestPort is where freePort begins: well-known servers are below.
const lowestPort = 10000

// freePort gives a port at random that nobody listens on, and takes it. The
// Temporal server listens on it only much later and exits if it cannot, so that
// the port must not be one that any connection out of this machine may get in
// between.
func freePort(on netip.Addr, ephemeral portRange, taken map[uint16]bool) (netip.AddrPort, error) {
	among := portRange{lowestPort, ephemeral.first - 1}
	if above := (portRange{ephemeral.last + 1, 65535}); above.size() > among.size() {
		among = above
	}
	err := errors.New("the system uses nearly all of them for outgoing connections")
	for range min(among.size(), 200) {
		address := netip.AddrPortFrom(on, uint16(among.first+rand.N(among.size()))) //nolint:gosec // it fits, and is no secret
		if taken[address.Port()] {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", address.String()); err == nil {
			taken[address.Port()] = true
			return address, l.Close()
		}
	}
	return netip.AddrPort{}, fmt.Errorf("finding a free port: %w", err)
}
