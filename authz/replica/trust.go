package replica

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// trust is a set of CAs. It never changes, so that its address stands for its
// content: what was found out about a chain is kept by it.
type trust struct {
	profile credential.Profile
	cas     []*x509.Certificate
	anchors *credential.Anchors
	filters []filter // of a bundle; none: every leaf matches
	// domains has the trust domain of each managed CA, by its fingerprint.
	domains map[string]string
}

// filter is one of a bundle, and what it gives: what the service account may, or
// else the permission.
type filter struct {
	match          credential.Filter
	serviceAccount string
	permission     sallyport.Permission
}

// everyLeaf is what a bundle without filters gives.
var everyLeaf = filter{permission: sallyport.PermissionWrite}

// bundle is a namespace's client CAs.
type bundle struct {
	namespace string // its id; the namespace itself may not be there
	object    object.ClientCAs
	trust
}

// newBundle reads the object. What is not understood in full gives nil: half of
// the filters, say, would let in whom the others were to keep out.
func newBundle(o object.Object) *bundle {
	v, ok := decode[object.ClientCAs](o)
	if !ok {
		return nil
	}
	b := &bundle{namespace: o.ID, object: v}
	for _, der := range v.Certificates {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		b.cas = append(b.cas, ca)
	}
	var list []credential.Filter
	for _, f := range v.Filters {
		gives := sallyport.PermissionWrite
		switch {
		case f.Permission != "" && (f.Permission != sallyport.PermissionRead.String() || f.ServiceAccount != ""):
			return nil
		case f.Permission != "":
			gives = sallyport.PermissionRead
		}
		match := credential.Filter{CommonName: f.CommonName, Organization: f.Organization,
			OrganizationalUnit: f.OrganizationalUnit, SubjectAlternativeName: f.SubjectAlternativeName}
		list = append(list, match)
		b.filters = append(b.filters, filter{match, f.ServiceAccount, gives})
	}
	if credential.CheckFilters(list) != nil {
		return nil
	}
	b.profile, b.anchors = credential.CustomerCA, credential.NewAnchors(b.cas)
	return b
}

// issuer is one of the account's managed CAs.
type issuer struct {
	id     string
	object object.Issuer
	ca     *x509.Certificate
}

// newIssuer reads the object, nil if it is not understood in full.
func newIssuer(o object.Object) *issuer {
	v, ok := decode[object.Issuer](o)
	if !ok || v.TrustDomain == "" {
		return nil
	}
	ca, err := x509.ParseCertificate(v.Certificate)
	if err != nil || credential.IssuerID(ca) != o.ID {
		return nil
	}
	return &issuer{o.ID, v, ca}
}

// managedTrust is that in the account's issuers, nil if there are none.
func managedTrust(issuers []*issuer) *trust {
	if len(issuers) == 0 {
		return nil
	}
	t := &trust{profile: credential.ManagedCA, domains: map[string]string{}}
	for _, i := range issuers {
		t.cas = append(t.cas, i.ca)
		t.domains[credential.Fingerprint(i.ca)] = i.object.TrustDomain
	}
	t.anchors = credential.NewAnchors(t.cas)
	return t
}

// insertTrust is insert for what certificates are decided by.
func (d *draft) insertTrust(o object.Object) bool {
	switch o.Kind {
	case object.KindClientCAs:
		b := newBundle(o)
		if b == nil {
			return false
		}
		d.bundles.set(d.bundles.hash(o.ID), func(b *bundle) bool { return b.namespace == o.ID }, b)
	case object.KindIssuer:
		i := newIssuer(o)
		if i == nil {
			return false
		}
		d.issuers = append(slices.Clip(d.issuers), i)
		d.issuersChanged = true
	case object.KindRevocation:
		return d.insertRevocation(o)
	case object.KindCertificate:
		return d.insertIssued(o)
	default:
		return d.insertToken(o)
	}
	return true
}

// A verdict is what was found out about a chain and a trust, but for what was
// revoked and what the filters give.
type verdict struct {
	of          *trust
	from, until time.Time // for which times
	// known: the leaf's issuer is trusted here. Otherwise its holder is a stranger
	// and is told nothing of what is here.
	known   bool
	problem string // "" if there is none
	ways    []way  // the one that is valid longest first
	matched []int  // places of the filters that the leaf matches, from 0
	checked verdictCache
}

// way is one chain to a CA that is trusted.
type way struct {
	ca    string // fingerprint of the CA it ends at
	until time.Time
	leaf  revocation   // of the leaf, by its issuer and serial
	rest  []revocation // any of which ends this way
}

// judge is the costly part of a decision.
func (t *trust) judge(p *credential.Presented, now time.Time) *verdict {
	now = now.Truncate(time.Second) // what certificates count in
	v := &verdict{of: t}
	var untimely bool
	v.from, v.until, untimely = t.constant(p.Certificates, now)
	found := p.Verify(t.anchors, t.profile, now)
	v.problem = found.Problem
	v.ways = t.ways(p, found)
	leaf := p.Certificates[0]
	v.known = len(v.ways) > 0 || untimely && (t.knew(p, leaf.NotBefore) || t.knew(p, leaf.NotAfter))
	if v.known {
		for i := range t.filters {
			if t.filters[i].match.Match(p) {
				v.matched = append(v.matched, i)
			}
		}
	}
	return v
}

