package replica

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// world is what the differential test chooses from.
type world struct {
	customers, managed []*testAuthority
	chains             [][]*x509.Certificate
}

var (
	testAccounts        = []sallyport.AccountID{"aaaa2", "bbbb2"}
	testNamespaces      = []string{"ns_1", "ns_2", "ns_3"}
	testNames           = []string{"n1", "n2", "n3"}
	testServiceAccounts = []string{"sa_1", "sa_2", "sa_3"}
)

func newWorld(t testing.TB) *world {
	root, other := testCA(t, "Root", nil), testCA(t, "Other", nil)
	below := testCA(t, "Below", root)
	own := []*testAuthority{testCA(t, "Own 1", nil), testCA(t, "Own 2", nil), testCA(t, "Own 3", nil)}
	w := &world{customers: []*testAuthority{root, other, below}, managed: own}
	for _, ca := range w.customers {
		for _, name := range []string{"a", "b", "ab"} {
			chain := testLeaf(t, name, ca)
			if ca == below {
				chain = append(chain, below.cert)
			}
			w.chains = append(w.chains, chain)
		}
	}
	w.chains = append(w.chains, []*x509.Certificate{testCertificate(t, "a", root, false, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).cert})
	for _, ca := range append(own, root) {
		for _, account := range testAccounts {
			for _, id := range testServiceAccounts[:2] {
				w.chains = append(w.chains, []*x509.Certificate{testCertificate(t, id, ca, false, func(c *x509.Certificate) {
					uri, err := url.Parse(credential.SPIFFEID("example.org", account, id))
					if err != nil {
						t.Fatal(err)
					}
					c.Subject, c.URIs = pkix.Name{CommonName: id, Organization: []string{string(account)}}, []*url.URL{uri}
					c.KeyUsage, c.ExtKeyUsage, c.BasicConstraintsValid = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, true
				}).cert})
			}
		}
	}
	return w
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// change is a random one.
func (w *world) change(rng *rand.Rand) object.Object {
	var o object.Object
	switch rng.IntN(8) {
	case 0:
		i := rng.IntN(len(testNamespaces))
		o = object.Object{Kind: object.KindNamespace, ID: testNamespaces[i], Data: object.Encode(object.Namespace{Name: testNames[i], Project: "p_1",
			Auth: object.NamespaceAuth{APIKey: true, MTLS: rng.IntN(4) > 0}})}
	case 1, 2:
		var v object.ClientCAs
		for _, ca := range w.customers {
			if rng.IntN(2) == 0 {
				v.Certificates = append(v.Certificates, ca.cert.Raw)
			}
		}
		for _, name := range []string{"a", "b", "a*", "*b"} {
			if f := (object.CertificateFilter{CommonName: name}); rng.IntN(4) == 0 {
				switch rng.IntN(3) {
				case 0:
					f.Permission = "read"
				case 1:
					f.ServiceAccount = pick(rng, testServiceAccounts)
				}
				v.Filters = append(v.Filters, f)
			}
		}
		o = object.Object{Kind: object.KindClientCAs, ID: pick(rng, testNamespaces), Data: object.Encode(v)}
		if rng.IntN(20) == 0 {
			o.Data = []byte(strings.Replace(string(o.Data), "{", `{"new":1,`, 1))
		}
	case 3:
		ca := pick(rng, w.managed)
		o = object.Object{Kind: object.KindIssuer, ID: credential.IssuerID(ca.cert), Data: object.Encode(object.Issuer{Certificate: ca.cert.Raw, TrustDomain: pick(rng, []string{"example.org", "example.org", "example.com"})})}
	case 4:
		o = object.Object{Kind: object.KindRevocation, Data: object.Encode(object.Revocation{}), Deleted: rng.IntN(2) == 0}
		ca := pick(rng, slices.Concat(w.customers, w.managed)).cert
		leaf := pick(rng, w.chains)[0]
		o.ID = pick(rng, []string{object.RevokedCertificate(credential.Fingerprint(leaf)), object.RevokedCertificate(credential.Fingerprint(ca)),
			object.RevokedIssuer(credential.IssuerID(ca)), object.RevokedSerial(credential.IssuerID(ca), credential.SerialText(leaf.SerialNumber)),
			object.RevokedSerial(credential.IssuerID(pick(rng, slices.Concat(w.customers, w.managed)).cert), credential.SerialText(ca.SerialNumber)),
			object.RevokedSerial(credential.IssuerID(ca), credential.SerialText(ca.SerialNumber))})
	case 5:
		o = object.Object{Kind: object.KindPrincipal, ID: pick(rng, testServiceAccounts), Data: object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: pick(rng, []object.Status{object.Active, object.Active, object.Disabled}), Epoch: 1})}
	case 6:
		g := object.Grant{Subject: pick(rng, testServiceAccounts), Scope: sallyport.ScopeNamespace, Target: pick(rng, testNamespaces), Role: pick(rng, []string{"read", "write", "admin"})}
		o = object.Object{Kind: object.KindGrant, ID: object.GrantID(g.Subject, g.Scope, g.Target), Data: object.Encode(g)}
	case 7:
		o = object.Object{Kind: object.KindAccount, Data: object.Encode(object.Account{Status: pick(rng, []object.Status{object.Active, object.Active, object.Active, object.Suspended})})}
	}
	if o.Kind != object.KindAccount && rng.IntN(6) == 0 {
		o.Deleted = true
	}
	if o.Deleted {
		o.Data = nil
	}
	return o
}

