package credential

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// maxSameName bounds the ways that same-named CAs among those presented open: a
// cross-signed CA is there twice.
const maxSameName = 2

// maxChains is how many ways from a leaf to the anchors are told of.
const maxChains = 16

// Presented is what a client presented, with all that every call needs of it. It
// does not change and is safe for concurrent use.
type Presented struct {
	Certificates []*x509.Certificate // leaf first, as presented
	Fingerprint  string              // the leaf's
	Serial       string              // the leaf's, as SerialText gives it
	Problem      string              // why it is refused whatever the CAs and the time; "" if it is not

	// What the leaf's only URI says, where it has the form of SPIFFEID: a hint
	// for where to look. Only a chain to a CA of that account's own proves it.
	TrustDomain    string
	Account        sallyport.AccountID
	ServiceAccount string

	usage     x509.ExtKeyUsage
	leaf      member
	presented []member       // CAs; those that cannot be in a chain are kept for the explanation
	pool      *x509.CertPool // of those that can; nil if there are none

	commonNames, organizations, units, altNames []string // of the leaf, in lower case
}

// member is a certificate of a chain with what is computed once of it.
type member struct {
	cert        *x509.Certificate
	fingerprint string
	issuerID    string       // "" for a leaf
	name        string       // as distinguishedName gives it
	flaw        string       // why no chain goes through it; "" if one may
	names       *constraints // of a CA; nil if it has none
}

// NewPresented reads what a client presented, leaf first. Whatever that is, its
// work is bounded: of more than 10 certificates or 64 KB nothing is looked at.
func NewPresented(certs []*x509.Certificate) *Presented {
	return newPresented(certs, x509.ExtKeyUsageClientAuth)
}

func newPresented(certs []*x509.Certificate, usage x509.ExtKeyUsage) *Presented {
	p := &Presented{Certificates: certs, usage: usage}
	if len(certs) == 0 {
		p.Problem = "no client certificate was presented"
		return p
	}
	size := 0
	for _, cert := range certs {
		size += len(cert.Raw)
	}
	p.Fingerprint, p.Serial = Fingerprint(certs[0]), SerialText(certs[0].SerialNumber)
	if len(certs) > maxChain || size > maxChainBytes {
		p.Problem = fmt.Sprintf("%d certificates with %d bytes were presented; at most %d with %d are possible", len(certs), size, maxChain, maxChainBytes)
		return p
	}
	p.leaf = member{cert: certs[0], fingerprint: p.Fingerprint, name: distinguishedName(certs[0]), flaw: leafFlaw(certs[0], usage)}
	if p.leaf.flaw != "" {
		p.Problem = "the client certificate " + p.leaf.flaw
		return p
	}
	p.readNames()
	p.readCAs()
	return p
}

// readCAs takes up the CAs after the leaf. Those that name themselves as their
// issuer do not help: a root is trusted for being an anchor or not at all.
func (p *Presented) readCAs() {
	for i, cert := range p.Certificates[1:] {
		if selfIssued(cert) || slices.ContainsFunc(p.Certificates[:i+1], cert.Equal) {
			continue
		}
		m := memberOf(cert)
		same := 1
		for _, other := range p.presented {
			if other.name == m.name {
				same++
			}
		}
		if same > maxSameName {
			p.Problem = fmt.Sprintf("more than %d certificates of the CA %s were presented; present those of one chain", maxSameName, nameOf(cert))
			return
		}
		p.presented = append(p.presented, m)
		if m.flaw != "" {
			continue
		}
		if p.pool == nil {
			p.pool = x509.NewCertPool()
		}
		p.pool.AddCert(m.cert)
	}
}

