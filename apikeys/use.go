package apikeys

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const flushEvery = 5 * time.Second

// MarkUsed notes that a key was used. It never blocks and does not touch the
// database. Run writes it, to the minute, so that a busy key's row is written
// once a minute.
func (k *Keys) MarkUsed(account sallyport.AccountID, id string, at time.Time) {
	k.uses.Mark(account, id, at)
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
			k.uses.Flush(final)
			return nil
		case <-ticker.C:
			k.uses.Flush(ctx)
		}
	}
}
