package replica

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// CredentialKind says what a call brought along.
type CredentialKind uint8

const (
	NoCredential CredentialKind = iota
	Malformed                   // something that is not a credential; Problem says why
	APIKey
	Certificate // a client certificate
	Token       // an access token
)

// Credential is what a call brought along, without the secret itself.
type Credential struct {
	Kind CredentialKind
	// Account is that of the API key or the token. Of a certificate it is what its
	// SPIFFE URI claims: only where to look for what proves it.
	Account     sallyport.AccountID
	KeyID       string
	Hash        [32]byte              // SHA-256 of the API key
	Certificate *credential.Presented // nil: none. Beside a token: the one that it is bound to, or should be
	// Name is the full name of the namespace that the connection's server name
	// (SNI) names: calls on others are refused. Empty: it names none. Empty it for
	// a target that a call leads to elsewhere.
	Name    string
	Problem string // of a Malformed one or a bad Token, safe to show
	From    netip.Addr

	presented *presented // what was found out about the Certificate; nil: nothing is kept
	token     *token     // nil: Problem says why, or it was not checked
	busy      bool       // it was not checked, since too many others were
}

// CredentialFromHeader reads the value of an Authorization header, "" for
// none. Of tokens it only says that they are no API keys: see
// Replica.Credential. from is the caller's address; keys that are narrowed to networks need it.
func CredentialFromHeader(authorization string, from netip.Addr) Credential {
	if authorization == "" {
		return Credential{From: from}
	}
	token, ok := credential.Bearer(authorization)
	if !ok {
		return Credential{Kind: Malformed, From: from, Problem: "the Authorization header must be: Bearer <API key>"}
	}
	apiKey, hash, err := credential.ParseAPIKey(token)
	if err != nil {
		return Credential{Kind: Malformed, From: from, Problem: err.Error()}
	}
	return Credential{Kind: APIKey, Account: apiKey.Account, KeyID: apiKey.ID, Hash: hash, From: from}
}

// Decision is the answer to a call, with what it rests on.
type Decision struct {
	Allow bool
	// Kind is "" when allowed, otherwise Unauthenticated, PermissionDenied or
	// Unavailable. The latter is not a denial: the client should try again.
	Kind      sallyport.Kind
	Reason    string // safe to show to the caller
	Account   sallyport.AccountID
	Principal sallyport.Principal
	KeyID     string // of the API key, also of that which a token was made with
	TokenID   string
	RuleID    string // of the federation rule that gave out the token
	// Certificate is the fingerprint of the client certificate that was decided on;
	// "" for other credentials.
	Certificate string
	Namespace   sallyport.NamespaceID // that the name means, once the caller is known to have access to it
	Grant       sallyport.Grant       // that let the call through; zero if none was needed
	Head        sallyport.Head        // that was decided at
	Age         time.Duration         // how old the copy may have been
	Until       time.Time             // when the credential ends by itself; zero: never

	seen evidence // of a certificate, for MarkUsed
}

// call is what is asked.
type call struct {
	explain   bool   // by the key's id: neither its hash nor where it comes from is known
	noun      string // of the credential
	need      authz.Need
	method    string
	namespace string
	target    string // of a certificate: the namespace whose CAs count; "": none is named
	now       time.Time
	several   bool // histories of the account are held
}

const (
	reasonAllowed = "allowed by the grant"
	reasonOpen    = "this method is open to everybody"
	reasonAnyone  = "this method is open to every working credential"
)

// Decide says whether the call to the method (full gRPC name) on the namespace
// (full name, <name>.<account>) may go through. It is a pure read and does not
// allocate when it allows.
func (r *Replica) Decide(c Credential, method, namespace string, now time.Time) Decision {
	var d Decision
	r.decide(&call{method: method, namespace: namespace, now: now}, &c, &d)
	return d
}

// Explain is Decide for whoever holds the key with the id, from an address
// that the key is good for.
func (r *Replica) Explain(account sallyport.AccountID, keyID, method, namespace string, now time.Time) Decision {
	c := Credential{Kind: APIKey, Account: account, KeyID: keyID}
	var d Decision
	r.decide(&call{explain: true, method: method, namespace: namespace, now: now}, &c, &d)
	return d
}

