package replica

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
	"github.com/sallyport-iam/sallyport/credential"
)

type testAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serials atomic.Int64

func testCertificate(t testing.TB, name string, above *testAuthority, isCA bool, change func(*x509.Certificate)) *testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: isCA,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if isCA {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testAuthority{cert, key}
}

func testCA(t testing.TB, name string, above *testAuthority) *testAuthority {
	t.Helper()
	return testCertificate(t, name, above, true, nil)
}

func testLeaf(t testing.TB, name string, ca *testAuthority) []*x509.Certificate {
	t.Helper()
	return []*x509.Certificate{testCertificate(t, name, ca, false, nil).cert}
}

func fingerprintOf(i int) string {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return hex.EncodeToString(sum[:])
}

// trustChanges is the i-th of many changes to what certificates are decided by.
func trustChanges(ca *testAuthority, i int) []object.Object {
	cas := object.ClientCAs{Certificates: [][]byte{ca.cert.Raw}}
	if i%3 == 0 {
		cas.Filters = []object.CertificateFilter{{CommonName: fmt.Sprintf("n%d*", i), ServiceAccount: "sa_1"}}
	}
	ids := []string{object.RevokedCertificate(fingerprintOf(i % 500)), object.RevokedSerial(fingerprintOf(i%7), fmt.Sprintf("%x", i%900)),
		object.RevokedIssuer(fingerprintOf(i % 50)), "certificate/x", object.RevokedSerial(fingerprintOf(1), "00"), "serial/" + strings.ToUpper(fingerprintOf(1)) + "/1"}
	made := []string{object.CertificateID(fingerprintOf(i%7), fmt.Sprintf("%x", i%900)), object.CertificateID(fingerprintOf(1), fmt.Sprintf("%x", i%5)),
		object.CertificateID(fingerprintOf(1), "00"), object.CertificateID(fingerprintOf(1), ""), object.CertificateID("x", "1"), "", fingerprintOf(2)}
	list := []object.Object{
		{Kind: object.KindClientCAs, ID: fmt.Sprintf("ns_%d", i%50), Data: object.Encode(cas), Deleted: i%5 == 1},
		{Kind: object.KindIssuer, ID: credential.IssuerID(ca.cert), Data: object.Encode(object.Issuer{Certificate: ca.cert.Raw, TrustDomain: fmt.Sprintf("d%d", i%3)}), Deleted: i%4 == 1},
		{Kind: object.KindRevocation, ID: ids[i%len(ids)], Data: object.Encode(object.Revocation{}), Deleted: i%7 == 0},
		{Kind: object.KindCertificate, ID: made[i%len(made)], Data: object.Encode(object.Certificate{}), Deleted: i%9 == 0},
	}
	for j := range list {
		if i%11 == j && !list[j].Deleted {
			list[j].Data = []byte(`{"unknown":true}`)
		}
		if list[j].Deleted {
			list[j].Data = nil
		}
	}
	return list
}

func TestPackRevocation(t *testing.T) {
	t.Parallel()
	a := fingerprintOf(1)
	for _, id := range []string{object.RevokedCertificate(a), object.RevokedIssuer(a), object.RevokedSerial(a, "1"), object.RevokedSerial(a, "0"),
		object.RevokedSerial(a, "10"), object.RevokedSerial(a, "100"), object.RevokedSerial(a, strings.Repeat("f", maxSerial))} {
		if r, ok := packRevocation(id); !ok || r.id() != id {
			t.Errorf("%s: %t, %s", id, ok, r.id())
		}
	}
	for _, id := range []string{"", "certificate", "certificate/", object.RevokedCertificate(a[1:]), object.RevokedCertificate(a + "00"), object.RevokedCertificate(a) + "/", object.RevokedCertificate(a) + "/1",
		object.RevokedCertificate(strings.ToUpper(a)), object.RevokedIssuer(a) + "/2", object.RevokedSerial(a, ""), object.RevokedSerial(a, "01"), object.RevokedSerial(a, "00"), object.RevokedSerial(a, "A"),
		object.RevokedSerial(a, "-1"), object.RevokedSerial(a, "1/2"), object.RevokedSerial(a, strings.Repeat("f", maxSerial+1)), "key/" + a, "/" + a} {
		if r, ok := packRevocation(id); ok {
			t.Errorf("%s passes, as %s", id, r.id())
		}
	}
}

