package replica

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
)

// evidence is what a decision says about the use of a certificate.
type evidence struct {
	by        *presented // nil: nothing that is to be told
	namespace string     // id of one that takes certificates
	ca        string     // fingerprint of the CA of the bundle; "" of a managed one
	filter    int        // its place, from 1; zero: there was none
	managed   bool
	problem   string // where the caller is told less
}

// Detail is the Reason, or where that hides something from a client with a
// certificate that is not trusted here, what that is: for whoever may read the
// namespace, never for the client.
func (d *Decision) Detail() string {
	if d.Allow {
		return d.Reason
	}
	return cmp.Or(d.seen.problem, d.Reason)
}

const (
	reasonBundle        = "allowed by the namespace's client CAs"
	reasonNoCertificate = "no client certificate was presented, or none that can be read"
	problemWithoutMTLS  = "the namespace does not accept client certificates; switch mTLS on for it"
	problemNoCAs        = "the namespace has no client CAs, and the certificate is not one of the account's managed CA"
	reasonStranger      = "the client certificate is not known here: use one of the account's managed CA, or connect to the name of the namespace that takes it, or send an API key"
)

// aim says in which account a certificate is to be looked at, and notes by the
// CAs of which namespace: that of the called one, or else of the one that the
// connection names; a certificate's own word comes last. The call is denied if
// there is none.
func (c *call) aim(from *Credential, d *Decision) (account sallyport.AccountID, known bool) {
	if from.Certificate == nil {
		d.deny(sallyport.Unauthenticated, reasonNoCertificate)
		return "", false
	}
	if from.Certificate.Problem != "" {
		d.deny(sallyport.Unauthenticated, from.Certificate.Problem)
		return "", false
	}
	c.target = c.namespace
	if c.need.Scope != authz.Namespace {
		if c.target = from.Name; c.target == "" {
			account = from.Certificate.Account
		}
	}
	if c.target != "" {
		account = sallyport.AccountID(c.target[strings.LastIndexByte(c.target, '.')+1:])
	}
	if account == "" {
		c.denyStranger(d)
		return "", false
	}
	return account, true
}

// denyStranger has the same words for a namespace that is not there, whoever's
// it is, and for one that does not trust the certificate's issuer.
func (c *call) denyStranger(d *Decision) {
	if c.need.Scope != authz.Namespace {
		d.deny(sallyport.Unauthenticated, reasonStranger)
		return
	}
	d.deny(sallyport.PermissionDenied, fmt.Sprintf("namespace %q was not found, or it does not accept this client certificate: use <name>.<account>, and a certificate of one of its client CAs or of the account's managed CA", c.namespace))
}

// decideCertificate is the rule for certificates.
func (v *view) decideCertificate(c *call, from *Credential, d *Decision) {
	p := from.presented
	if p == nil { // nothing is kept
		p = &presented{Presented: from.Certificate, leaf: packFingerprint(from.Certificate.Fingerprint)}
	}
	var ns *namespace
	if dot := strings.LastIndexByte(c.target, '.'); dot >= 0 && c.target[dot+1:] == string(v.id) {
		ns = v.namespace(c.target[:dot])
	}
	if ns != nil && ns.object.Auth.MTLS {
		d.seen = evidence{by: p, namespace: ns.id}
	}
	if v.managed != nil && p.Account == v.id {
		j := p.verdict(v.managed, c.now)
		if j.known {
			d.seen.managed = true
			v.decideManaged(c, p, j, ns, d)
			return
		}
		d.seen.problem = j.problem
	}
	if ns != nil {
		b := findBundle(&v.bundles, ns.id)
		if b != nil {
			j := p.verdict(&b.trust, c.now)
			if j.known {
				v.decideCustomers(c, p, j, ns, d)
				return
			}
			d.seen.problem = j.problem
		}
		switch {
		case !ns.object.Auth.MTLS:
			d.seen.problem = problemWithoutMTLS
		case d.seen.problem == "":
			d.seen.problem = problemNoCAs
		}
	}
	c.denyStranger(d)
}

// works notes how long the certificate is good for, and denies if that is over
// or it was revoked.
func (j *verdict) works(v *view, p *presented, d *Decision) bool {
	d.seen.problem = "" // nothing is hidden from him
	if j.problem != "" {
		d.deny(sallyport.Unauthenticated, j.problem)
		return false
	}
	s := j.standing(v, p)
	if s.way == nil {
		d.deny(sallyport.Unauthenticated, s.reason)
		return false
	}
	d.Until = s.way.until
	if !d.seen.managed {
		d.seen.ca = s.way.ca
	}
	if v.account == nil || v.account.Status != object.Active {
		d.deny(sallyport.PermissionDenied, "the account is not active")
		return false
	}
	return true
}