// readNames takes from the leaf what filters compare, and the hint.
func (p *Presented) readNames() {
	leaf := p.leaf.cert
	for _, attribute := range leaf.Subject.Names {
		value, ok := attribute.Value.(string)
		if id := attribute.Type; !ok || len(id) != 4 || id[0] != 2 || id[1] != 5 || id[2] != 4 {
			continue
		}
		switch attribute.Type[3] {
		case 3:
			p.commonNames = append(p.commonNames, lower(value))
		case 10:
			p.organizations = append(p.organizations, lower(value))
		case 11:
			p.units = append(p.units, lower(value))
		}
	}
	p.altNames = make([]string, 0, len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.URIs)+len(leaf.IPAddresses))
	for _, name := range leaf.DNSNames {
		p.altNames = append(p.altNames, lower(name))
	}
	for _, name := range leaf.EmailAddresses {
		p.altNames = append(p.altNames, lower(name))
	}
	for _, uri := range leaf.URIs {
		p.altNames = append(p.altNames, lower(uri.String()))
	}
	for _, address := range leaf.IPAddresses {
		p.altNames = append(p.altNames, address.String())
	}
	if len(leaf.URIs) == 1 {
		p.TrustDomain, p.Account, p.ServiceAccount, _ = ParseSPIFFEID(leaf.URIs[0].String())
	}
}

func memberOf(ca *x509.Certificate) member {
	m := member{cert: ca, fingerprint: Fingerprint(ca), issuerID: IssuerID(ca), name: distinguishedName(ca)}
	var err error
	if m.names, err = constraintsOf(ca); err != nil {
		m.flaw = "has name constraints that cannot be read, or too many"
		return m
	}
	if m.names != nil && len(ca.UnhandledCriticalExtensions) > 0 {
		understood := *ca // crypto/x509 would refuse the constraints that are seen to here
		understood.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(ca.UnhandledCriticalExtensions),
			func(id asn1.ObjectIdentifier) bool { return isExtension(id, 30) })
		m.cert = &understood
	}
	m.flaw = caFlaw(m.cert)
	return m
}

// Anchors are the CA certificates that chains may end at. They do not change and
// are safe for concurrent use.
type Anchors struct {
	members []member
	ends    *x509.CertPool // where a chain ends
	between *x509.CertPool // CAs whose issuer is an anchor too: their chains go on; nil if there are none
}

// NewAnchors prepares the CAs of a namespace or of an account. No signature is
// checked. A CA whose issuer is among them too leads there, so that what the
// root says (its end, its constraints, its revocation) holds for all below it;
// any other one is an end in itself. A CA that breaks the rules of ParseClientCAs
// is no anchor, even if it was accepted once.
func NewAnchors(cas []*x509.Certificate) *Anchors {
	a := &Anchors{members: make([]member, 0, len(cas)), ends: x509.NewCertPool()}
	for _, ca := range cas {
		a.members = append(a.members, memberOf(ca))
	}
	for _, m := range a.members {
		switch {
		case m.flaw != "":
		case slices.ContainsFunc(a.members, func(above member) bool {
			return above.cert != m.cert && above.flaw == "" && mayIssue(above.cert, m.cert)
		}):
			if a.between == nil {
				a.between = x509.NewCertPool()
			}
			a.between.AddCert(m.cert)
		default:
			a.ends.AddCert(m.cert)
		}
	}
	return a
}

// mayIssue reports whether a CA is the one that another names as its issuer, if
// that is not itself.
func mayIssue(above, ca *x509.Certificate) bool {
	if string(ca.RawIssuer) != string(above.RawSubject) || isRoot(ca) {
		return false
	}
	return len(ca.AuthorityKeyId) == 0 || len(above.SubjectKeyId) == 0 || string(ca.AuthorityKeyId) == string(above.SubjectKeyId)
}

// isRoot reports whether a certificate names itself and its own key as its issuer.
func isRoot(ca *x509.Certificate) bool {
	return selfIssued(ca) && (len(ca.AuthorityKeyId) == 0 || string(ca.AuthorityKeyId) == string(ca.SubjectKeyId))
}

// Profile says by which rules a chain is judged.
type Profile uint8

const (
	// CustomerCA is for the CAs of a namespace.
	CustomerCA Profile = iota
	// ManagedCA is for an account's own CAs under the operator's root.
	ManagedCA
)

// rules are what profiles differ in.
type rules struct {
	managed bool
	issuers string // in messages
}

func (p Profile) rules() rules {
	if p == ManagedCA {
		return rules{true, "the managed CA of this account"}
	}
	return rules{false, "any CA of this namespace"}
}

// Chain is one way from the leaf to an anchor.
type Chain struct {
	Certificates        []*x509.Certificate // leaf to anchor
	IssuerIDs           []string            // of Certificates[1:]: the leaf's issuer first
	Anchor              string              // fingerprint of the CA it ends at
	NotBefore, NotAfter time.Time           // when all of it is valid, both ends included
}