// knew reports whether the chain held at another time: its holder has a leaf of
// the right issuer and may be told what is wrong with the chain now.
func (t *trust) knew(p *credential.Presented, at time.Time) bool {
	return len(t.ways(p, p.Verify(t.anchors, t.profile, at))) > 0
}

// ways are those of the chains that count: a managed CA's in its own trust domain.
func (t *trust) ways(p *credential.Presented, found credential.Verified) []way {
	var ways []way
	for i := range found.Chains {
		chain := &found.Chains[i]
		if t.profile == credential.ManagedCA && (p.TrustDomain == "" || t.domains[chain.Anchor] != p.TrustDomain) {
			continue
		}
		if w, ok := newWay(chain); ok {
			ways = append(ways, w)
		}
	}
	return ways
}

func newWay(chain *credential.Chain) (w way, ok bool) {
	w = way{ca: chain.Anchor, until: chain.NotAfter.Add(time.Second)} // that second is a valid one
	w.rest = make([]revocation, 0, 3*len(chain.IssuerIDs))
	for i, id := range chain.IssuerIDs {
		issuer, err := hex.DecodeString(id)
		if err != nil || len(issuer) != sha256.Size {
			return w, false // nothing could revoke it
		}
		serial := revocation{revokedSerial, string(append(issuer[:sha256.Size:sha256.Size], chain.Certificates[i].SerialNumber.Bytes()...))}
		if i == 0 {
			w.leaf = serial
		} else {
			w.rest = append(w.rest, serial)
		}
		ca := sha256.Sum256(chain.Certificates[i+1].Raw)
		w.rest = append(w.rest, revocation{revokedIssuer, string(issuer)}, revocation{revokedCertificate, string(ca[:])})
	}
	// A CA that nothing stands above is known by its serial number where it signed
	// itself; others are revoked by their fingerprint or key.
	if end := chain.Certificates[len(chain.Certificates)-1]; selfSigned(end) {
		issuer := sha256.Sum256(end.RawSubjectPublicKeyInfo)
		w.rest = append(w.rest, revocation{revokedSerial, string(append(issuer[:], end.SerialNumber.Bytes()...))})
	}
	return w, len(chain.IssuerIDs) > 0
}

func selfSigned(ca *x509.Certificate) bool {
	return bytes.Equal(ca.RawIssuer, ca.RawSubject) && ca.CheckSignature(ca.SignatureAlgorithm, ca.RawTBSCertificate, ca.Signature) == nil
}

// constant gives the times around a second between which the validity of none of
// the certificates begins or ends. untimely: one of them is not valid then.
func (t *trust) constant(presented []*x509.Certificate, now time.Time) (from, until time.Time, untimely bool) {
	until = time.Unix(1<<40, 0)
	for _, list := range [][]*x509.Certificate{presented, t.cas} {
		for _, c := range list {
			end := c.NotAfter.Add(time.Second) // the second itself is a valid one
			untimely = untimely || now.Before(c.NotBefore) || !now.Before(end)
			for _, edge := range [...]time.Time{c.NotBefore, end} {
				if now.Before(edge) {
					until = earlier(until, edge.Add(-1))
				} else {
					from = later(from, edge)
				}
			}
		}
	}
	return from, until, untimely
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// standing is which of a verdict's ways the revocations leave.
type standing struct {
	by     *mark
	way    *way   // nil: none
	reason string // why none
}

const (
	reasonRevoked       = "the client certificate was revoked; use another one"
	reasonIssuerRevoked = "the CA of the client certificate was revoked; use a certificate of another one"
)

// standing looks up what was revoked when that has changed.
func (j *verdict) standing(v *view, p *presented) *standing {
	s := j.checked.Load()
	if s == nil || s.by != v.revocationMark {
		s = j.look(v, p)
		j.checked.Store(s)
	}
	return s
}

func (j *verdict) look(v *view, p *presented) *standing {
	s := &standing{by: v.revocationMark, reason: reasonIssuerRevoked}
	if v.revoked(p.leaf) || slices.ContainsFunc(j.ways, func(w way) bool { return v.revoked(w.leaf) }) {
		s.reason = reasonRevoked
		return s
	}
	for i := range j.ways {
		if !slices.ContainsFunc(j.ways[i].rest, v.revoked) {
			s.way, s.reason = &j.ways[i], ""
			return s
		}
	}
	return s
}

// packFingerprint is the revocation of the certificate itself.
func packFingerprint(fingerprint string) revocation {
	packed, err := hex.DecodeString(fingerprint)
	if err != nil {
		return revocation{}
	}
	return revocation{revokedCertificate, string(packed)}
}