// quietReplica has an account with one namespace that takes the CA's certificates.
func quietReplica(t testing.TB, ca *testAuthority) (*Replica, *history) {
	t.Helper()
	r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory("f45a2")
	h.change(append(bundleChange(ca),
		object.Object{Kind: object.KindAccount, ID: "f45a2", Data: object.Encode(object.Account{Status: object.Active})},
		object.Object{Kind: object.KindNamespace, ID: "ns_1", Data: object.Encode(object.Namespace{Name: "orders", Auth: object.NamespaceAuth{MTLS: true}})})...)
	if _, err := r.apply(h.snapshot()); err != nil {
		t.Fatal(err)
	}
	r.answered(r.sinceBase())
	return r, h
}

func bundleChange(cas ...*testAuthority) []object.Object {
	var v object.ClientCAs
	for _, ca := range cas {
		v.Certificates = append(v.Certificates, ca.cert.Raw)
	}
	return []object.Object{{Kind: object.KindClientCAs, ID: "ns_1", Data: object.Encode(v)}}
}

func revocationOf(certs []*x509.Certificate, deleted bool) object.Object {
	o := object.Object{Kind: object.KindRevocation, ID: object.RevokedCertificate(credential.Fingerprint(certs[0])), Deleted: deleted}
	if !deleted {
		o.Data = object.Encode(object.Revocation{})
	}
	return o
}

const testMethod = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"

func (r *Replica) onConnection(certs []*x509.Certificate) Credential {
	return r.Credential("", &tls.ConnectionState{PeerCertificates: certs}, netip.Addr{})
}

// TestVerifiedOnce: signatures are checked once for a connection and a bundle,
// whatever else changes, and whether the answer is good or bad.
func TestVerifiedOnce(t *testing.T) {
	t.Parallel()
	ca, other := testCA(t, "CA", nil), testCA(t, "Other", nil)
	r, h := quietReplica(t, ca)
	for name, certs := range map[string][]*x509.Certificate{"good": testLeaf(t, "x", ca), "bad": testLeaf(t, "x", other)} {
		decide := func() []*verdict {
			c := r.onConnection(certs)
			d := r.Decide(c, testMethod, "orders.f45a2", time.Now())
			if d.Allow != (name == "good") {
				t.Fatalf("%s: %s", name, d.Reason)
			}
			return *c.presented.verdicts.Load()
		}
		first := decide()
		again := decide()
		if len(first) != 1 || len(again) != 1 || first[0] != again[0] {
			t.Errorf("%s: verified again for the same call", name)
		}
		for i := range 5 {
			if _, err := r.apply(h.change(principal("u_1", int64(i)), revocationOf(testLeaf(t, "y", ca), false))); err != nil {
				t.Fatal(err)
			}
		}
		if after := decide(); after[0] != first[0] {
			t.Errorf("%s: verified again for changes that are not the bundle's", name)
		}
		if _, err := r.apply(h.change(bundleChange(ca)...)); err != nil {
			t.Fatal(err)
		}
		if after := decide(); after[len(after)-1] == first[0] {
			t.Errorf("%s: not verified again for another bundle", name)
		}
	}
}

// TestVerdictsAreBounded: a client that calls everything costs bounded memory.
func TestVerdictsAreBounded(t *testing.T) {
	t.Parallel()
	ca := testCA(t, "CA", nil)
	r, h := quietReplica(t, ca)
	c := r.onConnection(testLeaf(t, "x", ca))
	for range 3 * maxVerdicts {
		if _, err := r.apply(h.change(bundleChange(ca)...)); err != nil {
			t.Fatal(err)
		}
		if d := r.Decide(c, testMethod, "orders.f45a2", time.Now()); !d.Allow {
			t.Fatal(d.Reason)
		}
	}
	if n := len(*c.presented.verdicts.Load()); n > maxVerdicts {
		t.Errorf("%d verdicts are kept", n)
	}
}