// decideManaged decides for a certificate of the account's managed CA.
func (v *view) decideManaged(c *call, p *presented, j *verdict, ns *namespace, d *Decision) {
	d.Principal = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: p.ServiceAccount}
	if !j.works(v, p, d) {
		return
	}
	// A restored service has forgotten revocations: what it makes for those who
	// were revoked is nobody's to revoke.
	if c.several && !v.made(j.standing(v, p).way.leaf) {
		d.deny(sallyport.Unauthenticated, reasonNotIssued)
		return
	}
	subject, problem := v.serviceAccount(p.ServiceAccount)
	if problem != "" {
		d.deny(sallyport.Unauthenticated, "the service account of the client certificate "+problem)
		return
	}
	if c.need.Scope != authz.Namespace {
		c.elsewhere(d)
		return
	}
	if ns == nil {
		c.denyAccess(d)
		return
	}
	v.asServiceAccount(c, subject, ns, d)
}

// serviceAccount gives the packed service account before its groups, or why it
// gets nobody in.
func (v *view) serviceAccount(id string) (subject reader, problem string) {
	packed := v.subject(id)
	if packed == "" {
		return subject, "does not exist any more"
	}
	subject = reader{packed}
	switch flags := subject.byte(); {
	case flags&subjectIsServiceAccount == 0:
		return subject, "does not exist any more"
	case flags&statusMask != statusActive:
		return subject, "is disabled"
	}
	subject.string()
	subject.uint()
	subject.string() // the keys
	return subject, ""
}

// asServiceAccount decides a Namespace method by the grants of the principal.
func (v *view) asServiceAccount(c *call, subject reader, ns *namespace, d *Decision) {
	grant, holder, held := v.strongest(subject, d.Principal.ID, ns, c.need.Permission)
	switch {
	case held == sallyport.NoPermission:
		c.denyAccess(d)
	case !ns.object.Auth.MTLS:
		c.denyWithoutMTLS(d)
	case !c.need.Met(held, false):
		c.denyPermission(held, d)
	default:
		d.Namespace = sallyport.NamespaceID(ns.id)
		d.Grant = sallyport.Grant{Subject: holder, Scope: scopes[grant.code>>5], Target: grant.target, Role: grant.role()}
		d.allow(reasonAllowed)
	}
}

// denyAccess has the same words for a namespace that is not there and one that
// the service account has no grant on.
func (c *call) denyAccess(d *Decision) {
	d.deny(sallyport.PermissionDenied, fmt.Sprintf("namespace %q was not found in the account of this client certificate, or its service account has no access to it; use <name>.<account> and ask for a namespace permission", c.namespace))
}

func (c *call) denyWithoutMTLS(d *Decision) {
	d.deny(sallyport.PermissionDenied, fmt.Sprintf("namespace %q does not accept client certificates; switch mTLS on for it or use an API key", c.target))
}

func (c *call) denyPermission(held sallyport.Permission, d *Decision) {
	d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s needs the permission %s on namespace %q; the client certificate gives %s", c.method, c.need.Permission, c.namespace, held))
}

// decideCustomers decides for a certificate of one of the namespace's own CAs.
// Where several filters match, the first that allows counts, and otherwise the
// first explains.
func (v *view) decideCustomers(c *call, p *presented, j *verdict, ns *namespace, d *Decision) {
	d.Principal = sallyport.Principal{Kind: sallyport.Certificate, ID: p.Fingerprint}
	switch filters := j.of.filters; {
	case !j.works(v, p, d):
	case !ns.object.Auth.MTLS:
		c.denyWithoutMTLS(d)
	case len(filters) == 0:
		v.byFilter(c, &everyLeaf, ns, d)
	case len(j.matched) == 0:
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("the client certificate matches none of the certificate filters of namespace %q", c.target))
	default:
		chosen := j.matched[0]
		if len(j.matched) > 1 {
			if i := slices.IndexFunc(j.matched, func(place int) bool { return v.suffices(c, &filters[place], ns) }); i >= 0 {
				chosen = j.matched[i]
			}
		}
		d.seen.filter = chosen + 1
		v.byFilter(c, &filters[chosen], ns, d)
	}
}

// suffices reports whether what the filter gives is enough for the call.
func (v *view) suffices(c *call, f *filter, ns *namespace) bool {
	held := f.permission
	if f.serviceAccount != "" {
		subject, problem := v.serviceAccount(f.serviceAccount)
		if problem != "" {
			return false
		}
		_, _, held = v.strongest(subject, f.serviceAccount, ns, c.need.Permission)
	}
	return c.need.Scope != authz.Namespace || c.need.Met(held, false)
}

// byFilter decides by what the filter gives.
func (v *view) byFilter(c *call, f *filter, ns *namespace, d *Decision) {
	var subject reader
	if f.serviceAccount != "" {
		d.Principal = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: f.serviceAccount}
		var problem string
		if subject, problem = v.serviceAccount(f.serviceAccount); problem != "" {
			d.deny(sallyport.PermissionDenied, "the service account that the certificate filter is mapped to "+problem)
			return
		}
	}
	switch {
	case c.need.Scope != authz.Namespace:
		c.elsewhere(d)
	case f.serviceAccount != "":
		v.asServiceAccount(c, subject, ns, d)
	case !c.need.Met(f.permission, false):
		c.denyPermission(f.permission, d)
	default:
		d.Namespace = sallyport.NamespaceID(ns.id)
		d.Grant = sallyport.Grant{Subject: d.Principal.ID, Scope: sallyport.ScopeNamespace, Target: ns.id, Role: f.permission.String()}
		d.allow(reasonBundle)
	}
}