// Verified is the outcome of Verify.
type Verified struct {
	Chains              []Chain   // the one that is valid longest first; none if there is a Problem
	NotBefore, NotAfter time.Time // those of the first chain; where the leaf's own time is the Problem, the leaf's
	Problem             string    // readable, for whoever presented the certificate; "" if there is none
}

// Verify looks for the chains from the leaf to the anchors that hold at now, by
// RFC 5280 and the profile's rules; revocation is the caller's. Nil anchors are
// none. The work is bounded: at most about 100 signatures are checked, whatever
// was presented. Seconds count, as in certificates.
func (p *Presented) Verify(a *Anchors, profile Profile, now time.Time) Verified {
	r := profile.rules()
	if p.Problem != "" {
		return Verified{Problem: p.Problem}
	}
	if problem := r.leafFlaw(p); problem != "" {
		return Verified{Problem: "the client certificate " + problem}
	}
	now = now.UTC().Truncate(time.Second)
	leaf := p.leaf.cert
	if problem := untimely(leaf, now, "renew it"); problem != "" {
		return Verified{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Problem: "the client certificate " + problem}
	}
	if a == nil || len(a.members) == 0 {
		return Verified{Problem: "the client certificate is not issued by " + r.issuers + ": there is none"}
	}
	found, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.ends, Intermediates: p.between(a), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{p.usage},
	})
	if err != nil {
		return Verified{Problem: p.explain(a, r, now, err)}
	}
	chains := make([]Chain, 0, min(len(found), maxChains))
	problem := ""
	for _, certs := range found {
		chain, wrong := p.chain(a, certs)
		if wrong != "" {
			problem = wrong
		} else {
			chains = append(chains, chain)
		}
	}
	if len(chains) == 0 {
		return Verified{Problem: problem}
	}
	slices.SortStableFunc(chains, func(a, b Chain) int {
		return cmp.Or(b.NotAfter.Compare(a.NotAfter), cmp.Compare(len(a.Certificates), len(b.Certificates)))
	})
	chains = chains[:min(len(chains), maxChains)]
	return Verified{Chains: chains, NotBefore: chains[0].NotBefore, NotAfter: chains[0].NotAfter}
}

// between are the CAs that may stand between the leaf and an end.
func (p *Presented) between(a *Anchors) *x509.CertPool {
	if p.pool == nil {
		return a.between
	}
	if a.between == nil {
		return p.pool
	}
	pool := a.between.Clone()
	for _, m := range p.presented {
		if m.flaw == "" {
			pool.AddCert(m.cert)
		}
	}
	return pool
}

// chain describes a chain that crypto/x509 found, or says why it does not count.
func (p *Presented) chain(a *Anchors, certs []*x509.Certificate) (c Chain, problem string) {
	c = Chain{Certificates: certs, IssuerIDs: make([]string, 0, len(certs)-1), NotBefore: certs[0].NotBefore, NotAfter: certs[0].NotAfter}
	names := make([]string, 0, len(certs))
	names = append(names, p.leaf.name)
	for i, cert := range certs[1:] {
		m := p.member(a, cert)
		// Which certificate a name means must be plain, as Temporal Cloud has it.
		if slices.Contains(names, m.name) {
			return Chain{}, fmt.Sprintf("the subject %s is in the client certificate's chain twice; each certificate of a chain needs its own", nameOf(cert))
		}
		if m.names != nil && slices.ContainsFunc(certs[:i+1], func(below *x509.Certificate) bool { return !m.names.allow(below) }) {
			return Chain{}, fmt.Sprintf("the CA %s of the client certificate's chain may not certify its names", nameOf(cert))
		}
		names = append(names, m.name)
		c.IssuerIDs = append(c.IssuerIDs, m.issuerID)
		c.Anchor = m.fingerprint
		if cert.NotBefore.After(c.NotBefore) {
			c.NotBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(c.NotAfter) {
			c.NotAfter = cert.NotAfter
		}
	}
	return c, ""
}

// member finds what was computed of a certificate.
func (p *Presented) member(a *Anchors, cert *x509.Certificate) member {
	for _, list := range [...][]member{a.members, p.presented} {
		for i := range list {
			if list[i].cert == cert {
				return list[i]
			}
		}
	}
	return memberOf(cert) // pools keep one of two equal certificates
}
