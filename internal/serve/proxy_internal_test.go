package serve

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// TestLimiterIsBounded: many principals cost bounded memory, and the one that
// keeps calling stays limited meanwhile.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := newLimiter(Limits{Account: 1_000_000, User: 2}, func() time.Time { return at })
	busy := sallyport.Caller{Account: "aaaaa", Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_busy"}}
	passed := 0
	for i := range 3 * maxLimited {
		other := sallyport.Caller{Account: "bbbbb", Principal: sallyport.Principal{Kind: sallyport.User, ID: fmt.Sprintf("u_%d", i)}}
		if err := l.allow(other); err != nil {
			t.Fatalf("first request of %s: %v", other.Principal.ID, err)
		}
		if i%100 == 0 && l.allow(busy) == nil {
			passed++
		}
	}
	if n := len(l.young) + len(l.old); n > maxLimited {
		t.Errorf("the limiter holds %d buckets, want at most %d", n, maxLimited)
	}
	if passed != 2 {
		t.Errorf("%d requests of the busy user passed, want 2", passed)
	}
}

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
