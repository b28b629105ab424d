package serve

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sallyport-iam/sallyport"
)

// maxLimited bounds how many accounts and principals are counted at once.
// Past it those seen longest ago begin anew with a full bucket, which is what
// a bucket that rested for a second holds anyway.
const maxLimited = 20_000

// limiter counts requests by account and by principal.
type limiter struct {
	limits Limits
	now    func() time.Time

	mu sync.Mutex
	// Two generations: what is used moves to the young one, and when that is
	// full it becomes the old one and the old one is forgotten.
	young, old map[string]*rate.Limiter
}

func newLimiter(l Limits, now func() time.Time) *limiter {
	d := DefaultLimits()
	if l.Account == 0 {
		l.Account = d.Account
	}
	if l.User == 0 {
		l.User = d.User
	}
	if l.ServiceAccount == 0 {
		l.ServiceAccount = d.ServiceAccount
	}
	return &limiter{limits: l, now: now, young: map[string]*rate.Limiter{}}
}

// allow counts one request of the caller: Exhausted when its principal or its
// account made too many within a second.
func (l *limiter) allow(c sallyport.Caller) error {
	own, what := l.limits.User, "user"
	if c.Principal.Kind == sallyport.ServiceAccount {
		own, what = l.limits.ServiceAccount, "service account"
	}
	now := l.now()
	if !l.bucket("p/"+c.Principal.ID, own).AllowN(now, 1) {
		return sallyport.Exhausted.Errorf("more than %d requests a second by this %s; wait a moment and try again", own, what)
	}
	if !l.bucket("a/"+string(c.Account), l.limits.Account).AllowN(now, 1) {
		return sallyport.Exhausted.Errorf("more than %d requests a second in this account; wait a moment and try again", l.limits.Account)
	}
	return nil
}

func (l *limiter) bucket(key string, perSecond int) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.young[key]; ok {
		return b
	}
	b, ok := l.old[key]
	if !ok {
		b = rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	if len(l.young) >= maxLimited/2 {
		l.young, l.old = map[string]*rate.Limiter{}, l.young
	}
	l.young[key] = b
	return b
}
