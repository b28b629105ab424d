package serve

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// clientAddress is who made the request. X-Forwarded-For is read from its end,
// where trusted proxies append: the first address that is not one of theirs is
// the client. Whatever stands before it is the client's own claim.
func clientAddress(peer string, forwarded []string, proxies []netip.Prefix) netip.Addr {
	addr := parseAddress(peer)
	list := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(list) - 1; i >= 0 && trusted(addr, proxies); i-- {
		next := parseAddress(strings.TrimSpace(list[i]))
		if !next.IsValid() {
			break
		}
		addr = next
	}
	return addr
}

func trusted(addr netip.Addr, proxies []netip.Prefix) bool {
	for _, p := range proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// parseAddress reads an address with or without a port; invalid if it is none.
func parseAddress(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// FromProxy is the handler behind the configured proxies: the requests that it gets
// have the client's address as RemoteAddr. Handler has it already.
func (s *Server) FromProxy(next http.Handler) http.Handler { return fromProxy(s.proxies, next) }

// fromProxy replaces the peer's address by the client's, so that what comes
// after needs to know nothing of proxies, and takes a trusted proxy's own
// certificate away: it is not its clients'.
func fromProxy(proxies []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && trusted(parseAddress(r.RemoteAddr), proxies) {
			state := *r.TLS
			state.PeerCertificates = nil
			r.TLS = &state
		}
		if addr := clientAddress(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), proxies); addr.IsValid() {
			r.RemoteAddr = netip.AddrPortFrom(addr, 0).String()
		}
		r.Header.Del("X-Forwarded-For")
		next.ServeHTTP(w, r)
	})
}
