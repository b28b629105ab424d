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

// side is a namespace before or after a change.
type side struct {
	directory.Namespace
	give []sallyport.Permission // its filters; nil: write each
}

// affected are the certificates that a change can concern.
type affected struct {
	all       bool     // mTLS ends, also for the managed CA's
	customers bool     // filters became narrower, or give less
	gone      int      // of the bundle's CAs
	left      []string // fingerprints of the bundle's CAs after it; never nil, which SQL would take for unknown
	reasons   []string
}

func (a *affected) because(is bool, reason string) bool {
	if is {
		a.reasons = append(a.reasons, reason)
	}
	return is
}

// affects compares two sides. While mTLS is off what counts is who will be let in
// when it is on again.
func affects(before, after side, asleep bool) affected {
	a := affected{left: []string{}}
	a.all = a.because(!asleep && !after.MTLSAuth, "mTLS was switched off")
	next := certificates(after.ClientCA)
	for _, ca := range next {
		a.left = append(a.left, credential.Fingerprint(ca))
	}
	for _, ca := range certificates(before.ClientCA) {
		if !slices.ContainsFunc(next, ca.Equal) {
			a.gone++
		}
	}
	a.because(a.gone > 0, "client CAs were removed")
	narrower := a.because(narrower(before.CertificateFilters, after.CertificateFilters), "certificate filters became narrower")
	a.customers = a.because(givesLess(before, after), "what certificate filters give became less") || narrower
	return a
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

// givesLess reports whether a filter of both sides gives less than before.
func givesLess(before, after side) bool {
	gave := map[string]sallyport.Permission{}
	for i, f := range before.CertificateFilters {
		gave[f.ID()] = before.gives(i)
	}
	for i, f := range after.CertificateFilters {
		if after.gives(i) < gave[f.ID()] {
			return true
		}
	}
	return false
}

func (s side) gives(filter int) sallyport.Permission {
	if s.give == nil {
		return sallyport.PermissionWrite
	}
	return s.give[filter]
}

// stopping are the certificates in use that a change would stop, or leave less.
type stopping struct {
	seen   []Seen // the last seen first; after them those that may still read
	less   int    // of them that may still read
	more   bool   // than were looked at
	asleep bool   // mTLS is off: they do not work now either
	reason string
}

// stops finds the certificates in use that the change from before to after
// stops. It looks only at those that the change can concern, in the account's lock.
func (c *ClientCAs) stops(ctx context.Context, tx *journal.Tx, before, after side) (stopping, error) {
	if before.ID == "" {
		return stopping{}, nil
	}
	s := stopping{asleep: !before.MTLSAuth}
	a := affects(before, after, s.asleep)
	if !a.all && !a.customers && a.gone == 0 {
		return stopping{}, nil
	}
	s.reason = strings.Join(a.reasons, ", ")
	t := &trial{now: tx.Now(), before: newRules(certificates(before.ClientCA), before.CertificateFilters, before.give),
		after: newRules(certificates(after.ClientCA), after.CertificateFilters, after.give)}
	if t.after.off = a.all; a.all {
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
	v, err := t.verdict(ctx, tx, tx.Account())
	s.seen, s.less = append(v.stop, v.less...), len(v.less)
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

// one of three texts, as what becomes of them is.
func (s stopping) which(stop, less, both string) string {
	switch s.less {
	case 0:
		return stop
	case len(s.seen):
		return less
	}
	return both
}

// text is the warning. It names certificates by their fingerprints alone: it
// stays in the journal, and names in certificates may be people's.
func (s stopping) text() string {
	become := s.which("do not work any more", "may only read now", "do not work any more or may only read now")
	if s.asleep {
		become = s.which("do not work", "may only read", "do not work or may only read") + " when mTLS is on again"
	}
	return fmt.Sprintf("%s: client certificates that were in use in the last 7 days and %s: %s (%s)",
		s.reason, become, s.count(), listed(s.fingerprints(), len(s.seen)))
}

// refusal lists them for somebody who may read the namespace.
func (s stopping) refusal() error {
	var list []string
	for _, one := range s.seen[:min(len(s.seen), maxListed)] {
		list = append(list, fmt.Sprintf("%s (%s)", one.Fingerprint, text(one.Subject, 60)))
	}
	become := s.which("would stop working", "could only read", "would stop working or could only read")
	if s.asleep {
		become = s.which("would not work", "could only read", "would not work or could only read") + " when mTLS is on again"
	}
	return sallyport.Conflict.Errorf("client certificates that were in use in the last 7 days %s: %s (%s); move their owners first, or force it",
		become, s.count(), listed(list, len(s.seen)))
}

func listed(list []string, count int) string {
	if count > len(list) {
		list = append(list, fmt.Sprintf("and %d more", count-len(list)))
	}
	return strings.Join(list, ", ")
}
