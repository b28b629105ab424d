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
	writing   []string // ids of the filters after it that give write: what matched one goes on; never nil
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
	a := affected{left: []string{}, writing: []string{}}
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
	for i, f := range after.CertificateFilters {
		if after.gives(i) == sallyport.PermissionWrite {
			a.writing = append(a.writing, f.ID())
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
	more   bool   // there may be more of them
	asleep bool   // mTLS is off: they do not work now either
	reason string

	unjudged bool // more are in use than were looked at: what becomes of the others is not known
}

// any reports whether something in use stops, or may.
func (s stopping) any() bool { return len(s.seen) > 0 || s.unjudged }

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
	return s, s.judge(ctx, tx, before.ID, t, a)
}

// judge goes through the certificates that the change can concern, some at once:
// until all are judged, or enough of them stop.
func (s *stopping) judge(ctx context.Context, tx *journal.Tx, namespace sallyport.NamespaceID, t *trial, a affected) error {
	var stop, less []Seen
	after := ""
	for looked := 0; ; {
		count, limit := 0, min(maxStops, maxJudged-looked+1)
		t.judged = nil
		err := affectedChains(ctx, tx, tx.Account(), namespace, a, tx.Now().Add(-inUse), tx.Now(), after, limit, func(one seenChain) {
			count, after = count+1, one.Fingerprint
			if looked+count > maxJudged {
				s.unjudged = true
			} else {
				t.judge(one)
			}
		})
		if err != nil {
			return err
		}
		v, err := t.verdict(ctx, tx, tx.Account())
		if err != nil {
			return err
		}
		stop, less, looked = append(stop, v.stop...), append(less, v.less...), looked+count
		s.more = s.unjudged || count == limit && len(stop)+len(less) >= maxStops
		if s.more || count < limit {
			break
		}
	}
	lastFirst := func(a, b Seen) int { return b.Last.Compare(a.Last) }
	slices.SortStableFunc(stop, lastFirst)
	slices.SortStableFunc(less, lastFirst)
	s.seen, s.less = append(stop, less...), len(less)
	return nil
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
	if len(s.seen) == 0 {
		return fmt.Sprintf("%s: more than %d client certificates were in use in the last 7 days, and not all were looked at: some may not work any more", s.reason, maxJudged)
	}
	become := s.which("do not work any more", "may only read now", "do not work any more or may only read now")
	if s.asleep {
		become = s.which("do not work", "may only read", "do not work or may only read") + " when mTLS is on again"
	}
	return fmt.Sprintf("%s: client certificates that were in use in the last 7 days and %s: %s (%s)",
		s.reason, become, s.count(), listed(s.fingerprints(), len(s.seen)))
}

// refusal lists them for somebody who may read the namespace.
func (s stopping) refusal() error {
	if len(s.seen) == 0 {
		return sallyport.Conflict.Errorf("more than %d client certificates were in use in the last 7 days, and not all were looked at: whether some would stop working is not known; force it if none of them needs what goes", maxJudged)
	}
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
