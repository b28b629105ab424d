package replica_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	tokenIssuer   = "https://sallyport.example.net"
	tokenAudience = "temporal"
)

// signer makes tokens.
type signer struct {
	t   testing.TB
	kid string
	key *ecdsa.PrivateKey
}

func newSigner(t testing.TB, kid string) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, kid, key}
}

// object is the key as authorizers know it.
func (s *signer) object() object.TokenKey {
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return object.TokenKey{Key: der, Issuer: tokenIssuer, Audiences: []string{tokenAudience}}
}

// header has a token of the service account for ten minutes, by its rule wif_1 but
// for what change makes of it.
func (s *signer) header(serviceAccount string, change func(*credential.Token)) string {
	s.t.Helper()
	token := credential.Token{ID: sallyport.NewID("tok_"), Account: "f45a2", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: serviceAccount}, Epoch: 1,
		Rule: "wif_1", RuleVersion: 1, Audience: []string{tokenAudience}, Issued: now.Add(-time.Second), Expires: now.Add(10 * time.Minute)}
	if change != nil {
		change(&token)
	}
	raw, err := credential.SignToken(token, tokenIssuer, s.kid, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return "Bearer " + raw
}

// byKey has it made with the API key instead.
func byKey(id string) func(*credential.Token) {
	return func(t *credential.Token) { t.Key, t.Rule, t.RuleVersion = id, "", 0 }
}

func (p *policy) rule(id, serviceAccount string, version int64) {
	put(p, object.KindFederationRule, id, object.FederationRule{ServiceAccount: serviceAccount, Version: version})
}

// tokenWorld is an account with a service account that may write in orders, and the keys.
func tokenWorld(t testing.TB) (*signer, *policy, *policy) {
	s := newSigner(t, "kid-1")
	keys := newPolicy(sallyport.SystemAccount)
	put(keys, object.KindTokenKey, s.kid, s.object())
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.namespace("ns_2", "billing")
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_2", "read")
	p.rule("wif_1", "sa_1", 1)
	return s, keys, p
}