func (r *Replica) decide(c *call, from *Credential, d *Decision) {
	d.Account = from.Account
	if c.noun = "API key"; from.Kind == Token {
		c.noun = "token"
	}
	if from.Certificate != nil {
		d.Certificate = from.Certificate.Fingerprint
	}
	var known bool
	if c.need, known = authz.MethodNeed(c.method); !known {
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s is not known to this authorizer and therefore refused", c.method))
		return
	}
	account := from.Account
	switch {
	case c.need.Scope == authz.Open:
		d.allow(reasonOpen)
		return
	case from.Kind == NoCredential:
		d.deny(sallyport.Unauthenticated, "no credential: send an API key in the header Authorization: Bearer <API key>, or connect with a client certificate")
		return
	case from.Kind == Malformed:
		d.deny(sallyport.Unauthenticated, from.Problem)
		return
	case from.Name != "" && c.need.Scope == authz.Namespace && c.namespace != "" && !strings.EqualFold(from.Name, c.namespace):
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("the connection is to the name of namespace %q and the call to namespace %q: connect to the name of the namespace that is called", from.Name, c.namespace))
		return
	case from.Kind == Certificate:
		var known bool
		if account, known = c.aim(from, d); !known {
			return
		}
	}
	if !r.ready.Load() {
		d.deny(sallyport.Unavailable, "the policy was not received yet; try again")
		return
	}
	if from.Kind == Token && !r.signed(c, from, d) {
		return
	}
	d.Account = account
	a := r.find(account)
	if a == nil {
		if r.tooOld(c, &state{}, d) {
			return
		}
		c.unknown(from, d, "it was deleted, or its account has no namespace in this cell")
		return
	}
	s := a.state.Load()
	if r.tooOld(c, s, d) {
		return
	}
	switch {
	case s.held == nil || s.lost:
		d.deny(sallyport.Unavailable, "the policy of this account was not received yet; try again")
		return
	case s.dropped:
		c.unknown(from, d, "its account has no namespace in this cell")
		return
	}
	c.several = len(s.beside) > 0
	s.held.decide(c, from, d)
	if c.several {
		s.decideBeside(c, from, d)
	}
}

// unknown denies for an account of which nothing is here. Of an API key or a
// token the reason says so; a certificate's holder is told what a stranger is.
func (c *call) unknown(from *Credential, d *Decision, reason string) {
	if from.Kind == Certificate {
		c.denyStranger(d)
		return
	}
	d.deny(sallyport.Unauthenticated, "the "+c.noun+" is not known here: "+reason)
}

// decideBeside makes a decision of the held view that of all views.
func (s *state) decideBeside(c *call, from *Credential, d *Decision) {
	for _, v := range s.beside {
		if !d.Allow {
			break
		}
		other := Decision{Account: d.Account, Age: d.Age}
		v.decide(c, from, &other)
		switch {
		case !other.Allow:
			*d = other
		case !other.Until.IsZero() && other.Until.Before(d.Until):
			d.Until = other.Until
		}
	}
	if !d.Allow {
		d.Reason += " (several histories of the account are known after a restore of the service; a call needs all of them to allow it)"
	}
}

// age is how old what is known of an account in the state may be.
func (r *Replica) age(now time.Time, s *state) (time.Duration, bool) {
	fresh := r.fresh.Load()
	if s.stuck {
		fresh = min(fresh, s.stuckAt)
	}
	if fresh == never {
		return math.MaxInt64, false
	}
	return now.Sub(r.base) - time.Duration(fresh), true
}

// tooOld notes the age in the decision, which is made if it is past the limit.
func (r *Replica) tooOld(c *call, s *state, d *Decision) bool {
	limit := r.config.MaxStaleness
	if c.need.Permission == sallyport.PermissionAdmin {
		limit = r.config.MaxAdminStaleness
	}
	age, known := r.age(c.now, s)
	if d.Age = max(d.Age, age); known && age <= limit {
		return false
	}
	d.deny(sallyport.Unavailable, fmt.Sprintf("policy older than %s: this server has not heard from the access service; try again", limit))
	return true
}

// decide is the rule itself.
func (v *view) decide(c *call, from *Credential, d *Decision) {
	d.Head = v.head
	switch from.Kind {
	case Certificate:
		v.decideCertificate(c, from, d)
		return
	case Token:
		v.decideToken(c, from, d)
		return
	}
	var key packedKey
	owner := v.keyOwner(from.KeyID, &key)
	if owner == "" || !c.explain && key.hash != string(from.Hash[:]) {
		d.deny(sallyport.Unauthenticated, "the API key is not known: it was deleted, or never made")
		return
	}
	subject := reader{owner}
	flags := subject.byte()
	d.KeyID = key.id
	d.Principal = sallyport.Principal{Kind: principalKind(flags), ID: subject.string()}
	if kind, reason := v.credentialProblem(c, from, &key, flags, int64(subject.uint())); reason != "" {
		d.deny(kind, reason)
		return
	}
	end := key.expires
	if key.retires != 0 {
		end = min(end, key.retires)
	}
	d.Until = time.UnixMicro(end)
	if c.need.Scope == authz.Namespace {
		subject.string() // the keys
		v.inNamespace(c, &key, nil, subject, d)
		return
	}
	c.elsewhere(d)
}

// elsewhere decides what is not a Namespace method, for a working credential.
func (c *call) elsewhere(d *Decision) {
	switch {
	case c.need.Scope == authz.Cluster && c.need.Permission == sallyport.NoPermission:
		d.allow(reasonAnyone)
	case c.need.Scope == authz.Cluster:
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s is for the operator of the cluster alone", c.method))
	case c.need.Scope == authz.ControlPlane:
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s is not for the data plane: manage namespaces through the access service's API", c.method))
	default:
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s is refused to everybody", c.method))
	}
}

