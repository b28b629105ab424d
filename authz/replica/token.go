package replica

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// tokenKey is a key that tokens are signed with. It never changes.
type tokenKey struct {
	id     string
	object object.TokenKey
	credential.TokenKey
}

// newTokenKey reads the object, nil if it is not understood in full.
func newTokenKey(o object.Object) *tokenKey {
	v, ok := decode[object.TokenKey](o)
	if !ok || v.Issuer == "" || len(v.Audiences) == 0 {
		return nil
	}
	parsed, err := x509.ParsePKIXPublicKey(v.Key)
	public, isECDSA := parsed.(*ecdsa.PublicKey)
	if err != nil || !isECDSA || public.Curve != elliptic.P256() {
		return nil
	}
	return &tokenKey{o.ID, v, credential.TokenKey{Public: public, Issuer: v.Issuer, Audiences: v.Audiences}}
}

// federationRule is one that tokens are given out by.
type federationRule struct {
	id     string
	object object.FederationRule
}

func findRule(t *table[*federationRule], id string) *federationRule {
	h := t.hash(id)
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value.id == id {
			return s.value
		}
	}
	return nil
}

// token is an access token whose signature was good.
type token struct {
	credential.Token
	hash    [sha256.Size]byte
	by      *tokenKey
	expires int64 // microseconds since 1970 UTC
}

// signed reports whether the key still vouches for the token: it is the one that
// the token was checked with, also where a snapshot brought it anew.
func (k *tokenKey) signed(t *token) bool {
	if k == t.by {
		return true
	}
	return k.id == t.by.id && bytes.Equal(k.object.Key, t.by.object.Key) && k.Issuer == t.by.Issuer &&
		!slices.ContainsFunc(t.Audience, func(a string) bool { return !slices.Contains(k.Audiences, a) })
}

func (v *view) signed(t *token) bool {
	for _, k := range v.tokenKeys {
		if k.signed(t) {
			return true
		}
	}
	return false
}

// signed denies the call unless a key that is good in all histories of the keys
// has signed the token.
func (r *Replica) signed(c *call, from *Credential, d *Decision) bool {
	s := &state{}
	keys := r.find(sallyport.SystemAccount)
	if keys != nil {
		s = keys.state.Load()
	}
	switch {
	case r.tooOld(c, s, d):
	case keys != nil && (s.held == nil || s.lost):
		d.deny(sallyport.Unavailable, "the keys that sign tokens were not received yet; try again")
	case from.busy:
		d.deny(sallyport.Unavailable, "too many new tokens are being checked on this server; try again")
	case from.token == nil:
		d.deny(sallyport.Unauthenticated, from.Problem)
	case s.held == nil || !s.held.signed(from.token) || slices.ContainsFunc(s.beside, func(v *view) bool { return !v.signed(from.token) }):
		d.deny(sallyport.Unauthenticated, "the key that signed the token was revoked; get a new token")
	default:
		return true
	}
	return false
}

// decideToken is the rule for tokens: as long as all that it was made of is as it
// was, the service account's own access, narrowed by the token and its API key.
func (v *view) decideToken(c *call, from *Credential, d *Decision) {
	t := from.token
	d.Principal, d.TokenID, d.KeyID, d.RuleID = t.Principal, t.ID, t.Key, t.Rule
	var key packedKey
	if reason := v.originProblem(c, from, &key); reason != "" {
		d.deny(sallyport.Unauthenticated, reason)
		return
	}
	packed := v.subject(t.Principal.ID)
	if packed == "" {
		d.deny(sallyport.Unauthenticated, "the service account of the token does not exist any more")
		return
	}
	subject := reader{packed}
	flags := subject.byte()
	subject.string()
	if kind, reason := v.tokenProblem(c, from, &key, flags, int64(subject.uint())); reason != "" {
		d.deny(kind, reason)
		return
	}
	end := t.expires
	if t.Key != "" {
		end = min(end, key.expires)
		if key.retires != 0 {
			end = min(end, key.retires)
		}
	}
	d.Until = time.UnixMicro(end)
	if c.need.Scope == authz.Namespace {
		subject.string() // the keys
		v.inNamespace(c, &key, t, subject, d)
		return
	}
	c.elsewhere(d)
}

// originProblem says what became of the API key or the rule that the token was
// made with, "" if it is good. It reads the key into key.
func (v *view) originProblem(c *call, from *Credential, key *packedKey) string {
	t := from.token
	if t.Rule != "" {
		switch rule := findRule(&v.rules, t.Rule); {
		case rule == nil || rule.object.ServiceAccount != t.Principal.ID:
			return "the federation rule that gave out the token was deleted or disabled; get a new token by another one"
		case rule.object.Version != t.RuleVersion:
			return "the federation rule that gave out the token was changed since; get a new token"
		}
		return ""
	}
	owner, now := v.keyOwner(t.Key, key), c.now.UnixMicro()
	switch {
	case owner == "" || packedID(owner) != t.Principal.ID:
		return "the API key that the token was made with was deleted; get a new token with another one"
	case key.flags&statusMask != statusActive:
		return "the API key that the token was made with is disabled; get a new token with another one"
	case now >= key.expires || key.retires != 0 && now >= key.retires:
		return "the API key that the token was made with has ended; get a new token with another one"
	}
	return ""
}

