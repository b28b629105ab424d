package apikeys

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	keepEnded = 30 * 24 * time.Hour
	reapEvery = 10 * time.Minute
	reapBatch = 100 // keys in one entry of the journal
)

// errNothingEnded keeps an empty entry out of the journal.
var errNothingEnded = errors.New("no API key is to be reaped")

// reapUntil reaps now and every ten minutes until the context ends.
func (k *Keys) reapUntil(ctx context.Context) {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := k.Reap(ctx); err != nil && ctx.Err() == nil {
			k.log.WarnContext(ctx, "reaping ended API keys", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// Reap removes the keys that expired or retired over 30 days ago, in entries of
// a bounded size that the service itself makes. Run does it. Several may run at
// once: the account's lock orders them, and what one has removed the next does
// not find. An account that fails does not keep others from being reaped.
func (k *Keys) Reap(ctx context.Context) error {
	accounts, err := accountsToReap(ctx, k.pool, k.now().Add(-keepEnded))
	if err != nil {
		return err
	}
	var failed []error
	for _, account := range accounts {
		for ctx.Err() == nil {
			if err := k.reapSome(ctx, account); err != nil {
				if !errors.Is(err, errNothingEnded) {
					failed = append(failed, err)
				}
				break
			}
		}
	}
	return errors.Join(failed...)
}

func (k *Keys) reapSome(ctx context.Context, account sallyport.AccountID) error {
	service := sallyport.OperatorCaller(account, "sallyportd")
	_, err := k.journal.Commit(ctx, service, account, journal.Operation{Type: "ReapApiKeys"}, func(tx *journal.Tx) error {
		keys, err := endedKeys(ctx, tx, account, tx.Now().Add(-keepEnded), reapBatch)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return errNothingEnded
		}
		for _, key := range keys {
			if err := remove(ctx, tx, account, key.ID); err != nil {
				return err
			}
			if err := k.ended(ctx, tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
