package replica

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_model/go"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

const testIssuer = "https://sallyport.example.net"

// testSigner makes tokens.
type testSigner struct {
	kid string
	key *ecdsa.PrivateKey
	der []byte
}

func newTestSigner(t testing.TB, kid string) *testSigner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &testSigner{kid, key, der}
}

func (s *testSigner) object(audiences ...string) object.Object {
	return object.Object{Kind: object.KindTokenKey, ID: s.kid, Data: object.Encode(object.TokenKey{Key: s.der, Issuer: testIssuer, Audiences: audiences})}
}

// header has a token of sa_1 in f45a2 by the rule wif_1, but for what change makes of it.
func (s *testSigner) header(t testing.TB, change func(*credential.Token)) string {
	t.Helper()
	at := time.Now()
	token := credential.Token{ID: sallyport.NewID("tok_"), Account: "f45a2", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_1"},
		Rule: "wif_1", RuleVersion: 1, Audience: []string{"a"}, Issued: at.Add(-time.Second), Expires: at.Add(10 * time.Minute)}
	if change != nil {
		change(&token)
	}
	raw, err := credential.SignToken(token, testIssuer, s.kid, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + raw
}

// tokenChanges is the i-th of many changes to what tokens are decided by.
func tokenChanges(s *testSigner, i int) []object.Object {
	key := s.object("a", fmt.Sprintf("b%d", i%3))
	key.ID = fmt.Sprintf("kid-%d", i%5)
	rule := object.FederationRule{ServiceAccount: fmt.Sprintf("sa_%d", i%7), Version: int64(i % 3)}
	list := []object.Object{key, {Kind: object.KindFederationRule, ID: fmt.Sprintf("wif_%d", i%80), Data: object.Encode(rule)}}
	for j := range list {
		switch {
		case i%4 == j:
			list[j].Deleted, list[j].Data = true, nil
		case i%9 == j:
			list[j].Data = []byte(`{"unknown":true}`)
		}
	}
	return list
}

// tokenReplica has f45a2 with sa_1 and its rule wif_1, and the history of the keys.
func tokenReplica(t testing.TB, signers ...*testSigner) (*Replica, *history) {
	t.Helper()
	r, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	keys, account := newHistory(sallyport.SystemAccount), newHistory("f45a2")
	for _, s := range signers {
		keys.change(s.object("a"))
	}
	account.change(
		object.Object{Kind: object.KindAccount, ID: "f45a2", Data: object.Encode(object.Account{Status: object.Active})},
		object.Object{Kind: object.KindPrincipal, ID: "sa_1", Data: object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active})},
		object.Object{Kind: object.KindFederationRule, ID: "wif_1", Data: object.Encode(object.FederationRule{ServiceAccount: "sa_1", Version: 1})},
		object.Object{Kind: object.KindNamespace, ID: "ns_1", Data: object.Encode(object.Namespace{Name: "orders", Auth: object.NamespaceAuth{APIKey: true}})},
		object.Object{Kind: object.KindGrant, ID: object.GrantID("sa_1", sallyport.ScopeNamespace, "ns_1"),
			Data: object.Encode(object.Grant{Subject: "sa_1", Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"})})
	for _, h := range []*history{keys, account} {
		if _, err := r.apply(h.snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	r.answered(r.sinceBase())
	return r, keys
}

func (r *Replica) byToken(header string) Decision {
	return r.Decide(r.Credential(header, nil, netip.Addr{}), testMethod, "orders.f45a2", time.Now())
}

// TestKeysOfSeveralHistories: after a restore of the service, a key has to be
// there in all histories of the keys, and tokens wait for keys that were lost.
func TestKeysOfSeveralHistories(t *testing.T) {
	t.Parallel()
	s := newTestSigner(t, "kid-1")
	header := s.header(t, nil)
	r, keys := tokenReplica(t, s)
	if d := r.byToken(header); !d.Allow {
		t.Fatal(d.Reason)
	}
	older, a := keys.snapshot(), r.find(sallyport.SystemAccount)
	whole := a.state.Load()
	removed := s.object("a")
	removed.Deleted, removed.Data = true, nil
	if _, err := r.apply(keys.change(removed)); err != nil {
		t.Fatal(err)
	}
	if d := r.byToken(header); d.Kind != sallyport.Unauthenticated || !strings.Contains(d.Reason, "revoked") {
		t.Errorf("revoked: %+v", d)
	}
	if done, err := r.apply(older); err != nil || !done.diverged {
		t.Fatalf("%+v, %v", done, err)
	}
	if d := r.byToken(header); d.Kind != sallyport.Unauthenticated {
		t.Errorf("an older history of the keys brings a revoked one back: %+v", d)
	}
	lost := *whole
	lost.lost = true
	a.state.Store(&lost)
	if d := r.byToken(header); d.Kind != sallyport.Unavailable {
		t.Errorf("the keys were lost: %+v", d)
	}
	stuck := *whole
	stuck.stuck, stuck.stuckAt = true, r.sinceBase()-int64(2*time.Hour)
	a.state.Store(&stuck)
	if d := r.byToken(header); d.Kind != sallyport.Unavailable || d.Age < time.Hour {
		t.Errorf("the keys are too old: %+v", d)
	}
	younger := stuck
	younger.stuckAt = r.sinceBase() - int64(time.Minute)
	a.state.Store(&younger)
	if d := r.byToken(header); !d.Allow || d.Age < 30*time.Second {
		t.Errorf("the keys are a minute old: %+v", d)
	}
}

// TestTokenIsCheckedOnce: the signature of a token is checked once, whatever else
// changes, and what is known of bad ones is not asked again for a moment.
func TestTokenIsCheckedOnce(t *testing.T) {
	t.Parallel()
	s, unknown := newTestSigner(t, "kid-1"), newTestSigner(t, "kid-2")
	r, keys := tokenReplica(t, s)
	good, bad := s.header(t, nil), unknown.header(t, nil)
	first := r.Credential(good, nil, netip.Addr{}).token
	if _, err := r.apply(keys.snapshot()); err != nil {
		t.Fatal(err)
	}
	if again := r.Credential(good, nil, netip.Addr{}).token; first == nil || again != first {
		t.Errorf("checked again: %p, %p", first, again)
	}
	r.Credential(bad, nil, netip.Addr{})
	hash := sha256.Sum256([]byte(strings.TrimPrefix(bad, "Bearer ")))
	noted := r.tokens.bad.place(&hash).Load()
	if noted == nil || noted.hash != hash {
		t.Fatal("a refusal is not noted")
	}
	if c := r.Credential(bad, nil, netip.Addr{}); c.Problem == "" || r.tokens.bad.place(&hash).Load() != noted {
		t.Errorf("checked again: %+v", c)
	}
	later := *noted
	later.at = later.at.Add(-refusalTime)
	r.tokens.bad.place(&hash).Store(&later)
	if r.Credential(bad, nil, netip.Addr{}); r.tokens.bad.place(&hash).Load() == &later {
		t.Error("a refusal is remembered for ever")
	}
	for outcome, want := range map[string]float64{"good": 1, "bad": 2} {
		var counted io_prometheus_client.Metric
		if err := r.metrics.checks.WithLabelValues(outcome).Write(&counted); err != nil || counted.GetCounter().GetValue() != want {
			t.Errorf("%v checks are counted as %s, want %v (%v)", counted.GetCounter().GetValue(), outcome, want, err)
		}
	}
}

// TestTokenCacheIsBounded: two generations at most, by count and by size, and a
// token in use stays.
func TestTokenCacheIsBounded(t *testing.T) {
	t.Parallel()
	for name, namespaces := range map[string]int{"count": 0, "size": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := tokenReplica(t)
			cache := &r.tokens.good
			used := &token{hash: sha256.Sum256([]byte("used"))}
			cache.add(used)
			for i := range 3 * maxTokens {
				cache.add(&token{hash: sha256.Sum256(fmt.Append(nil, i)), Token: credential.Token{Namespaces: make([]sallyport.NamespaceID, namespaces)}})
				if i%1000 == 0 && cache.find(&used.hash) != used {
					t.Fatalf("after %d others: forgotten", i)
				}
			}
			current, previous := cache.current.Load().count, cache.previous.Load().count
			most := min(maxTokens, maxTokensSize/(tokenSize+namespaceSize*namespaces)+2)
			if current > most || previous > most {
				t.Errorf("%d and %d are kept, at most %d each are allowed", current, previous, most)
			}
		})
	}
}

// TestInventedTokensWait: while all places for checking are taken, tokens that are
// known are decided on, and new ones are told to try again.
func TestInventedTokensWait(t *testing.T) {
	t.Parallel()
	s := newTestSigner(t, "kid-1")
	r, _ := tokenReplica(t, s)
	known, fresh := s.header(t, nil), s.header(t, nil)
	if d := r.byToken(known); !d.Allow {
		t.Fatal(d.Reason)
	}
	for range cap(r.tokens.checking) {
		r.tokens.checking <- struct{}{}
	}
	if d := r.byToken(known); !d.Allow {
		t.Error(d.Reason)
	}
	if d := r.byToken(fresh); d.Kind != sallyport.Unavailable {
		t.Errorf("%+v", d)
	}
	<-r.tokens.checking
	if d := r.byToken(fresh); !d.Allow {
		t.Error(d.Reason)
	}
}

// TestTokensRaced: tokens are read while their keys come and go. (For -race.)
func TestTokensRaced(t *testing.T) {
	t.Parallel()
	s := newTestSigner(t, "kid-1")
	r, keys := tokenReplica(t, s)
	var headers []string
	for range 20 {
		headers = append(headers, s.header(t, nil))
	}
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for j := range 500 {
				if d := r.byToken(headers[(i*7+j)%len(headers)]); d.Allow == (d.Kind != "") {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	for i := range 200 {
		o := s.object("a")
		if o.Deleted = i%2 == 0; o.Deleted {
			o.Data = nil
		}
		r.mu.Lock()
		if _, err := r.apply(keys.change(o)); err != nil {
			t.Error(err)
		}
		r.mu.Unlock()
	}
	wait.Wait()
}

// TestTenantsKeysSignNothing: a signing key in a tenant's account, which nothing
// puts there, is kept as something that is not understood.
func TestTenantsKeysSignNothing(t *testing.T) {
	own, tenants := newTestSigner(t, "kid-own"), newTestSigner(t, "kid-tenants")
	r, _ := tokenReplica(t, own)
	other := newHistory("other")
	other.change(object.Object{Kind: object.KindAccount, ID: "other", Data: object.Encode(object.Account{Status: object.Active})}, tenants.object("a"))
	if _, err := r.apply(other.snapshot()); err != nil {
		t.Fatal(err)
	}
	r.answered(r.sinceBase())
	if d := r.byToken(own.header(t, nil)); !d.Allow {
		t.Fatalf("by the key of account 00000: %s", d.Reason)
	}
	if d := r.byToken(tenants.header(t, nil)); d.Allow || d.Kind != sallyport.Unauthenticated {
		t.Errorf("by the key in a tenant's account: %+v, want Unauthenticated", d)
	}
	v := r.find("other").state.Load().held
	if v.tokenKey(tenants.kid) != nil || v.odd[oddKey{object.KindTokenKey, tenants.kid}] == nil {
		t.Error("the tenant's account has a key that signs")
	}
}
