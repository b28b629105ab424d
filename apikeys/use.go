package apikeys

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const (
	flushEvery = 5 * time.Second
	maxUses    = 100_000 // different keys between two flushes; of more the last use is not kept
	useBatch   = 1000
)

// uses collects last uses in memory until they are flushed.
type uses struct {
	mu      sync.Mutex
	pending map[useKey]time.Time // to the minute
}

type useKey struct {
	account sallyport.AccountID
	id      string
}

func newUses() uses {
	return uses{pending: map[useKey]time.Time{}}
}

// MarkUsed notes that a key was used. It never blocks and does not touch the
// database. Run writes it, to the minute, so that a busy key's row is written
// once a minute.
func (k *Keys) MarkUsed(account sallyport.AccountID, id string, at time.Time) {
	key, minute := useKey{account, id}, at.UTC().Truncate(time.Minute)
	u := &k.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	before, known := u.pending[key]
	if known && !minute.After(before) || !known && len(u.pending) >= maxUses {
		return
	}
	u.pending[key] = minute
}

// Run flushes last uses every few seconds until the context ends, and once
// more then, and meanwhile reaps ended keys at the start and every ten minutes.
func (k *Keys) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	var reaping sync.WaitGroup
	defer reaping.Wait()
	reaping.Go(func() { k.reapUntil(ctx) })
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			k.flushUses(final)
			return nil
		case <-ticker.C:
			k.flushUses(ctx)
		}
	}
}

func (k *Keys) flushUses(ctx context.Context) {
	u := &k.uses
	u.mu.Lock()
	flushing := u.pending
	u.pending = map[useKey]time.Time{}
	u.mu.Unlock()
	if len(flushing) == 0 {
		return
	}
	err := writeUses(ctx, k.pool, flushing)
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		k.log.WarnContext(ctx, "keeping the last uses of API keys", "error", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, at := range flushing { // they wait for the next flush, unless newer ones fill the place
		if len(u.pending) < maxUses && at.After(u.pending[key]) {
			u.pending[key] = at
		}
	}
}