// TestDecideTokens reads as the policy for tokens.
func TestDecideTokens(t *testing.T) {
	s, keys, p := tokenWorld(t)
	other := newSigner(t, "kid-2")
	foreignKey := newSigner(t, "kid-3")
	p256 := newSigner(t, "kid-4").object()
	p256.Issuer = ""
	put(keys, object.KindTokenKey, "kid-4", p256)
	put(p, object.KindTokenKey, foreignKey.kid, foreignKey.object()) // of a tenant: nothing
	put(p, object.KindNamespace, "ns_3", object.Namespace{Name: "mtls", Cell: "c1", Auth: object.NamespaceAuth{MTLS: true}})
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_3", "write")
	for _, id := range []string{"sa_off", "sa_none", "sa_other"} {
		p.principal(id, sallyport.ServiceAccount)
	}
	p.principal("sa_user", sallyport.User)
	put(p, object.KindPrincipal, "sa_off", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled, Epoch: 1})
	for _, id := range []string{"sa_off", "sa_gone", "sa_user"} {
		p.grant(id, sallyport.ScopeNamespace, "ns_1", "write")
		p.rule("wif_"+id, id, 1)
	}
	p.rule("wif_none", "sa_none", 1)
	p.raw(object.KindFederationRule, "wif_new", []byte(`{"service_account":"sa_1","version":1,"new":true}`))
	_, good := p.key("sa_1", nil)
	_, others := p.key("sa_other", nil)
	keyWith := func(change func(*object.Key)) func(*credential.Token) {
		_, id := p.key("sa_1", change)
		return byKey(id)
	}
	rule := func(id string) func(*credential.Token) { return func(t *credential.Token) { t.Rule = id } }
	suspended := newPolicy("f45a4")
	put(suspended, object.KindAccount, "f45a4", object.Account{Status: object.Suspended})
	suspended.namespace("ns_8", "orders")
	suspended.principal("sa_1", sallyport.ServiceAccount)
	suspended.grant("sa_1", sallyport.ScopeNamespace, "ns_8", "write")
	suspended.rule("wif_1", "sa_1", 1)

	const unknown, denied = sallyport.Unauthenticated, sallyport.PermissionDenied
	tests := []struct {
		name, header, method, namespace string
		kind                            sallyport.Kind // "": allowed
		says                            string
	}{
		{"by a rule", s.header("sa_1", nil), start, "orders.f45a2", "", ""},
		{"by an API key", s.header("sa_1", byKey(good)), start, "orders.f45a2", "", ""},
		{"reads where it may", s.header("sa_1", nil), describe, "billing.f45a2", "", ""},
		{"writes where it reads", s.header("sa_1", nil), start, "billing.f45a2", denied, "its strongest grant gives read"},
		{"cluster info", s.header("sa_1", nil), cluster, "", "", ""},
		{"the operator's", s.header("sa_1", nil), admin, "", denied, "operator"},
		{"the control plane's", s.header("sa_1", nil), register, "", denied, "data plane"},
		{"no access", s.header("sa_none", rule("wif_none")), start, "orders.f45a2", denied, "was not found in the account of this token"},
		{"not there", s.header("sa_1", nil), start, "nothing.f45a2", denied, "was not found in the account of this token"},
		{"another account's", s.header("sa_1", nil), start, "orders.f45a4", denied, "was not found in the account of this token"},
		{"a namespace for certificates", s.header("sa_1", nil), start, "mtls.f45a2", denied, "does not accept API keys and tokens"},

		{"read-only reads", s.header("sa_1", func(t *credential.Token) { t.ReadOnly = true }), describe, "orders.f45a2", "", ""},
		{"read-only writes", s.header("sa_1", func(t *credential.Token) { t.ReadOnly = true }), start, "orders.f45a2", denied, "the token is read-only"},
		{"narrowed to it", s.header("sa_1", func(t *credential.Token) { t.Namespaces = []sallyport.NamespaceID{"ns_9", "ns_1"} }), start, "orders.f45a2", "", ""},
		{"narrowed to another", s.header("sa_1", func(t *credential.Token) { t.Namespaces = []sallyport.NamespaceID{"ns_2"} }), start, "orders.f45a2", denied, "the token is narrowed"},
		{"a read-only key", s.header("sa_1", keyWith(func(k *object.Key) { k.ReadOnly = true })), start, "orders.f45a2", denied, "read-only"},
		{"a key for it", s.header("sa_1", keyWith(func(k *object.Key) { k.Namespaces = []string{"ns_1"} })), start, "orders.f45a2", "", ""},
		{"a key for another", s.header("sa_1", keyWith(func(k *object.Key) { k.Namespaces = []string{"ns_2"} })), start, "orders.f45a2", denied, "narrowed"},
		{"a key for this network", s.header("sa_1", keyWith(func(k *object.Key) { k.Sources = []string{"192.0.2.0/24"} })), start, "orders.f45a2", "", ""},
		{"a key for another network", s.header("sa_1", keyWith(func(k *object.Key) { k.Sources = []string{"198.51.100.0/24"} })), start, "orders.f45a2", denied, "network address"},

		{"of an unknown key", other.header("sa_1", nil), start, "orders.f45a2", unknown, "key that signed the token"},
		{"of a tenant's key", foreignKey.header("sa_1", nil), start, "orders.f45a2", unknown, "key that signed the token"},
		{"of another key of the id", (&signer{t, s.kid, other.key}).header("sa_1", nil), start, "orders.f45a2", unknown, "signature"},
		{"of a key that is not understood", (&signer{t, "kid-4", other.key}).header("sa_1", nil), start, "orders.f45a2", unknown, "key that signed the token"},
		{"for another audience", s.header("sa_1", func(t *credential.Token) { t.Audience = []string{"elsewhere"} }), start, "orders.f45a2", unknown, "audience"},
		{"also for another audience", s.header("sa_1", func(t *credential.Token) { t.Audience = []string{tokenAudience, "elsewhere"} }), start, "orders.f45a2", unknown, "audience"},
		{"expired", s.header("sa_1", func(t *credential.Token) { t.Issued, t.Expires = now.Add(-time.Hour), now.Add(-time.Second) }), start, "orders.f45a2", unknown, "expired"},
		{"no token at all", "Bearer eyJhbGciOiJub25lIn0.e30.", start, "orders.f45a2", unknown, "malformed"},
		{"too long", "Bearer ey" + strings.Repeat("a", credential.MaxToken) + "..", start, "orders.f45a2", unknown, "longer than"},

		{"a rule that is gone", s.header("sa_1", rule("wif_gone")), start, "orders.f45a2", unknown, "rule that gave out the token was deleted"},
		{"a rule of another service account", s.header("sa_1", rule("wif_none")), start, "orders.f45a2", unknown, "rule that gave out the token was deleted"},
		{"a rule that was changed", s.header("sa_1", func(t *credential.Token) { t.RuleVersion = 2 }), start, "orders.f45a2", unknown, "was changed since"},
		{"a rule that is not understood", s.header("sa_1", rule("wif_new")), start, "orders.f45a2", unknown, "rule that gave out the token was deleted"},
		{"a key that is gone", s.header("sa_1", byKey("gone")), start, "orders.f45a2", unknown, "was deleted"},
		{"a key of another principal", s.header("sa_1", byKey(others)), start, "orders.f45a2", unknown, "was deleted"},
		{"a disabled key", s.header("sa_1", keyWith(func(k *object.Key) { k.Status = object.Disabled })), start, "orders.f45a2", unknown, "is disabled"},
		{"an expired key", s.header("sa_1", keyWith(func(k *object.Key) { k.Expires = now.UnixMicro() })), start, "orders.f45a2", unknown, "has ended"},
		{"a retired key", s.header("sa_1", keyWith(func(k *object.Key) { k.Retires = now.UnixMicro() })), start, "orders.f45a2", unknown, "has ended"},
		{"a key of an older epoch", s.header("sa_1", keyWith(func(k *object.Key) { k.Epoch = 0 })), start, "orders.f45a2", unknown, "ended together"},
		{"an older epoch", s.header("sa_1", func(t *credential.Token) { t.Epoch = 0 }), start, "orders.f45a2", unknown, "ended together"},
		{"a later epoch", s.header("sa_1", func(t *credential.Token) { t.Epoch = 2 }), start, "orders.f45a2", unknown, "ended together"},
		{"a disabled service account", s.header("sa_off", rule("wif_sa_off")), start, "orders.f45a2", unknown, "is disabled"},
		{"a service account that is gone", s.header("sa_gone", rule("wif_sa_gone")), start, "orders.f45a2", unknown, "does not exist any more"},
		{"a user", s.header("sa_user", rule("wif_sa_user")), start, "orders.f45a2", unknown, "does not exist any more"},
		{"a suspended account", s.header("sa_1", func(t *credential.Token) { t.Account = "f45a4" }), start, "orders.f45a4", denied, "not active"},
		{"an account that is not here", s.header("sa_1", func(t *credential.Token) { t.Account = "f45a9" }), start, "orders.f45a9", unknown, "the token is not known here"},
		{"bound to a certificate", s.header("sa_1", func(t *credential.Token) { t.Certificate = make([]byte, sha256.Size) }), start, "orders.f45a2", unknown, "bound to a client certificate"},
	}
	r := load(t, keys, p, suspended)
	from := netip.MustParseAddr("192.0.2.7")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, time := range []string{"first", "again"} {
				d := r.Decide(r.Credential(test.header, nil, from), test.method, test.namespace, now)
				if d.Allow != (test.kind == "") || d.Kind != test.kind || !strings.Contains(d.Reason, test.says) {
					t.Errorf("%s: got %t, %s, %q", time, d.Allow, d.Kind, d.Reason)
				}
			}
		})
	}
}

