package certs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	keepExpired = 30 * 24 * time.Hour
	reapEvery   = 10 * time.Minute
	countEvery  = time.Minute
	countShare  = 100 // counting takes at most one part in so many of the time
	reapBatch   = 100 // certificates, replicated ones, and revocations, in one entry of the journal
)

// errNothingEnded keeps an empty entry out of the journal.
var errNothingEnded = errors.New("nothing is to be reaped")

// Run does what has its time, until the context ends: it flushes last uses every
// few seconds, and once more at the end, reaps what has ended at the start and
// every ten minutes, looks after issuers and their CRLs, and counts for the
// metrics each minute, or less often where there is much to count.
func (a *Authority) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { a.reapUntil(ctx) })
	others.Go(func() { a.runIssuers(ctx) })
	others.Go(func() { a.countUntil(ctx) })
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			a.uses.Flush(final)
			return nil
		case <-ticker.C:
			a.uses.Flush(ctx)
		}
	}
}

// countUntil brings the gauges up to date until the context ends.
func (a *Authority) countUntil(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := errors.Join(a.count(ctx), a.CheckIssuers(ctx)); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "counting certificates and issuers", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(max(a.countEvery, countShare*time.Since(began)), watchEvery)):
		}
	}
}

// reapUntil reaps now and every ten minutes until the context ends.
func (a *Authority) reapUntil(ctx context.Context) {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := a.Reap(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "reaping expired certificates", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// count brings the gauges up to date.
func (a *Authority) count(ctx context.Context) error {
	live, expiring, err := countLive(ctx, a.pool, a.now())
	if err != nil {
		return err
	}
	a.metrics.live.Set(float64(live))
	a.metrics.expiring.Set(float64(expiring))
	return nil
}

// Reap removes certificates 30 days after their whole chain of renewals has ended
// and expired, and what authorizers know of certificates, with their revocations,
// a day after they have expired, in entries of a bounded size that the service
// itself makes. Run does it. Several may run at once: the account's lock orders
// them. An account that fails does not keep others from being reaped.
func (a *Authority) Reap(ctx context.Context) error {
	now := a.now()
	accounts, err := accountsToReap(ctx, a.pool, now.Add(-keepExpired), now.Add(-keepRevocation))
	if err != nil {
		return err
	}
	var failed []error
	for _, account := range accounts {
		for ctx.Err() == nil {
			if err := a.reapSome(ctx, account); err != nil {
				if !errors.Is(err, errNothingEnded) {
					failed = append(failed, err)
				}
				break
			}
		}
	}
	return errors.Join(failed...)
}

func (a *Authority) reapSome(ctx context.Context, account sallyport.AccountID) error {
	_, err := a.journal.Commit(ctx, service(account), account, journal.Operation{Type: "ReapCertificates"}, func(tx *journal.Tx) error {
		expired, err := removeExpired(ctx, tx, account, tx.Now().Add(-keepExpired), reapBatch)
		if err != nil {
			return err
		}
		for _, c := range expired {
			tx.Record(journal.Change{Type: "certificate", ID: c.ID, Before: newRecorded(c, nil)})
		}
		useless, err := removeUseless(ctx, tx, account, tx.Now().Add(-keepRevocation), reapBatch)
		if err != nil {
			return err
		}
		for _, r := range useless {
			tx.Record(journal.Change{Type: "revocation", ID: r.ID, Before: r.recorded()})
			if err := tx.Remove(ctx, object.KindRevocation, r.ID); err != nil {
				return err
			}
		}
		forgotten, err := forgetExpired(ctx, tx, account, tx.Now().Add(-keepRevocation), reapBatch)
		if err != nil {
			return err
		}
		for _, id := range forgotten {
			if err := tx.Remove(ctx, object.KindCertificate, id); err != nil {
				return err
			}
		}
		if len(expired)+len(useless)+len(forgotten) == 0 {
			return errNothingEnded
		}
		return nil
	})
	return err
}

// Objects rebuilds the account's replicated certificates, issuers and revocations
// from the tables, by kind and id.
func (a *Authority) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	made, err := replicatedIDs(ctx, q, account)
	if err != nil {
		return nil, err
	}
	var objects []object.Object
	for _, id := range made {
		objects = append(objects, object.Object{Kind: object.KindCertificate, ID: id, Data: object.Encode(object.Certificate{})})
	}
	issuers, err := a.issuerObjects(ctx, q, account)
	if err != nil {
		return nil, err
	}
	objects = append(objects, issuers...)
	ids, err := revocationIDs(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		objects = append(objects, object.Object{Kind: object.KindRevocation, ID: id, Data: object.Encode(object.Revocation{})})
	}
	return objects, nil
}
