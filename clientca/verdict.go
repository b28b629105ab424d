package clientca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
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
	give    []sallyport.Permission // the filters; nil: write each
	off     bool                   // nobody is let in
}

func newRules(cas []*x509.Certificate, filters []credential.Filter, give []sallyport.Permission) rules {
	return rules{credential.NewAnchors(cas), filters, give, false}
}

// gives is the most that the certificate may by the filters, write at most.
func (r rules) gives(p *credential.Presented) sallyport.Permission {
	if len(r.filters) == 0 {
		return sallyport.PermissionWrite
	}
	most := sallyport.NoPermission
	for i, f := range r.filters {
		switch {
		case !f.Match(p):
		case r.give == nil:
			return sallyport.PermissionWrite
		default:
			most = max(most, r.give[i])
		}
	}
	return most
}

// way is a chain by which rules let a certificate in, by the ids of the
// revocations that concern it.
type way struct {
	leaf string   // of the certificate by its number: it ends with all of its ways
	rest []string // of the CAs: any of them ends this way alone
}

// ways are the chains by which the rules let the certificate in, but for what is
// revoked. There are none if they do not.
func (r rules) ways(p *credential.Presented, now time.Time) []way {
	if r.off || r.gives(p) == sallyport.NoPermission {
		return nil
	}
	var ways []way
	for _, chain := range p.Verify(r.anchors, credential.CustomerCA, now).Chains {
		if len(chain.IssuerIDs) == 0 {
			continue
		}
		w := way{leaf: object.RevokedSerial(chain.IssuerIDs[0], p.Serial)}
		for i, ca := range chain.Certificates[1:] {
			above := chain.IssuerIDs[i+1:]
			if len(above) == 0 && bytes.Equal(ca.RawSubject, ca.RawIssuer) {
				above = chain.IssuerIDs[i:] // a root's is its own
			}
			w.rest = append(w.rest, revocationsOf(ca, above[:min(1, len(above))]...)...)
		}
		ways = append(ways, w)
	}
	return ways
}

// managedWays are those of a certificate of the managed CA.
func managedWays(p *credential.Presented, issuers []*x509.Certificate) []way {
	var ways []way
	for _, ca := range issuers {
		if bytes.Equal(ca.RawSubject, p.Certificates[0].RawIssuer) {
			ways = append(ways, way{object.RevokedSerial(credential.IssuerID(ca), p.Serial), revocationsOf(ca)})
		}
	}
	return ways
}

// revocationsOf are the ids of the revocations that end a CA: of its key, of the
// certificate, and of its number under issuers.
func revocationsOf(ca *x509.Certificate, issuers ...string) []string {
	ids := []string{object.RevokedIssuer(credential.IssuerID(ca)), object.RevokedCertificate(credential.Fingerprint(ca))}
	for _, issuer := range issuers {
		ids = append(ids, object.RevokedSerial(issuer, credential.SerialText(ca.SerialNumber)))
	}
	return ids
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
	managed       []*x509.Certificate // the account's own CAs, whose certificates stop when mTLS does
	now           time.Time
	count         int
	judged        []judged
}

// judged is one certificate that one side's rules at least let in.
type judged struct {
	Seen
	before, after []way
	less          bool // after gives less than before
}

// judge takes a certificate in.
func (t *trial) judge(s seenChain) {
	t.count++
	p := s.presented()
	if p == nil {
		return
	}
	j := judged{Seen: s.Seen}
	if s.Managed {
		j.before = managedWays(p, t.managed)
	} else {
		j.before, j.after = t.before.ways(p, t.now), t.after.ways(p, t.now)
		j.less = t.after.gives(p) < t.before.gives(p)
	}
	if len(j.before) > 0 || len(j.after) > 0 {
		t.judged = append(t.judged, j)
	}
}

// verdict is the certificates that the two sides do not treat alike.
type verdict struct {
	stop, start []Seen
	less        []Seen // go on, and may less
}

// verdict judges them. What is revoked or has expired is let in by neither side.
func (t *trial) verdict(ctx context.Context, q pg.Querier, account sallyport.AccountID) (v verdict, err error) {
	ids := map[string]bool{}
	for _, j := range t.judged {
		ids[object.RevokedCertificate(j.Fingerprint)] = true
		for _, w := range slices.Concat(j.before, j.after) {
			ids[w.leaf] = true
			for _, id := range w.rest {
				ids[id] = true
			}
		}
	}
	ended, err := revocations(ctx, q, account, ids)
	if err != nil {
		return verdict{}, err
	}
	for _, j := range t.judged {
		switch was, is := ended.good(j, j.before), ended.good(j, j.after); {
		case was && !is:
			v.stop = append(v.stop, j.Seen)
		case is && !was:
			v.start = append(v.start, j.Seen)
		case is && j.less:
			v.less = append(v.less, j.Seen)
		}
	}
	return v, nil
}

// revoked are ids of revocations that the account has.
type revoked map[string]bool

// revocations finds those of the ids that there are.
func revocations(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids map[string]bool) (revoked, error) {
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

// good reports whether one of the ways lets the certificate in.
func (r revoked) good(j judged, ways []way) bool {
	if r[object.RevokedCertificate(j.Fingerprint)] || slices.ContainsFunc(ways, func(w way) bool { return r[w.leaf] }) {
		return false
	}
	return slices.ContainsFunc(ways, func(w way) bool {
		return !slices.ContainsFunc(w.rest, func(id string) bool { return r[id] })
	})
}

// revokedCA is what is said of a CA that the account has revoked.
const revokedCA = "is revoked in this account: no client certificate is accepted by a chain through it; take it out of the bundle, and let another CA issue their successors"

// revokedCAs tells of each CA of a bundle whether the account has revoked it, in
// whatever form.
func revokedCAs(ctx context.Context, q pg.Querier, account sallyport.AccountID, cas []*x509.Certificate) ([]bool, error) {
	named := make([][]string, len(cas))
	ids := map[string]bool{}
	for i, ca := range cas {
		var issuers []string // itself, if it is a root
		for _, other := range cas {
			if bytes.Equal(other.RawSubject, ca.RawIssuer) {
				issuers = append(issuers, credential.IssuerID(other))
			}
		}
		named[i] = revocationsOf(ca, issuers...)
		for _, id := range named[i] {
			ids[id] = true
		}
	}
	ended, err := revocations(ctx, q, account, ids)
	if err != nil {
		return nil, err
	}
	all := make([]bool, len(cas))
	for i := range cas {
		all[i] = slices.ContainsFunc(named[i], func(id string) bool { return ended[id] })
	}
	return all, nil
}

// bundleWarnings are for people: of CAs that have expired, or will soon, and of
// those that are revoked.
func bundleWarnings(ctx context.Context, q pg.Querier, account sallyport.AccountID, cas []*x509.Certificate, now time.Time) ([]string, error) {
	warnings := credential.ClientCAWarnings(cas, now)
	all, err := revokedCAs(ctx, q, account, cas)
	for i, ended := range all {
		if ended {
			warnings = append(warnings, fmt.Sprintf("client CA certificate %d (%q) %s", i+1, text(cas[i].Subject.String(), maxName), revokedCA))
		}
	}
	return warnings, err
}