// TestPresentedCacheIsBounded: strangers cannot fill it, and what is in use stays.
func TestPresentedCacheIsBounded(t *testing.T) {
	t.Parallel()
	ca := testCA(t, "CA", nil)
	r, _ := quietReplica(t, ca)
	mine := testLeaf(t, "mine", ca)
	r.Decide(r.onConnection(mine), testMethod, "orders.f45a2", time.Now())
	first := r.onConnection(mine).presented
	der := testLeaf(t, "x", ca)[0].Raw
	for range 5*maxStrangers + 1 {
		stranger, err := x509.ParseCertificate(der) // another connection's after the last one was closed
		if err != nil {
			t.Fatal(err)
		}
		r.onConnection([]*x509.Certificate{stranger})
	}
	if r.onConnection(mine).presented != first {
		t.Error("strangers had a chain forgotten that is trusted")
	}
	for name, g := range map[string]*generation{"current": r.strangers.current.Load(), "previous": r.strangers.previous.Load()} {
		n := 0
		g.chains.Range(func(any, any) bool { n++; return true })
		if n > maxStrangers {
			t.Errorf("%d chains in the %s generation", n, name)
		}
	}
	for i := range 3*maxTrusted + 1 {
		cert := *mine[0] // as if parsed again
		other := r.newPresented(&credential.Presented{Certificates: []*x509.Certificate{&cert}})
		r.trusted.add(other)
		if i%20_000 == 0 && r.onConnection(mine).presented != first {
			t.Fatalf("forgotten after %d others although it is in use", i)
		}
	}
	for range 100 { // with other chains behind the same leaf
		r.onConnection(append(mine[:1:1], testLeaf(t, "y", ca)...))
	}
	if again := r.onConnection(mine).presented; again != r.onConnection(mine).presented {
		t.Error("a chain is not kept beside others of its leaf")
	}
	list, _ := r.strangers.current.Load().chains.Load(mine[0])
	n := 0
	for l := list.(*presentedList); l != nil; l = l.next {
		n++
	}
	if n > maxChainsOfLeaf {
		t.Errorf("%d chains of one leaf", n)
	}
	runtime.KeepAlive(mine)
}

// TestRestoreDoesNotUnrevoke: a restored service sends an older state, and what
// was revoked since stays so, on open connections and from the disk.
func TestRestoreDoesNotUnrevoke(t *testing.T) {
	t.Parallel()
	ca := testCA(t, "CA", nil)
	leaf := testLeaf(t, "x", ca)
	dir := folder(t)
	r := openIn(t, dir)
	h := newHistory("f45a2")
	h.change(append(bundleChange(ca),
		object.Object{Kind: object.KindAccount, ID: "f45a2", Data: object.Encode(object.Account{Status: object.Active})},
		object.Object{Kind: object.KindNamespace, ID: "ns_1", Data: object.Encode(object.Namespace{Name: "orders", Auth: object.NamespaceAuth{MTLS: true}})})...)
	older := h.snapshot()
	r.feed(t, older)
	c := r.onConnection(leaf)
	expect := func(r *Replica, when string, allow bool, says string) {
		t.Helper()
		if d := r.Decide(c, testMethod, "orders.f45a2", time.Now()); d.Allow != allow || !strings.Contains(d.Reason, says) {
			t.Errorf("%s: %t, %q", when, d.Allow, d.Reason)
		}
	}
	expect(r, "at first", true, "")
	r.feed(t, h.change(revocationOf(leaf, false)))
	expect(r, "revoked", false, "was revoked")
	r.feed(t, older)
	expect(r, "restored", false, "several histories")
	r.close(t)
	again := openIn(t, dir)
	c = again.onConnection(leaf)
	expect(again, "from the disk", false, "several histories")
	epoch := older
	epoch.Head.Epoch, epoch.Head.Revision = 2, 9
	again.feed(t, epoch)
	expect(again, "in a new epoch", true, "")
	again.feed(t, frame.Part{Account: "f45a2", Kind: frame.Drop, Head: epoch.Head, Proved: []sallyport.Head{epoch.Head}, Last: true})
	expect(again, "dropped", false, "was not found, or")
}