// facts are an account's live objects.
type facts map[string]object.Object

func fact[V object.Value](f facts, kind object.Kind, id string) (v V, ok bool) {
	o, ok := f[string(kind)+id]
	if !ok {
		return v, false
	}
	v, err := object.Decode[V](o.Data)
	return v, err == nil
}

// permission is what the service account has on the namespace, -1 if it is gone
// or disabled.
func (f facts) permission(id, namespace string) int {
	p, ok := fact[object.Principal](f, object.KindPrincipal, id)
	if !ok || p.Status != object.Active {
		return -1
	}
	g, _ := fact[object.Grant](f, object.KindGrant, object.GrantID(id, sallyport.ScopeNamespace, namespace))
	held, _ := sallyport.ParsePermission(g.Role)
	return int(held)
}

func (f facts) revoked(id string) bool {
	_, is := f[string(object.KindRevocation)+id]
	return is
}

// holds reports whether a chain that counts is left after the revocations.
func (f facts) holds(p *credential.Presented, cas []*x509.Certificate, profile credential.Profile, counts func(anchor string) bool, now time.Time) bool {
	verified := p.Verify(credential.NewAnchors(cas), profile, now)
	for _, c := range verified.Chains {
		for i, issuer := range c.IssuerIDs {
			if i == 0 && f.revoked(object.RevokedSerial(issuer, p.Serial)) {
				return false
			}
		}
	}
	if f.revoked(object.RevokedCertificate(p.Fingerprint)) {
		return false
	}
	return slices.ContainsFunc(verified.Chains, func(c credential.Chain) bool {
		good := counts(c.Anchor)
		for i, issuer := range c.IssuerIDs {
			above := c.Certificates[i+1]
			good = good && !f.revoked(object.RevokedIssuer(issuer)) && !f.revoked(object.RevokedCertificate(credential.Fingerprint(above))) &&
				!f.revoked(object.RevokedSerial(issuer, credential.SerialText(c.Certificates[i].SerialNumber)))
		}
		anchor := c.Certificates[len(c.Certificates)-1]
		if anchor.CheckSignature(anchor.SignatureAlgorithm, anchor.RawTBSCertificate, anchor.Signature) == nil {
			good = good && !f.revoked(object.RevokedSerial(credential.IssuerID(anchor), credential.SerialText(anchor.SerialNumber)))
		}
		return good
	})
}

