package replica

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// tokenWorld is what the differential test of tokens chooses from.
type tokenWorld struct {
	signers []*testSigner
	tokens  map[string]credential.Token // by the header
	headers []string
	chains  [][]*x509.Certificate
}

func newTokenWorld(t testing.TB, rng *rand.Rand) *tokenWorld {
	w := &tokenWorld{tokens: map[string]credential.Token{}}
	for i := range 3 {
		w.signers = append(w.signers, newTestSigner(t, fmt.Sprintf("kid-%d", i)))
	}
	ca := testCA(t, "CA", nil)
	w.chains = [][]*x509.Certificate{nil, testLeaf(t, "a", ca), testLeaf(t, "b", ca)}
	at := time.Now()
	for range 150 {
		s := pick(rng, w.signers)
		header := s.header(t, func(k *credential.Token) {
			k.Account, k.Principal.ID, k.Epoch, k.Signer = pick(rng, testAccounts), pick(rng, testServiceAccounts[:2]), int64(rng.IntN(4)/3), s.kid
			if k.Rule, k.RuleVersion = pick(rng, []string{"wif_1", "wif_2"}), int64(1+rng.IntN(4)/3); rng.IntN(2) == 0 {
				k.Key, k.Rule, k.RuleVersion = pick(rng, []string{"k1", "k2"}), "", 0
			}
			k.ReadOnly = rng.IntN(6) == 0
			if rng.IntN(4) == 0 {
				k.Namespaces = []sallyport.NamespaceID{sallyport.NamespaceID(pick(rng, testNamespaces)), "ns_other"}
			}
			if rng.IntN(4) == 0 {
				sum := sha256.Sum256(pick(rng, w.chains[1:])[0].Raw)
				k.Certificate = sum[:]
			}
			k.Expires = at.Add(pick(rng, []time.Duration{5 * time.Minute, 10 * time.Minute})).Truncate(time.Second)
			w.tokens[""] = *k
		})
		w.tokens[header] = w.tokens[""]
		w.headers = append(w.headers, header)
	}
	return w
}

// change is a random one, of the keys if the account is the one of no tenant.
func (w *tokenWorld) change(rng *rand.Rand, account sallyport.AccountID) object.Object {
	var o object.Object
	if account == sallyport.SystemAccount {
		o = pick(rng, w.signers).object(pick(rng, [][]string{{"a"}, {"a", "b"}, {"a"}, {"b"}})...)
		if rng.IntN(10) == 0 {
			o.Data = []byte(strings.Replace(string(o.Data), "{", `{"new":1,`, 1))
		}
		o.Deleted = rng.IntN(8) == 0
	} else {
		o = w.changeAccount(rng, account)
	}
	if o.Deleted = o.Deleted || o.Kind != object.KindAccount && rng.IntN(8) == 0; o.Deleted {
		o.Data = nil
	}
	return o
}

func (w *tokenWorld) changeAccount(rng *rand.Rand, account sallyport.AccountID) object.Object {
	switch rng.IntN(7) {
	case 0:
		i := rng.IntN(len(testNamespaces))
		return object.Object{Kind: object.KindNamespace, ID: testNamespaces[i],
			Data: object.Encode(object.Namespace{Name: testNames[i], Auth: object.NamespaceAuth{APIKey: rng.IntN(5) > 0}})}
	case 1:
		return object.Object{Kind: object.KindPrincipal, ID: pick(rng, testServiceAccounts),
			Data: object.Encode(object.Principal{Kind: pick(rng, []sallyport.PrincipalKind{sallyport.ServiceAccount, sallyport.ServiceAccount, sallyport.ServiceAccount, sallyport.User}),
				Status: pick(rng, []object.Status{object.Active, object.Active, object.Active, object.Disabled}), Epoch: int64(rng.IntN(4) / 3)})}
	case 2, 3:
		g := object.Grant{Subject: pick(rng, testServiceAccounts), Scope: sallyport.ScopeNamespace, Target: pick(rng, testNamespaces), Role: pick(rng, []string{"read", "write", "admin"})}
		return object.Object{Kind: object.KindGrant, ID: object.GrantID(g.Subject, g.Scope, g.Target), Data: object.Encode(g)}
	case 4:
		k := object.Key{Owner: pick(rng, testServiceAccounts[:2]), Status: pick(rng, []object.Status{object.Active, object.Active, object.Active, object.Disabled}),
			Epoch: int64(rng.IntN(4) / 3), Expires: time.Now().Add(pick(rng, []time.Duration{time.Minute, time.Hour, time.Hour})).UnixMicro(), ReadOnly: rng.IntN(6) == 0}
		if rng.IntN(4) == 0 {
			k.Retires = time.Now().Add(pick(rng, []time.Duration{time.Minute, time.Hour})).UnixMicro()
		}
		if rng.IntN(4) == 0 {
			k.Namespaces = []string{pick(rng, testNamespaces)}
		}
		if rng.IntN(4) == 0 {
			k.Sources = []string{pick(rng, []string{"192.0.2.0/24", "2001:db8::/32"})}
		}
		return object.Object{Kind: object.KindKey, ID: pick(rng, []string{"k1", "k2"}), Data: object.Encode(k)}
	case 5:
		return object.Object{Kind: object.KindFederationRule, ID: pick(rng, []string{"wif_1", "wif_2"}),
			Data: object.Encode(object.FederationRule{ServiceAccount: pick(rng, testServiceAccounts[:2]), Version: int64(1 + rng.IntN(4)/3)})}
	default:
		return object.Object{Kind: object.KindAccount, ID: string(account), Data: object.Encode(object.Account{Status: pick(rng, []object.Status{object.Active, object.Active, object.Active, object.Suspended})})}
	}
}

