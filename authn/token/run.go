package token

import (
	"context"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const (
	flushEvery = 5 * time.Second
	keepEvery  = time.Minute
)

// Run does what has its time, until the context ends: it makes, rotates and
// forgets signing keys, and keeps last uses of rules every few seconds, and once
// more at the end. At its start it makes a new active key if the issuer or the
// audiences are configured otherwise than for the one there is.
func (i *Issuer) Run(ctx context.Context) error {
	reconfigured := true
	keep := func() {
		switch err := i.keepKeys(ctx, reconfigured); {
		case err == nil:
			reconfigured = false
		case ctx.Err() == nil:
			i.log.ErrorContext(ctx, "keeping the keys of tokens", "error", err)
		}
	}
	keep()
	flush, keys := time.NewTicker(flushEvery), time.NewTicker(keepEvery)
	defer flush.Stop()
	defer keys.Stop()
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			i.uses.Flush(final)
			return nil
		case <-flush.C:
			i.uses.Flush(ctx)
		case <-keys.C:
			keep()
		}
	}
}

// Objects rebuilds the account's replicated federation rules, and of account 00000
// the token keys, from the tables.
func (i *Issuer) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	if account == sallyport.SystemAccount {
		return keyObjects(ctx, q)
	}
	return ruleObjects(ctx, q, account)
}
