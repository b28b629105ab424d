package clientca

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// affected are the certificates that a change can concern.
type affected struct {
	all       bool     // mTLS ends, also for the managed CA's
	customers bool     // filters became narrower
	gone      int      // of the bundle's CAs
	left      []string // fingerprints of the bundle's CAs after it; never nil, which SQL would take for unknown
}

func (a affected) reason() string {
	var reasons []string
	if a.all {
		reasons = append(reasons, "mTLS was switched off")
	}
	if a.gone > 0 {
		reasons = append(reasons, "client CAs were removed")
	}
	if a.customers {
		reasons = append(reasons, "certificate filters became narrower")
	}
	return strings.Join(reasons, ", ")
}

// narrower reports whether filters may let in less than those before.
func narrower(before, after []credential.Filter) bool {
	if len(after) == 0 {
		return false
	}
	ids := map[string]bool{}
	for _, f := range after {
		ids[f.ID()] = true
	}
	return len(before) == 0 || slices.ContainsFunc(before, func(f credential.Filter) bool { return !ids[f.ID()] })
}

// stopping are the certificates in use that a change would stop.
type stopping struct {
	seen   []Seen // the last seen first
	more   bool   // than were looked at
	reason string
}

// stops finds the certificates in use that the change from before to after
// stops. It looks only at those that the change can concern, in the account's lock.
func (c *ClientCAs) stops(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) (stopping, error) {
	if before.ID == "" || !before.MTLSAuth {
		return stopping{}, nil
	}
	old, next := certificates(before.ClientCA), certificates(after.ClientCA)
	a := affected{all: !after.MTLSAuth, customers: narrower(before.CertificateFilters, after.CertificateFilters), left: []string{}}
	for _, ca := range next {
		a.left = append(a.left, credential.Fingerprint(ca))
	}
	for _, ca := range old {
		if !slices.ContainsFunc(next, ca.Equal) {
			a.gone++
		}
	}
	if !a.all && !a.customers && a.gone == 0 {
		return stopping{}, nil
	}
	s := stopping{reason: a.reason()}
	t := &trial{now: tx.Now(), before: newRules(old, before.CertificateFilters, false), after: newRules(next, after.CertificateFilters, !after.MTLSAuth)}
	if a.all {
		var err error
		if t.managed, err = c.issuers(ctx, tx, tx.Account()); err != nil {
			return stopping{}, err
		}
	}
	count := 0
	err := affectedChains(ctx, tx, tx.Account(), before.ID, a, tx.Now().Add(-inUse), tx.Now(), maxStops+1, func(one seenChain) {
		if count++; count > maxStops {
			s.more = true
		} else {
			t.judge(one)
		}
	})
	if err != nil {
		return stopping{}, err
	}
	s.seen, _, err = t.verdict(ctx, tx, tx.Account())
	return s, err
}

// fingerprints of the first of them.
func (s stopping) fingerprints() []string {
	var list []string
	for _, one := range s.seen[:min(len(s.seen), maxListed)] {
		list = append(list, one.Fingerprint)
	}
	return list
}

func (s stopping) count() string {
	if s.more {
		return fmt.Sprintf("at least %d", len(s.seen))
	}
	return fmt.Sprint(len(s.seen))
}

// text is the warning. It names certificates by their fingerprints alone: it
// stays in the journal, and names in certificates may be people's.
func (s stopping) text() string {
	return fmt.Sprintf("%s: client certificates that were in use in the last 7 days and do not work any more: %s (%s)",
		s.reason, s.count(), listed(s.fingerprints(), len(s.seen)))
}

// refusal lists them for somebody who may read the namespace.
func (s stopping) refusal() error {
	var list []string
	for _, one := range s.seen[:min(len(s.seen), maxListed)] {
		list = append(list, fmt.Sprintf("%s (%s)", one.Fingerprint, text(one.Subject, 60)))
	}
	return sallyport.Conflict.Errorf("client certificates that were in use in the last 7 days would stop working: %s (%s); move their owners first, or force it",
		s.count(), listed(list, len(s.seen)))
}

func listed(list []string, count int) string {
	if count > len(list) {
		list = append(list, fmt.Sprintf("and %d more", count-len(list)))
	}
	return strings.Join(list, ", ")
}
