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
	pending map[useKey]time.Time
	// written holds the keys whose use in the minute is in the database, so
	// that a busy key costs one row a minute.
	written map[useKey]bool
	minute  time.Time
}

type useKey struct {
	account sallyport.AccountID
	id      string
}

func newUses() uses {
	return uses{pending: map[useKey]time.Time{}, written: map[useKey]bool{}}
}

// MarkUsed notes that a key was used. It never blocks and does not touch the
// database; Run writes it, to the minute.
func (k *Keys) MarkUsed(account sallyport.AccountID, id string, at time.Time) {
	key, minute := useKey{account, id}, at.UTC().Truncate(time.Minute)
	u := &k.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if minute.Equal(u.minute) && u.written[key] {
		return
	}
	before, known := u.pending[key]
	if known && !minute.After(before) || !known && len(u.pending) >= maxUses {
		return
	}
	u.pending[key] = minute
}

// Run flushes last uses every few seconds until the context ends, and once
// more then.
func (k *Keys) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
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
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		// They wait for the next flush, unless newer ones fill the place.
		for key, at := range flushing {
			if len(u.pending) < maxUses && at.After(u.pending[key]) {
				u.pending[key] = at
			}
		}
		if ctx.Err() == nil {
			k.log.WarnContext(ctx, "keeping the last uses of API keys", "error", err)
		}
		return
	}
	for _, at := range flushing {
		if at.After(u.minute) {
			u.minute = at
			clear(u.written)
		}
	}
	for key, at := range flushing {
		if at.Equal(u.minute) && len(u.written) < maxUses {
			u.written[key] = true
		}
	}
}
