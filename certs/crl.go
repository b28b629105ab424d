package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const (
	// crlLife is between a CRL and its nextUpdate; the next one is made halfway.
	crlLife = 24 * time.Hour
	// crlKeeps is how long a CRL still names a certificate that has expired: it
	// must be in one that was made after that (RFC 5280, 3.3).
	crlKeeps = 2 * crlLife
)

// CRL is a certificate revocation list of one issuer.
type CRL struct {
	DER        []byte
	Number     int64     // rises with each, also over copies of the service and restores of its database
	ThisUpdate time.Time // in whole seconds; rises with each while clocks go forward
	NextUpdate time.Time
}

// CRL gives the newest revocation list of one of the operator's CAs or an
// account's. It has all that is revoked at the moment: a new one is signed when
// something was revoked since the last, or half of its life is over. When that
// cannot be done the last one is given as long as it is valid.
func (a *Authority) CRL(ctx context.Context, issuer string) (CRL, error) {
	row, err := findIssuer(ctx, a.pool, issuer)
	if err != nil {
		return CRL{}, err
	}
	c, err := a.freshCRL(ctx, row)
	return CRL{DER: c.der, Number: c.number, ThisUpdate: c.thisUpdate, NextUpdate: c.nextUpdate}, err
}

func (a *Authority) freshCRL(ctx context.Context, row issuerRow) (crl, error) {
	kept, fresh, err := a.keptCRL(ctx, a.pool, row)
	if err != nil {
		return crl{}, err
	}
	if !fresh {
		signed, err := a.signCRL(ctx, row)
		if err == nil {
			return signed, nil
		}
		if ctx.Err() == nil {
			a.issuers.metrics.crlFailures.Inc()
			a.log.WarnContext(ctx, "signing a CRL", "issuer", row.id, "error", err)
		}
		if !a.now().Before(kept.nextUpdate) {
			return crl{}, &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the CRL cannot be made now; try again", Err: err}
		}
	}
	return findCRL(ctx, a.pool, row.account, row.id, true)
}

// keptCRL reads the last CRL, without its content, and whether it still is to be
// given out.
func (a *Authority) keptCRL(ctx context.Context, q pg.Querier, row issuerRow) (kept crl, fresh bool, err error) {
	if kept, err = findCRL(ctx, q, row.account, row.id, false); err != nil {
		return crl{}, false, err
	}
	revision, err := revokedRevision(ctx, q, row.account, row.id)
	if err != nil {
		return crl{}, false, err
	}
	ended := a.now().After(row.notAfter) && kept.number > 0 // nobody asks what an expired CA revoked
	fresh = ended || kept.revision == revision && a.now().Before(kept.nextUpdate.Add(-crlLife/2))
	return kept, fresh, nil
}

// signCRL signs and keeps the issuer's next CRL, unless another copy of the
// service has done it by now.
func (a *Authority) signCRL(ctx context.Context, row issuerRow) (crl, error) {
	signer, err := a.signer(row)
	if err != nil {
		return crl{}, err
	}
	if len(row.certificates) == 0 {
		return crl{}, errors.New("the issuer has no certificate")
	}
	var next crl
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if err := lockIssuer(ctx, tx, row.account, row.id); err != nil {
			return err
		}
		kept, fresh, err := a.keptCRL(ctx, tx, row)
		if err != nil {
			return err
		}
		if fresh {
			next, err = findCRL(ctx, tx, row.account, row.id, true)
			return err
		}
		if err := a.awaitNextSecond(ctx, kept.thisUpdate); err != nil {
			return err
		}
		if next, err = a.nextCRL(ctx, tx, row, signer, kept); err != nil {
			return err
		}
		return putCRL(ctx, tx, row.account, row.id, next)
	})
	return next, err
}

// nextCRL signs the CRL after the last one, which is zero if there was none.
func (a *Authority) nextCRL(ctx context.Context, tx pgx.Tx, row issuerRow, signer crypto.Signer, last crl) (crl, error) {
	now := a.now().UTC().Truncate(time.Second)
	// The clock is what an older copy of the table does not know.
	next := crl{number: max(last.number+1, a.now().UnixMilli()), nextUpdate: now.Add(crlLife)}
	// Read before the entries: what is revoked in between is in this CRL, and
	// makes another.
	var err error
	if next.revision, err = revokedRevision(ctx, tx, row.account, row.id); err != nil {
		return crl{}, err
	}
	entries, err := revokedUnder(ctx, tx, row.account, row.id, now.Add(-crlKeeps))
	if err != nil {
		return crl{}, err
	}
	next.thisUpdate = begin(entries, last.thisUpdate, now)
	for i := range entries {
		if entries[i].RevocationTime.After(next.thisUpdate) {
			entries[i].RevocationTime = next.thisUpdate // by a clock that is ahead: no entry is of later than the list
		}
	}
	next.der, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(next.number), ThisUpdate: next.thisUpdate, NextUpdate: next.nextUpdate,
		RevokedCertificateEntries: entries}, row.certificates[0], signer)
	if err != nil {
		return crl{}, fmt.Errorf("signing a CRL: %w", err)
	}
	a.issuers.metrics.crls.Inc()
	return next, nil
}

// begin is a CRL's thisUpdate: some minutes back, for readers whose clocks are
// behind, but not before what was revoked, nor before the last CRL's.
func begin(entries []x509.RevocationListEntry, last, now time.Time) time.Time {
	from := later(now.Add(-backdate), last.Add(time.Second))
	for _, e := range entries {
		from = later(from, e.RevocationTime.Truncate(time.Second))
	}
	if from.After(now) { // another copy's clock was ahead
		return now
	}
	return from
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// awaitNextSecond makes sure that two CRLs are not of the same second, which is
// all that readers and caches see of their times.
func (a *Authority) awaitNextSecond(ctx context.Context, last time.Time) error {
	left := last.Add(time.Second).Sub(a.now())
	if left <= 0 || left > time.Second { // a last one in the future comes of another copy's clock
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(left):
		return nil
	}
}

// RenewCRLs signs anew the CRLs whose life is half over, of issuers whose CRL
// was once asked for. Run does it.
func (a *Authority) RenewCRLs(ctx context.Context) error {
	const batch = 100
	var failed []error
	unsigned := 0
	for after := ""; ctx.Err() == nil; {
		stale, err := staleCRLs(ctx, a.pool, a.now(), a.now().Add(crlLife/2), after, batch)
		if err != nil {
			return err
		}
		for _, issuer := range stale {
			c, err := a.CRL(ctx, issuer)
			if err != nil {
				failed = append(failed, fmt.Errorf("issuer %s: %w", issuer, err))
			}
			if err != nil || c.NextUpdate.Before(a.now().Add(crlLife/2)) { // the last one goes on
				unsigned++
			}
		}
		if len(stale) < batch {
			break
		}
		after = stale[len(stale)-1]
	}
	if ctx.Err() == nil {
		a.noteStale(unsigned)
	}
	return errors.Join(failed...)
}