// decideToken is the rule, as plain as it can be written down.
func (f facts) decideToken(keys facts, t credential.Token, chain []*x509.Certificate, from netip.Addr, need authz.Need, name string, now time.Time) bool {
	signer, ok := fact[object.TokenKey](keys, object.KindTokenKey, t.Signer)
	account, _ := fact[object.Account](f, object.KindAccount, string(t.Account))
	p, _ := fact[object.Principal](f, object.KindPrincipal, t.Principal.ID)
	if !ok || !slices.Contains(signer.Audiences, "a") || account.Status != object.Active ||
		p.Kind != sallyport.ServiceAccount || p.Status != object.Active || p.Epoch != t.Epoch || !now.Before(t.Expires) {
		return false
	}
	key := object.Key{}
	if t.Key != "" {
		if key, ok = fact[object.Key](f, object.KindKey, t.Key); !ok || key.Owner != t.Principal.ID || key.Status != object.Active || key.Epoch != p.Epoch ||
			now.UnixMicro() >= key.Expires || key.Retires != 0 && now.UnixMicro() >= key.Retires {
			return false
		}
	} else if rule, ok := fact[object.FederationRule](f, object.KindFederationRule, t.Rule); !ok || rule.ServiceAccount != t.Principal.ID || rule.Version != t.RuleVersion {
		return false
	}
	if key.Sources != nil && !slices.ContainsFunc(key.Sources, func(s string) bool { return netip.MustParsePrefix(s).Contains(from) }) {
		return false
	}
	if t.Certificate != nil {
		if len(chain) == 0 {
			return false
		}
		if sum := sha256.Sum256(chain[0].Raw); !slices.Equal(sum[:], t.Certificate) {
			return false
		}
	}
	if need.Scope == authz.Cluster {
		return true
	}
	for i, id := range testNamespaces {
		ns, ok := fact[object.Namespace](f, object.KindNamespace, id)
		if !ok || testNames[i] != name || !ns.Auth.APIKey || key.Namespaces != nil && !slices.Contains(key.Namespaces, id) ||
			t.Namespaces != nil && !slices.Contains(t.Namespaces, sallyport.NamespaceID(id)) {
			continue
		}
		return f.permission(t.Principal.ID, id) >= int(need.Permission) && (need.Permission <= sallyport.PermissionRead || !key.ReadOnly && !t.ReadOnly)
	}
	return false
}

// TestDecidesTokensAsTheRule: after each of many random changes, decisions on
// tokens are those of the rule written down naively.
func TestDecidesTokensAsTheRule(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	w := newTokenWorld(t, rng)
	r, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	accounts := append([]sallyport.AccountID{sallyport.SystemAccount}, testAccounts...)
	histories := map[sallyport.AccountID]*history{}
	for _, account := range accounts {
		h := newHistory(account)
		h.change(object.Object{Kind: object.KindAccount, ID: string(account), Data: object.Encode(object.Account{Status: object.Active})})
		for range 40 {
			h.change(w.change(rng, account))
		}
		histories[account] = h
		if _, err := r.apply(h.snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	r.answered(r.sinceBase())
	methods := []string{testMethod, "/temporal.api.workflowservice.v1.WorkflowService/DescribeWorkflowExecution", "/temporal.api.workflowservice.v1.WorkflowService/GetClusterInfo"}
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("198.51.100.1")}
	allowed, calls := 0, 0
	for step := range 1500 {
		account := pick(rng, accounts)
		if rng.IntN(3) > 0 {
			account = pick(rng, testAccounts)
		}
		if _, err := r.apply(histories[account].change(w.change(rng, account))); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			header, method, name, from, chain := pick(rng, w.headers), pick(rng, methods), pick(rng, testNames), pick(rng, addresses), pick(rng, w.chains)
			now := time.Now().Add(pick(rng, []time.Duration{0, 0, 0, 2 * time.Minute, 7 * time.Minute}))
			token := w.tokens[header]
			d := r.Decide(r.Credential(header, &tls.ConnectionState{PeerCertificates: chain}, from), method, name+"."+string(token.Account), now)
			need, _ := authz.MethodNeed(method)
			want := facts(histories[token.Account].live).decideToken(facts(histories[sallyport.SystemAccount].live), token, chain, from, need, name, now)
			if d.Allow != want {
				t.Fatalf("step %d, %s on %s by %+v: got %t, %q; want %t", step, method, name, token, d.Allow, d.Reason, want)
			}
			if calls++; want {
				allowed++
			}
		}
	}
	if allowed < calls/500 {
		t.Errorf("only %d of %d calls were allowed: the test says little", allowed, calls)
	}
	t.Logf("%d of %d calls were allowed", allowed, calls)
}
