package token

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sallyport-iam/sallyport"
)

// Tokens that may be asked for, a second and at once. A source counts whatever it
// asks for. A service account counts what was proved to be for it, so that nobody
// can use up what is another's.
const (
	sourceRate   = 50
	sourceBurst  = 200
	accountRate  = 20
	accountBurst = 100
	maxBuckets   = 50_000
)

type limits struct {
	sources  buckets
	accounts buckets
}

func newLimits() limits {
	return limits{sources: newBuckets(sourceRate, sourceBurst), accounts: newBuckets(accountRate, accountBurst)}
}

// source counts a request from an address; an IPv6 network of 64 bits is one.
func (l *limits) source(from netip.Addr) bool {
	from = from.Unmap()
	bits := 32
	if from.Is6() {
		bits = 64
	}
	network, err := from.Prefix(bits)
	if err != nil {
		return l.sources.allow("")
	}
	return l.sources.allow(network.String())
}

// serviceAccount counts a token for a service account.
func (l *limits) serviceAccount(account sallyport.AccountID, id string) bool {
	return l.accounts.allow(string(account) + "/" + id)
}

// buckets are token buckets by key, of which there are only so many: those that
// are full again are forgotten first, and beyond that all new keys share one.
type buckets struct {
	perSecond rate.Limit
	burst     int

	mu    sync.Mutex
	all   map[string]*rate.Limiter
	swept time.Time
}

func newBuckets(perSecond rate.Limit, burst int) buckets {
	return buckets{perSecond: perSecond, burst: burst, all: map[string]*rate.Limiter{}}
}

func (b *buckets) allow(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter, ok := b.all[key]
	if now := time.Now(); !ok && len(b.all) >= maxBuckets && now.Sub(b.swept) > time.Second {
		b.swept = now
		for other, l := range b.all {
			if l.Tokens() >= float64(b.burst) {
				delete(b.all, other)
			}
		}
	}
	if !ok && len(b.all) >= maxBuckets {
		key = ""
		limiter, ok = b.all[key]
	}
	if !ok {
		limiter = rate.NewLimiter(b.perSecond, b.burst)
		b.all[key] = limiter
	}
	return limiter.Allow()
}
