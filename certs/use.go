package certs

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const (
	flushEvery = 5 * time.Second
	maxUses    = 100_000 // different certificates between two flushes; of more the last use is not kept
	useBatch   = 1000
)

// uses collects last uses in memory until they are flushed.
type uses struct {
	mu      sync.Mutex
	pending map[useKey]time.Time // to the minute
}

type useKey struct {
	account     sallyport.AccountID
	fingerprint string
}

func newUses() uses {
	return uses{pending: map[useKey]time.Time{}}
}

// MarkUsed notes that a certificate of the managed CA was used. It never blocks
// and does not touch the database. Run writes it, to the minute, so that a busy
// certificate's row is written once a minute.
func (a *Authority) MarkUsed(account sallyport.AccountID, fingerprint string, at time.Time) {
	key, minute := useKey{account, fingerprint}, at.UTC().Truncate(time.Minute)
	u := &a.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	before, known := u.pending[key]
	if known && !minute.After(before) || !known && len(u.pending) >= maxUses {
		return
	}
	u.pending[key] = minute
}

func (a *Authority) flushUses(ctx context.Context) {
	u := &a.uses
	u.mu.Lock()
	flushing := u.pending
	u.pending = map[useKey]time.Time{}
	u.mu.Unlock()
	if len(flushing) == 0 {
		return
	}
	err := writeUses(ctx, a.pool, flushing)
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		a.log.WarnContext(ctx, "keeping the last uses of certificates", "error", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, at := range flushing { // they wait for the next flush, unless newer ones fill the place
		if len(u.pending) < maxUses && at.After(u.pending[key]) {
			u.pending[key] = at
		}
	}
}
