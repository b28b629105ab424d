package serve

import (
	"net/netip"
	"testing"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32")}
	tests := []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:99", nil, "192.0.2.1"},
		{"192.0.2.1:99", []string{"198.51.100.1"}, "192.0.2.1"}, // not a proxy: its claim is not believed
		{"10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"6.6.6.6, 198.51.100.1"}, "198.51.100.1"}, // 6.6.6.6 is the client's own claim
		{"10.0.0.1:99", []string{"6.6.6.6", "198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"10.1.1.1"}, "10.1.1.1"},
		{"10.0.0.1:99", []string{"nonsense"}, "10.0.0.1"},
		{"10.0.0.1:99", nil, "10.0.0.1"},
		{"[::ffff:10.0.0.1]:99", []string{"2001:db8::1"}, "2001:db8::1"},
		{"/run/socket", nil, "invalid IP"},
	}
	for _, tt := range tests {
		if got := clientAddress(tt.peer, tt.forwarded, proxies).String(); got != tt.want {
			t.Errorf("clientAddress(%s, %q) = %s, want %s", tt.peer, tt.forwarded, got, tt.want)
		}
	}
}