// tokenProblem says why a token of a good origin gets nobody in, "" if it does.
// flags and epoch are its service account's.
func (v *view) tokenProblem(c *call, from *Credential, key *packedKey, flags byte, epoch int64) (sallyport.Kind, string) {
	t := from.token
	switch {
	case v.account == nil || v.account.Status != object.Active:
		return sallyport.PermissionDenied, "the account is not active"
	case flags&subjectIsServiceAccount == 0:
		return sallyport.Unauthenticated, "the service account of the token does not exist any more"
	case flags&statusMask != statusActive:
		return sallyport.Unauthenticated, "the service account of the token is disabled"
	case t.Epoch != epoch || t.Key != "" && key.epoch != epoch:
		return sallyport.Unauthenticated, "the token was ended together with all other credentials of its service account; get a new one"
	case c.now.UnixMicro() >= t.expires:
		return sallyport.Unauthenticated, "the token expired at " + t.Expires.Format(time.RFC3339) + "; get a new one"
	case t.Certificate != nil && (from.presented == nil || from.presented.leaf.packed != string(t.Certificate)):
		return sallyport.Unauthenticated, "the token is bound to a client certificate, and the connection was not made with it; connect with that one, or get a new token with the one in use"
	case t.Certificate != nil && v.ended(from.presented, c.now):
		return sallyport.Unauthenticated, "the client certificate that the token is bound to was revoked or has expired; get a new token with another one"
	case key.flags&keySources != 0 && !key.sources.covers(from.From):
		return sallyport.PermissionDenied, "the API key that the token was made with is not good from this network address"
	}
	return "", ""
}

// ended reports whether the certificate, of the account's managed CA, is not
// good any more. What others issued is theirs to judge: that the client has the
// key is all that binding asks for (RFC 8705 §3).
func (v *view) ended(p *presented, now time.Time) bool {
	if v.revoked(p.leaf) {
		return true
	}
	if v.managed == nil || p.Account != v.id {
		return false
	}
	j := p.verdict(v.managed, now)
	return j.known && (j.problem != "" || j.standing(v, p).way == nil)
}

// readOnly reports whether the token or its API key only reads.
func (t *token) readOnly(key *packedKey) bool {
	return key.flags&keyReadOnly != 0 || t != nil && t.ReadOnly
}

// narrowed reports whether the credential is narrowed to namespaces without this one.
func (t *token) narrowed(key *packedKey, namespace string) bool {
	return key.flags&keyNamespaces != 0 && !key.namespaces.contains(namespace) ||
		t != nil && t.Namespaces != nil && !slices.Contains(t.Namespaces, sallyport.NamespaceID(namespace))
}

// tokenKey gives the key of the id, nil if there is none or no view.
func (v *view) tokenKey(kid string) *tokenKey {
	if v == nil {
		return nil
	}
	for _, k := range v.tokenKeys {
		if k.id == kid {
			return k
		}
	}
	return nil
}

// tokenObjects gives what tokens are decided by, in no order.
func (v *view) tokenObjects(yield func(object.Object) bool) bool {
	for _, k := range v.tokenKeys {
		if !yield(object.Object{Kind: object.KindTokenKey, ID: k.id, Data: object.Encode(k.object)}) {
			return false
		}
	}
	for r := range v.rules.all {
		if !yield(object.Object{Kind: object.KindFederationRule, ID: r.id, Data: object.Encode(r.object)}) {
			return false
		}
	}
	return true
}

// removeToken is remove for what tokens are decided by.
func (d *draft) removeToken(kind object.Kind, id string) []byte {
	if kind == object.KindTokenKey {
		at := slices.IndexFunc(d.tokenKeys, func(k *tokenKey) bool { return k.id == id })
		if at < 0 {
			return nil
		}
		data := object.Encode(d.tokenKeys[at].object)
		d.tokenKeys = slices.Concat(d.tokenKeys[:at], d.tokenKeys[at+1:])
		return data
	}
	rule := findRule(&d.rules.table, id)
	if rule == nil {
		return nil
	}
	d.rules.remove(d.rules.hash(id), func(r *federationRule) bool { return r == rule })
	return object.Encode(rule.object)
}

// insertToken is insert for what tokens are decided by. Keys of other accounts
// than the one that belongs to no tenant sign nothing.
func (d *draft) insertToken(o object.Object) bool {
	switch o.Kind {
	case object.KindTokenKey:
		k := newTokenKey(o)
		if k == nil || d.id != sallyport.SystemAccount {
			return false
		}
		d.tokenKeys = append(slices.Clip(d.tokenKeys), k)
	case object.KindFederationRule:
		v, ok := decode[object.FederationRule](o)
		if !ok {
			return false
		}
		d.rules.set(d.rules.hash(o.ID), func(r *federationRule) bool { return r.id == o.ID }, &federationRule{o.ID, v})
	default:
		return false
	}
	return true
}