// TestNewCertificatesWaitForOneHistory: a restored service has forgotten that a
// service account's certificate and key were revoked, and makes whoever has them a
// new certificate, which neither history revokes.
func TestNewCertificatesWaitForOneHistory(t *testing.T) {
	t.Parallel()
	own := testCA(t, "Own", nil)
	issuer := credential.IssuerID(own.cert)
	managed := func() []*x509.Certificate {
		return []*x509.Certificate{testCertificate(t, "sa_1", own, false, func(c *x509.Certificate) {
			uri, err := url.Parse(credential.SPIFFEID("example.org", "f45a2", "sa_1"))
			if err != nil {
				t.Fatal(err)
			}
			c.Subject, c.URIs = pkix.Name{CommonName: "sa_1", Organization: []string{"f45a2"}}, []*url.URL{uri}
			c.KeyUsage, c.ExtKeyUsage, c.BasicConstraintsValid = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, true
		}).cert, own.cert}
	}
	serial := func(certs []*x509.Certificate) string { return credential.SerialText(certs[0].SerialNumber) }
	made := func(certs []*x509.Certificate) object.Object {
		return object.Object{Kind: object.KindCertificate, ID: object.CertificateID(issuer, serial(certs)), Data: object.Encode(object.Certificate{})}
	}
	good, stolen, untold, stolensNext, goodsNext := managed(), managed(), managed(), managed(), managed()
	dir := folder(t)
	r := openIn(t, dir)
	h := newHistory("f45a2")
	h.change(made(good), made(stolen),
		object.Object{Kind: object.KindAccount, ID: "f45a2", Data: object.Encode(object.Account{Status: object.Active})},
		object.Object{Kind: object.KindNamespace, ID: "ns_1", Data: object.Encode(object.Namespace{Name: "orders", Auth: object.NamespaceAuth{MTLS: true}})},
		object.Object{Kind: object.KindPrincipal, ID: "sa_1", Data: object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1})},
		object.Object{Kind: object.KindGrant, ID: object.GrantID("sa_1", sallyport.ScopeNamespace, "ns_1"), Data: object.Encode(object.Grant{Subject: "sa_1", Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"})},
		object.Object{Kind: object.KindIssuer, ID: issuer, Data: object.Encode(object.Issuer{Certificate: own.cert.Raw, TrustDomain: "example.org"})})
	older := h.snapshot()
	r.feed(t, older)
	expect := func(when string, want map[string]string) { // what is said; "": let in
		t.Helper()
		for name, certs := range map[string][]*x509.Certificate{"good": good, "stolen": stolen, "untold": untold, "stolen's next": stolensNext, "good's next": goodsNext} {
			d := r.Decide(r.onConnection(certs), testMethod, "orders.f45a2", time.Now())
			if says := want[name]; d.Allow != (says == "") || !strings.Contains(d.Reason, says) {
				t.Errorf("%s, %s: %t, %q; want %q", when, name, d.Allow, d.Reason, says)
			}
		}
	}
	const revoked, waits = "was revoked", "was not made in all histories"
	expect("at first, without the service too", nil)
	r.feed(t, h.change(object.Object{Kind: object.KindRevocation, ID: object.RevokedSerial(issuer, serial(stolen)), Data: object.Encode(object.Revocation{})}))
	expect("revoked", map[string]string{"stolen": revoked})
	restored := newHistory("f45a2")
	restored.head.Hash[5] = 9
	for _, o := range older.Objects {
		restored.change(o)
	}
	restored.change(made(stolensNext), made(goodsNext))
	r.feed(t, restored.snapshot())
	diverged := map[string]string{"stolen": revoked, "untold": waits, "stolen's next": waits, "good's next": waits}
	expect("restored", diverged)
	r.close(t)
	r = openIn(t, dir)
	expect("from the disk", diverged)
	r.feed(t, restored.change(object.Object{Kind: object.KindCertificate, ID: made(good).ID, Deleted: true}))
	diverged["good"] = waits
	expect("forgotten by one history", diverged)
	epoch := restored.snapshot()
	epoch.Head.Epoch, epoch.Head.Revision = 2, 99
	r.feed(t, epoch)
	expect("in a new epoch", nil)
}

func TestCertificateUses(t *testing.T) {
	ca, other := testCA(t, "CA", nil), testCA(t, "Other", nil)
	r, _ := quietReplica(t, ca)
	noon := time.Now().Truncate(time.Minute)
	good, bad := testLeaf(t, "good", ca), testLeaf(t, "bad", other)
	use := func(certs []*x509.Certificate, namespace string, at time.Time) {
		r.MarkUsed(r.Decide(r.onConnection(certs), testMethod, namespace, time.Now()), at)
	}
	told := func(at time.Time) []string {
		var list []string
		for _, u := range r.uses.takeCertificates(at) {
			list = append(list, fmt.Sprintf("%s %s %s chain %d ca %t %q", u.GetAccount(), u.GetNamespaceId(), u.GetAt().AsTime().Sub(noon), len(u.GetChain()), u.GetCaFingerprint() != "", u.GetRefused()))
			if want := map[bool]string{true: credential.Fingerprint(good[0]), false: credential.Fingerprint(bad[0])}[u.GetRefused() == ""]; u.GetFingerprint() != want {
				t.Errorf("fingerprint %s, want %s", u.GetFingerprint(), want)
			}
		}
		return list
	}
	for second := range 90 {
		use(good, "orders.f45a2", noon.Add(time.Duration(second)*time.Second))
	}
	use(good, "nothing.f45a2", noon)
	use(good, "orders.f45a3", noon)
	if diff := cmp.Diff([]string{`f45a2 ns_1 1m0s chain 1 ca true ""`}, told(noon)); diff != "" {
		t.Error(diff)
	}
	use(good, "orders.f45a2", noon.Add(100*time.Second))
	if again := told(noon); len(again) != 0 {
		t.Errorf("told twice for a minute: %v", again)
	}
	use(good, "orders.f45a2", noon.Add(3*time.Minute))
	use(bad, "orders.f45a2", noon.Add(3*time.Minute))
	got := told(noon.Add(3 * time.Minute))
	if len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), `f45a2 ns_1 3m0s chain 0 ca true ""`) || !strings.Contains(strings.Join(got, "\n"), `chain 1 ca false "the client certificate is not issued by any CA of this namespace`) {
		t.Errorf("got %v", got)
	}
	use(good, "orders.f45a2", noon.Add(2*time.Hour))
	if got := told(noon.Add(2 * time.Hour)); len(got) != 1 || !strings.Contains(got[0], "chain 1") {
		t.Errorf("after the hour: %v", got)
	}
	r.uses.tellChainsAgain()
	use(good, "orders.f45a2", noon.Add(2*time.Hour+time.Minute))
	if got := told(noon.Add(2*time.Hour + time.Minute)); len(got) != 1 || !strings.Contains(got[0], "chain 1") {
		t.Errorf("on another stream: %v", got)
	}
	for i := range 5 * maxSeenRefused {
		p := *r.onConnection(bad).presented.Presented
		p.Fingerprint = fingerprintOf(i)
		d := r.Decide(Credential{Kind: Certificate, Certificate: &p, presented: r.newPresented(&p)}, testMethod, "orders.f45a2", time.Now())
		r.MarkUsed(d, noon.Add(3*time.Hour))
	}
	if got := r.uses.takeCertificates(noon); len(got) != maxSeenRefused {
		t.Errorf("%d refused ones are told", len(got))
	}
	if n := testing.AllocsPerRun(100, func() { use(good, "orders.f45a2", noon.Add(4*time.Hour)) }); n != 0 {
		t.Errorf("%v allocations for a use that is known", n)
	}
	if s := bounded(strings.Repeat("ä", maxReason)); len(s) != maxReason {
		t.Errorf("a reason of %d bytes", len(s))
	}
	if s := bounded("x" + strings.Repeat("ä", maxReason)); len(s) != maxReason-1 || strings.ToValidUTF8(s, "?") != s {
		t.Errorf("a reason of %d bytes that is no text", len(s))
	}
}

