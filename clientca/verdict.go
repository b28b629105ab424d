package clientca

import (
	"context"
	"crypto/x509"
	"errors"
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

// chains are those by which the rules let the certificate in, but for what is
// revoked; none if they do not.
func (r rules) chains(p *credential.Presented, now time.Time) []credential.Chain {
	if r.off || p.Problem != "" {
		return nil
	}
	if len(r.filters) > 0 && !slices.ContainsFunc(r.filters, func(f credential.Filter) bool { return f.Match(p) }) {
		return nil
	}
	v := p.Verify(r.anchors, credential.CustomerCA, now)
	if v.Problem != "" {
		return nil
	}
	return v.Chains
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

// judged is one certificate under the rules before and after.
type judged struct {
	seenChain
	serial        string
	before, after []credential.Chain
}

// judge gives those of the certificates that the rules before and those after do
// not treat alike. What is revoked or has expired is let in by neither.
func judge(ctx context.Context, q pg.Querier, account sallyport.AccountID, seen []seenChain, before, after rules, now time.Time) (stop, start []seenChain, err error) {
	var all []judged
	for _, s := range seen {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		p := s.presented()
		if p == nil {
			continue
		}
		j := judged{seenChain: s, serial: p.Serial, before: before.chains(p, now), after: after.chains(p, now)}
		if len(j.before) > 0 || len(j.after) > 0 {
			all = append(all, j)
		}
	}
	revoked, err := revocations(ctx, q, account, all)
	if err != nil {
		return nil, nil, err
	}
	for _, j := range all {
		switch was, is := revoked.good(j, j.before), revoked.good(j, j.after); {
		case was && !is:
			stop = append(stop, j.seenChain)
		case is && !was:
			start = append(start, j.seenChain)
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
			for i, issuer := range chain.IssuerIDs {
				ids[object.RevokedIssuer(issuer)] = true
				if i == 0 {
					ids[object.RevokedSerial(issuer, j.serial)] = true
				}
			}
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	list := make([]string, 0, len(ids))
	for id := range ids {
		list = append(list, id)
	}
	objects, err := journal.ReadObjects(ctx, q, account, object.KindRevocation, list)
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
func (r revoked) good(j judged, chains []credential.Chain) bool {
	if r[object.RevokedCertificate(j.Fingerprint)] {
		return false
	}
	for _, chain := range chains {
		if len(chain.IssuerIDs) > 0 && r[object.RevokedSerial(chain.IssuerIDs[0], j.serial)] {
			return false
		}
	}
	return slices.ContainsFunc(chains, func(chain credential.Chain) bool {
		return !slices.ContainsFunc(chain.IssuerIDs, func(issuer string) bool { return r[object.RevokedIssuer(issuer)] })
	})
}