// decide is the rule, as plain as it can be written down. It gives who is let in.
func (f facts) decide(account sallyport.AccountID, p *credential.Presented, need authz.Need, name string, now time.Time) (principal string, allow bool) {
	if a, _ := fact[object.Account](f, object.KindAccount, string(account)); a.Status != object.Active {
		return "", false
	}
	id := ""
	var ns object.Namespace
	for i := range testNames {
		if n, ok := fact[object.Namespace](f, object.KindNamespace, testNamespaces[i]); ok && n.Name == name {
			id, ns = testNamespaces[i], n
		}
	}
	byServiceAccount := func(sa string) bool {
		held := f.permission(sa, id)
		if need.Scope == authz.Cluster {
			return held >= 0
		}
		return id != "" && ns.Auth.MTLS && held >= int(need.Permission)
	}
	if p.Account == account {
		var cas []*x509.Certificate
		domains := map[string]string{}
		for _, o := range f {
			if i, ok := fact[object.Issuer](f, object.KindIssuer, o.ID); ok && o.Kind == object.KindIssuer {
				ca, _ := x509.ParseCertificate(i.Certificate)
				cas = append(cas, ca)
				domains[credential.Fingerprint(ca)] = i.TrustDomain
			}
		}
		if f.holds(p, cas, credential.ManagedCA, func(anchor string) bool { return domains[anchor] == p.TrustDomain }, now) {
			return p.ServiceAccount, byServiceAccount(p.ServiceAccount)
		}
	}
	bundle, ok := fact[object.ClientCAs](f, object.KindClientCAs, id)
	if !ok || id == "" || !ns.Auth.MTLS {
		return "", false
	}
	var cas []*x509.Certificate
	for _, der := range bundle.Certificates {
		ca, _ := x509.ParseCertificate(der)
		cas = append(cas, ca)
	}
	if !f.holds(p, cas, credential.CustomerCA, func(string) bool { return true }, now) {
		return "", false
	}
	if len(bundle.Filters) == 0 {
		return p.Fingerprint, need.Scope == authz.Cluster || need.Permission <= sallyport.PermissionWrite
	}
	for _, filter := range bundle.Filters {
		gives := sallyport.PermissionWrite
		if filter.Permission != "" {
			gives = sallyport.PermissionRead
		}
		switch {
		case !(credential.Filter{CommonName: filter.CommonName}).Match(p):
		case filter.ServiceAccount != "" && byServiceAccount(filter.ServiceAccount):
			return filter.ServiceAccount, true
		case filter.ServiceAccount == "" && (need.Scope == authz.Cluster || need.Permission <= gives):
			return p.Fingerprint, true
		}
	}
	return "", false
}

// TestDecidesAsTheRule: after each of many random changes, decisions over open
// connections are those of the rule written down naively.
func TestDecidesAsTheRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, err := Open(Config{NamespaceDomain: "example.net"})
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	histories := map[sallyport.AccountID]*history{}
	for _, account := range testAccounts {
		h := newHistory(account)
		h.change(object.Object{Kind: object.KindAccount, ID: string(account), Data: object.Encode(object.Account{Status: object.Active})})
		histories[account] = h
		if _, err := r.apply(h.snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	r.answered(r.sinceBase())
	methods := []string{testMethod, "/temporal.api.workflowservice.v1.WorkflowService/DescribeWorkflowExecution", "/temporal.api.workflowservice.v1.WorkflowService/GetClusterInfo"}
	allowed, principals := 0, map[string]bool{}
	for step := range 1500 {
		account := pick(rng, testAccounts)
		h := histories[account]
		o := w.change(rng)
		if o.Kind == object.KindAccount {
			o.ID = string(account)
		}
		if _, err := r.apply(h.change(o)); err != nil {
			t.Fatal(err)
		}
		for range 15 {
			chain, name, method, now := pick(rng, w.chains), pick(rng, testNames), pick(rng, methods), time.Now()
			account := pick(rng, testAccounts)
			c := r.onConnection(chain)
			need, _ := authz.MethodNeed(method)
			full := name + "." + string(account)
			if need.Scope == authz.Cluster {
				c.Name = full
			}
			d := r.Decide(c, method, full, now)
			want, allow := facts(histories[account].live).decide(account, c.Certificate, need, name, now)
			if d.Allow != allow || allow && d.Principal.ID != want {
				t.Fatalf("step %d, %s on %s by %s: got %t, %v, %q; want %t, %q", step, method, full, chain[0].Subject, d.Allow, d.Principal, d.Reason, allow, want)
			}
			if allow {
				allowed++
				principals[fmt.Sprintf("%s %d", d.Principal.Kind, need.Scope)] = true
			}
		}
	}
	if allowed < 100 || len(principals) < 4 {
		t.Errorf("only %d calls were allowed, of %v: the test says little", allowed, principals)
	}
}