// TestCertificatesRace: many calls over few connections while everything changes.
func TestCertificatesRace(t *testing.T) {
	t.Parallel()
	ca := testCA(t, "CA", nil)
	r, h := quietReplica(t, ca)
	leaf := testLeaf(t, "x", ca)
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				d := r.Decide(r.onConnection(leaf), testMethod, "orders.f45a2", time.Now())
				r.MarkUsed(d, time.Now())
				if !d.Allow && !strings.Contains(d.Reason, "revoked") {
					t.Error(d.Reason)
					return
				}
			}
		})
	}
	for i := range 300 {
		revoked := revocationOf(leaf, i%2 == 1)
		r.mu.Lock()
		_, err := r.apply(h.change(append(bundleChange(ca), revoked)...))
		r.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if d := r.Decide(r.onConnection(leaf), testMethod, "orders.f45a2", time.Now()); d.Allow != revoked.Deleted {
			t.Fatalf("change %d: %t, %s", i, d.Allow, d.Reason)
		}
	}
	close(done)
	group.Wait()
}

// BenchmarkIssued: what each of an account's live certificates costs in memory.
func BenchmarkIssued(b *testing.B) {
	const n = 200_000
	r, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	issuer, data := fingerprintOf(0), object.Encode(object.Certificate{})
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := used()
		d := newView("f45a2", r.seed).edit()
		for i := range n {
			d.apply(object.Object{Kind: object.KindCertificate, ID: object.CertificateID(issuer, "7"+fingerprintOf(i)[:31]), Data: data})
		}
		v := d.finish(sallyport.Head{Epoch: 1, Revision: 1})
		d = nil
		b.ReportMetric(float64(int64(used()-before))/n, "B/entry")
		if v.count != n {
			b.Fatal(v.count)
		}
	}
}

