package clientca

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// rules are a bundle and filters, ready to judge certificates.
type rules struct {
	anchors *credential.Anchors
	filters []credential.Filter
	off     bool // nobody is let in
}

func newRules(cas []*x509.Certificate, filters []credential.Filter, off bool) rules {
	return rules{credential.NewAnchors(cas), filters, off}
}

// issuers are the chains by which the rules let the certificate in, but for what
// is revoked: the ids of the CAs in each. There are none if they do not.
func (r rules) issuers(p *credential.Presented, now time.Time) [][]string {
	if r.off || len(r.filters) > 0 && !slices.ContainsFunc(r.filters, func(f credential.Filter) bool { return f.Match(p) }) {
		return nil
	}
	var chains [][]string
	for _, chain := range p.Verify(r.anchors, credential.CustomerCA, now).Chains {
		if len(chain.IssuerIDs) > 0 {
			chains = append(chains, chain.IssuerIDs)
		}
	}
	return chains
}

// seenChain is a seen certificate with what was presented.
type seenChain struct {
	Seen
	chain [][]byte
}

// presented parses a stored chain; nil if it is none.
func (s seenChain) presented() *credential.Presented {
	certs, err := parseChain(s.chain)
	if err != nil {
		return nil
	}
	return credential.NewPresented(certs)
}

// Bounds of a chain, as those of what authorizers look at.
const (
	maxChain      = 10
	maxChainBytes = 64 << 10
)

var errNoChain = errors.New("no chain of certificates")

// parseChain reads what a stranger presented.
func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	size := 0
	for _, der := range chain {
		size += len(der)
	}
	if len(chain) == 0 || len(chain) > maxChain || size > maxChainBytes {
		return nil, errNoChain
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errNoChain
		}
		certs[i] = cert
	}
	return certs, nil
}

// trial judges certificates by the rules before and those after a change, one
// by one: what clients presented may be large, and is not kept.
type trial struct {
	before, after rules
	now           time.Time
	count         int
	judged        []judged
}

// judged is one certificate that one side's rules at least let in: by chains
// through CAs of these issuer ids, the leaf's issuer first.
type judged struct {
	Seen
	serial        string
	before, after [][]string
}

// judge takes a certificate in.
func (t *trial) judge(s seenChain) {
	t.count++
	p := s.presented()
	if p == nil {
		return
	}
	j := judged{s.Seen, p.Serial, t.before.issuers(p, t.now), t.after.issuers(p, t.now)}
	if len(j.before) > 0 || len(j.after) > 0 {
		t.judged = append(t.judged, j)
	}
}

// verdict gives those of the certificates that the two sides do not treat alike.
// What is revoked or has expired is let in by neither.
func (t *trial) verdict(ctx context.Context, q pg.Querier, account sallyport.AccountID) (stop, start []Seen, err error) {
	ended, err := revocations(ctx, q, account, t.judged)
	if err != nil {
		return nil, nil, err
	}
	for _, j := range t.judged {
		switch was, is := ended.good(j, j.before), ended.good(j, j.after); {
		case was && !is:
			stop = append(stop, j.Seen)
		case is && !was:
			start = append(start, j.Seen)
		}
	}
	return stop, start, nil
}

// revoked are the ids of the revocations that concern some certificates.
type revoked map[string]bool

func revocations(ctx context.Context, q pg.Querier, account sallyport.AccountID, all []judged) (revoked, error) {
	ids := map[string]bool{}
	for _, j := range all {
		ids[object.RevokedCertificate(j.Fingerprint)] = true
		for _, chain := range slices.Concat(j.before, j.after) {
			ids[object.RevokedSerial(chain[0], j.serial)] = true
			for _, issuer := range chain {
				ids[object.RevokedIssuer(issuer)] = true
			}
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	objects, err := journal.ReadObjects(ctx, q, account, object.KindRevocation, slices.Collect(maps.Keys(ids)))
	if err != nil {
		return nil, err
	}
	found := revoked{}
	for _, o := range objects {
		found[o.ID] = true
	}
	return found, nil
}

// good reports whether one of the chains lets the certificate in.
func (r revoked) good(j judged, chains [][]string) bool {
	if r[object.RevokedCertificate(j.Fingerprint)] {
		return false
	}
	if slices.ContainsFunc(chains, func(chain []string) bool { return r[object.RevokedSerial(chain[0], j.serial)] }) {
		return false
	}
	return slices.ContainsFunc(chains, func(chain []string) bool {
		return !slices.ContainsFunc(chain, func(issuer string) bool { return r[object.RevokedIssuer(issuer)] })
	})
}