// credentialProblem says why the key gets nobody in, "" if it does. flags and
// epoch are its owner's.
func (v *view) credentialProblem(c *call, from *Credential, key *packedKey, flags byte, epoch int64) (sallyport.Kind, string) {
	now := c.now.UnixMicro()
	switch {
	case v.account == nil || v.account.Status != object.Active:
		return sallyport.PermissionDenied, "the account is not active"
	case principalKind(flags) == "":
		return sallyport.Unauthenticated, "the owner of the API key does not exist any more"
	case flags&statusMask != statusActive:
		return sallyport.Unauthenticated, "the owner of the API key is disabled"
	case key.flags&statusMask != statusActive:
		return sallyport.Unauthenticated, "the API key is disabled"
	case key.epoch != epoch:
		return sallyport.Unauthenticated, "the API key was ended together with all others of its owner; make a new one"
	case now >= key.expires:
		return sallyport.Unauthenticated, "the API key expired at " + time.UnixMicro(key.expires).UTC().Format(time.RFC3339) + "; make a new one"
	case key.retires != 0 && now >= key.retires:
		return sallyport.Unauthenticated, "the API key was replaced and retired at " + time.UnixMicro(key.retires).UTC().Format(time.RFC3339) + "; use the new one"
	case key.flags&keySources != 0 && !c.explain && !key.sources.covers(from.From):
		return sallyport.PermissionDenied, "the API key is not good from this network address"
	}
	return "", ""
}

// inNamespace decides a Namespace method. The key and the token, nil for none,
// narrow what their owner may, before whose groups subject stands.
func (v *view) inNamespace(c *call, key *packedKey, t *token, subject reader, d *Decision) {
	dot := strings.LastIndexByte(c.namespace, '.')
	if dot < 0 || c.namespace[dot+1:] != string(v.id) {
		d.deny(sallyport.PermissionDenied, c.notFound())
		return
	}
	ns := v.namespace(c.namespace[:dot])
	if ns == nil {
		d.deny(sallyport.PermissionDenied, c.notFound())
		return
	}
	grant, holder, held := v.strongest(subject, d.Principal.ID, ns, c.need.Permission)
	switch {
	case held == sallyport.NoPermission:
		d.deny(sallyport.PermissionDenied, c.notFound())
		return
	case t.narrowed(key, ns.id):
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("the %s is narrowed to other namespaces than %q", c.noun, c.namespace))
		return
	case !ns.object.Auth.APIKey:
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("namespace %q does not accept API keys and tokens; switch API keys on for it or use a client certificate", c.namespace))
		return
	case t.readOnly(key) && c.need.Writes():
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("the %s is read-only and method %s needs %s", c.noun, c.method, c.need.Permission))
		return
	case !c.need.Met(held, t.readOnly(key)):
		d.deny(sallyport.PermissionDenied, fmt.Sprintf("method %s needs the permission %s on namespace %q; its strongest grant gives %s", c.method, c.need.Permission, c.namespace, held))
		return
	}
	d.Namespace = sallyport.NamespaceID(ns.id)
	d.Grant = sallyport.Grant{Subject: holder, Scope: scopes[grant.code>>5], Target: grant.target, Role: grant.role()}
	d.allow(reasonAllowed)
}

// notFound has the same words for a namespace of another account, one that is
// not there and one that the caller has no grant on.
func (c *call) notFound() string {
	return fmt.Sprintf("namespace %q was not found in the account of this %s, or it has no access to it; use <name>.<account> and ask for a namespace permission", c.namespace, c.noun)
}

// strongest finds a grant that gives enough, or else the strongest one, among
// the holder's own and those of its groups.
func (v *view) strongest(subject reader, id string, ns *namespace, enough sallyport.Permission) (best grant, holder string, held sallyport.Permission) {
	groups := subject
	subject.skipStrings()
	best, held = v.among(subject, ns, enough)
	if holder = id; held >= enough {
		return best, holder, held
	}
	for range groups.uint() {
		group := groups.string()
		packed := v.subject(group)
		if packed == "" || packed[0]&subjectIsGroup == 0 {
			continue
		}
		r := reader{packed[1:]}
		r.string()
		r.uint()
		r.string()
		r.skipStrings()
		if g, p := v.among(r, ns, enough); p > held {
			best, holder, held = g, group, p
			if held >= enough {
				break
			}
		}
	}
	return best, holder, held
}

// among looks through a subject's grants, before whose count grants stands.
func (v *view) among(grants reader, ns *namespace, enough sallyport.Permission) (best grant, held sallyport.Permission) {
	for range grants.uint() {
		g := grant{grants.byte(), grants.string()}
		if p := g.permission(v.id, ns); p > held {
			best, held = g, p
			if held >= enough {
				break
			}
		}
	}
	return best, held
}

func (d *Decision) allow(reason string) { d.Allow, d.Reason = true, reason }

func (d *Decision) deny(kind sallyport.Kind, reason string) { d.Kind, d.Reason = kind, reason }