// BenchmarkRevocations: an account with a million revoked serials. What one costs
// in memory, to look up, and to add.
func BenchmarkRevocations(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 10_000
	}
	r, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	issuer, data := fingerprintOf(0), object.Encode(object.Revocation{})
	entry := func(i int) object.Object {
		return object.Object{Kind: object.KindRevocation, ID: object.RevokedSerial(issuer, "7"+fingerprintOf(i)[:31]), Data: data}
	}
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	d := newView("f45a2", r.seed).edit()
	for i := range n {
		d.apply(entry(i))
	}
	v := d.finish(sallyport.Head{Epoch: 1, Revision: 1})
	d = nil
	perEntry := float64(int64(used()-before)) / float64(n)
	keys := make([]revocation, 4096) // half of them are revoked
	for i := range keys {
		keys[i], _ = packRevocation(entry(i * (2 * n / len(keys))).ID)
	}
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		found, i := 0, 0
		for b.Loop() {
			if v.revoked(keys[i%len(keys)]) {
				found++
			}
			i++
		}
		if i > len(keys) && (found == 0 || found == i) {
			b.Errorf("%d of %d found", found, i)
		}
		b.ReportMetric(perEntry, "B/entry")
	})
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		i := n
		for b.Loop() {
			i++
			o := entry(i)
			digest := v.digest
			digest.Toggle(o.Kind, o.ID, o.Data, true)
			next, err := v.with(Batch{"f45a2", v.head, v.head, digest, []object.Object{o}})
			if err != nil {
				b.Fatal(err)
			}
			v = next
		}
	})
}