// TestTokenDecision says what a decision tells, and that it costs no allocation.
func TestTokenDecision(t *testing.T) {
	s, keys, p := tokenWorld(t)
	end := now.Add(time.Minute).Truncate(time.Microsecond)
	_, key := p.key("sa_1", func(k *object.Key) { k.Retires = end.UnixMicro() })
	r := load(t, keys, p)
	header := s.header("sa_1", func(t *credential.Token) { byKey(key)(t); t.ID = "tok_1" })
	decide := func() replica.Decision {
		return r.Decide(r.Credential(header, nil, netip.Addr{}), start, "orders.f45a2", now)
	}
	d := decide()
	want := replica.Decision{Allow: true, Reason: d.Reason, Account: "f45a2", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_1"},
		KeyID: key, TokenID: "tok_1", Namespace: "ns_1", Grant: sallyport.Grant{Subject: "sa_1", Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"},
		Head: p.head, Age: d.Age, Until: end}
	if diff := cmp.Diff(want, d, cmpopts.IgnoreUnexported(replica.Decision{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := testing.AllocsPerRun(100, func() { decide() }); n != 0 {
		t.Errorf("%v allocations on the allowed path", n)
	}
	header = s.header("sa_1", nil)
	if d := decide(); d.KeyID != "" || d.RuleID != "wif_1" || !d.Until.Equal(now.Add(10*time.Minute).Truncate(time.Second)) {
		t.Errorf("by a rule: %+v", d)
	}
}

// TestTokensEnd: whatever a token rests on ends it at the next call, and what
// comes back as it was brings it back.
func TestTokensEnd(t *testing.T) {
	s, keys, p := tokenWorld(t)
	next := newSigner(t, "kid-2")
	_, key := p.key("sa_1", nil)
	r := load(t, keys, p)
	token := map[string]string{"rule": s.header("sa_1", nil), "key": s.header("sa_1", byKey(key))}
	check := func(when, by string, allowed bool) {
		t.Helper()
		if d := r.Decide(r.Credential(token[by], nil, netip.Addr{}), start, "orders.f45a2", now); d.Allow != allowed {
			t.Errorf("%s, by a %s: allowed %t, %q", when, by, d.Allow, d.Reason)
		}
	}
	keyObject := p.objects["key "+key]
	for _, step := range []struct {
		name      string
		do        func()
		rule, key bool
	}{
		{"at first", func() {}, true, true},
		{"rule version", func() { p.rule("wif_1", "sa_1", 2) }, false, true},
		{"the old version", func() { p.rule("wif_1", "sa_1", 1) }, true, true},
		{"no rule", func() { p.remove(object.KindFederationRule, "wif_1") }, false, true},
		{"the rule again", func() { p.rule("wif_1", "sa_1", 1) }, true, true},
		{"no key", func() { p.remove(object.KindKey, key) }, true, false},
		{"the key again", func() { p.objects["key "+key] = keyObject }, true, true},
		{"epoch", func() {
			put(p, object.KindPrincipal, "sa_1", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 2})
		}, false, false},
		{"the epoch again", func() { p.principal("sa_1", sallyport.ServiceAccount) }, true, true},
		{"another signing key beside", func() { put(keys, object.KindTokenKey, next.kid, next.object()) }, true, true},
		{"no signing key", func() { keys.remove(object.KindTokenKey, s.kid) }, false, false},
		{"another signing key of its id", func() { put(keys, object.KindTokenKey, s.kid, next.object()) }, false, false},
		{"for another audience", func() {
			o := s.object()
			o.Audiences = []string{"elsewhere"}
			put(keys, object.KindTokenKey, s.kid, o)
		}, false, false},
		{"the signing key again, for more", func() {
			o := s.object()
			o.Audiences = append(o.Audiences, "elsewhere")
			put(keys, object.KindTokenKey, s.kid, o)
		}, true, true},
		{"account", func() { put(p, object.KindAccount, "f45a2", object.Account{Status: object.Suspended}) }, false, false},
	} {
		step.do()
		reload(t, r, keys)
		reload(t, r, p)
		check(step.name, "rule", step.rule)
		check(step.name, "key", step.key)
	}
}

// A key that reaches the copy after its token is good at once: that the token was
// refused before is not remembered past the change.
func TestTokenBeforeItsKey(t *testing.T) {
	s, keys, p := tokenWorld(t)
	r := load(t, newPolicy(sallyport.SystemAccount), p)
	header := s.header("sa_1", nil)
	for range 2 {
		if d := r.Decide(r.Credential(header, nil, netip.Addr{}), start, "orders.f45a2", now); d.Kind != sallyport.Unauthenticated {
			t.Fatalf("%+v", d)
		}
	}
	keys.head.Revision = 10
	reload(t, r, keys)
	if d := r.Decide(r.Credential(header, nil, netip.Addr{}), start, "orders.f45a2", now); !d.Allow {
		t.Error(d.Reason)
	}
}

// TestBoundTokens: a token that is bound to a certificate is good on a connection
// that was made with it, and as long as the managed CA has not ended that.
func TestBoundTokens(t *testing.T) {
	s, keys, p := tokenWorld(t)
	own, strangers := newCA(t, "Own", nil, nil), newCA(t, "Strangers", nil, nil)
	p.issuer(own)
	managed, stranger, another := own.managed("f45a2", "sa_1", nil), strangers.leaf("anybody", nil), strangers.leaf("somebody", nil)
	r := load(t, keys, p)
	bound := func(c *chain) string {
		sum := sha256.Sum256(c.certs[0].Raw)
		return s.header("sa_1", func(t *credential.Token) { t.Certificate = sum[:] })
	}
	decide := func(header string, c *chain) replica.Decision {
		var connection *tls.ConnectionState
		if c != nil {
			connection = &tls.ConnectionState{PeerCertificates: c.certs}
		}
		return r.Decide(r.Credential(header, connection, netip.Addr{}), start, "orders.f45a2", now)
	}
	for _, test := range []struct {
		name   string
		header string
		chain  *chain
		says   string // "": allowed
	}{
		{"a managed one", bound(managed), managed, ""},
		{"anybody's", bound(stranger), stranger, ""},
		{"another one", bound(stranger), another, "bound to a client certificate"},
		{"none", bound(stranger), nil, "bound to a client certificate"},
		{"not bound, with one", s.header("sa_1", nil), another, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := decide(test.header, test.chain)
			if d.Allow != (test.says == "") || !strings.Contains(d.Reason, test.says) {
				t.Errorf("%t, %q", d.Allow, d.Reason)
			}
			if want := credential.Fingerprint(managed.certs[0]); test.chain == managed && d.Certificate != want {
				t.Errorf("the decision names certificate %q, want %q", d.Certificate, want)
			}
		})
	}
	header := bound(managed)
	if n := testing.AllocsPerRun(100, func() { decide(header, managed) }); n > 1 { // the state of the test's connection
		t.Errorf("%v allocations", n)
	}
	leaf := managed.certs[0]
	put(p, object.KindRevocation, object.RevokedSerial(credential.IssuerID(own.cert), credential.SerialText(leaf.SerialNumber)), object.Revocation{})
	put(p, object.KindRevocation, object.RevokedCertificate(credential.Fingerprint(stranger.certs[0])), object.Revocation{})
	reload(t, r, p)
	for name, c := range map[string]*chain{"managed": managed, "stranger": stranger} {
		if d := decide(bound(c), c); d.Kind != sallyport.Unauthenticated || !strings.Contains(d.Reason, "was revoked") {
			t.Errorf("%s, revoked: %t, %q", name, d.Allow, d.Reason)
		}
	}
}

// A connection to a namespace's name is good for that namespace alone, with a token, too.
func TestTokenOfNamedConnection(t *testing.T) {
	s, keys, p := tokenWorld(t)
	r := loadNamed(t, keys, p)
	connection := &tls.ConnectionState{ServerName: "orders.f45a2." + domain}
	header := s.header("sa_1", nil)
	if d := r.Decide(r.Credential(header, connection, netip.Addr{}), start, "orders.f45a2", now); !d.Allow {
		t.Error(d.Reason)
	}
	if d := r.Decide(r.Credential(header, connection, netip.Addr{}), describe, "billing.f45a2", now); d.Kind != sallyport.PermissionDenied {
		t.Errorf("on another namespace than the connection's: %+v", d)
	}
}
