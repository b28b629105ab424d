package certs_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/journal"
)

// parseCRL reads a CRL and checks who signed it.
func parseCRL(t testing.TB, der []byte, issuer *x509.Certificate) *x509.RevocationList {
	t.Helper()
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		t.Fatal(err)
	}
	return list
}

func get(t testing.TB, h http.Handler, path string, headers map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (a tenant) revoke(t testing.TB, by *certs.Authority, id string) {
	t.Helper()
	if _, _, err := by.Revoke(t.Context(), a.Operator, journal.Operation{Type: "RevokeCertificate"}, certs.RevokeParams{CertificateID: id}); err != nil {
		t.Fatal(err)
	}
}

func TestCRLNamesWhatIsRevokedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a, b := h.tenant(t), h.tenant(t)
	good, bad := a.leaf(t, h.ca), a.leaf(t, h.ca)
	other := b.leaf(t, h.ca)
	issuer := parse(t, good.Chain)[1]
	first, err := h.ca.CRL(t.Context(), good.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	if list := parseCRL(t, first.DER, issuer); len(list.RevokedCertificateEntries) != 0 || list.Number.Int64() != first.Number {
		t.Errorf("an empty CRL has %d entries, number %s and not %d", len(list.RevokedCertificateEntries), list.Number, first.Number)
	}
	a.revoke(t, h.ca, bad.ID)
	b.revoke(t, h.ca, other.ID)
	second, err := h.ca.CRL(t.Context(), good.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	list := parseCRL(t, second.DER, issuer)
	if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(parse(t, bad.Chain)[0].SerialNumber) != 0 {
		t.Errorf("the CRL names %v; want only what this account revoked", list.RevokedCertificateEntries)
	}
	if second.Number <= first.Number || !second.ThisUpdate.After(first.ThisUpdate) {
		t.Errorf("number %d after %d, %s after %s", second.Number, first.Number, second.ThisUpdate, first.ThisUpdate)
	}
	if third, err := h.ca.CRL(t.Context(), good.Issuer); err != nil || third.Number != second.Number {
		t.Errorf("without a change: number %d after %d, %v", third.Number, second.Number, err)
	}
	h.Advance(13 * time.Hour)
	if err := h.ca.RenewCRLs(t.Context()); err != nil {
		t.Fatal(err)
	}
	var number int64
	if err := h.pool.QueryRow(t.Context(), `select number from crls where issuer = $1`, good.Issuer).Scan(&number); err != nil || number <= second.Number {
		t.Errorf("after 13 hours the number is %d and was %d, %v", number, second.Number, err)
	}
}

// A certificate that has expired is in one more CRL, and then in none.
func TestCRLForgetsTheExpired(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	bad := a.leaf(t, h.ca)
	a.revoke(t, h.ca, bad.ID)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {30 * time.Hour, 1}, {5 * 24 * time.Hour, 0}} {
		h.Advance(c.after)
		crl, err := h.ca.CRL(t.Context(), bad.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		if list := parseCRL(t, crl.DER, parse(t, bad.Chain)[1]); len(list.RevokedCertificateEntries) != c.want || !list.NextUpdate.After(h.Now()) {
			t.Errorf("after %s more: %d entries until %s, want %d", c.after, len(list.RevokedCertificateEntries), list.NextUpdate, c.want)
		}
	}
}

// A CRL says when what was revoked, as it was, and is of no earlier than that.
// Where nothing was revoked of late it begins earlier, for readers' clocks.
func TestCRLTimes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	bad, worse := a.leaf(t, h.ca), a.leaf(t, h.ca)
	issuer := parse(t, bad.Chain)[1]
	read := func() *x509.RevocationList {
		t.Helper()
		crl, err := h.ca.CRL(t.Context(), bad.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		list := parseCRL(t, crl.DER, issuer)
		if !list.ThisUpdate.Equal(crl.ThisUpdate) || list.ThisUpdate.After(h.Now()) || !list.NextUpdate.Equal(crl.NextUpdate) {
			t.Errorf("the CRL is of %s to %s, and said to be of %s to %s", list.ThisUpdate, list.NextUpdate, crl.ThisUpdate, crl.NextUpdate)
		}
		return list
	}
	if list := read(); h.Now().Sub(list.ThisUpdate) < 4*time.Minute {
		t.Errorf("an empty CRL begins at %s", list.ThisUpdate)
	}
	var want []time.Time
	for _, c := range []certs.Issued{bad, worse} {
		h.Advance(2 * time.Minute)
		list, _, err := h.ca.Revoke(t.Context(), a.Operator, journal.Operation{Type: "RevokeCertificate"}, certs.RevokeParams{CertificateID: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, list[0].Revoked.Truncate(time.Second))
		crl := read()
		var got []time.Time
		for _, e := range crl.RevokedCertificateEntries {
			got = append(got, e.RevocationTime)
			if e.RevocationTime.After(crl.ThisUpdate) {
				t.Errorf("revoked at %s, in a CRL of %s", e.RevocationTime, crl.ThisUpdate)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("revoked at (-want +got):\n%s", diff)
		}
	}
	h.Advance(13 * time.Hour)
	if list := read(); h.Now().Sub(list.ThisUpdate) < 4*time.Minute || len(list.RevokedCertificateEntries) != 2 || !list.RevokedCertificateEntries[0].RevocationTime.Equal(want[0]) {
		t.Errorf("13 hours later the CRL is of %s and names %v", list.ThisUpdate, list.RevokedCertificateEntries)
	}
}

// Numbers rise also by a clock that is behind the one of the last CRL, or that
// stands, and no CRL is of the future then.
func TestCRLNumbersByASlowClock(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	leaf := a.leaf(t, h.ca)
	last, err := h.ca.CRL(t.Context(), leaf.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		bad := a.leaf(t, h.ca)
		a.revoke(t, h.ca, bad.ID)
		h.Advance(-time.Minute)
		next, err := h.ca.CRL(t.Context(), leaf.Issuer)
		if err != nil || next.Number != last.Number+1 {
			t.Errorf("by a clock that is behind: number %d after %d, %v", next.Number, last.Number, err)
		}
		list := parseCRL(t, next.DER, parse(t, leaf.Chain)[1])
		if list.Number.Int64() != next.Number || list.ThisUpdate.After(h.Now()) || !names(list, parse(t, bad.Chain)[0]) {
			t.Errorf("the CRL %s of %s names %v", list.Number, list.ThisUpdate, list.RevokedCertificateEntries)
		}
		last = next
	}
}

// Numbers never fall: over copies that sign at once, and when an older backup of
// the table comes back.
func TestCRLNumbersNeverFall(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	leaf := a.leaf(t, h.ca)
	h.exec(t, `create table backup as select * from crls`)
	var (
		mu   sync.Mutex
		seen = map[int64]string{}
		last int64
		wait sync.WaitGroup
	)
	for range 3 {
		by := h.authority(t, h.key, trustDomain)
		wait.Go(func() {
			for range 3 {
				bad, err := a.tryLeaf(t, h.ca)
				if err != nil {
					t.Error(err)
					return
				}
				if _, _, err := by.Revoke(t.Context(), a.Operator, journal.Operation{Type: "RevokeCertificate"}, certs.RevokeParams{CertificateID: bad.ID}); err != nil {
					t.Error(err)
					return
				}
				crl, err := by.CRL(t.Context(), leaf.Issuer)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if before, known := seen[crl.Number]; known && before != string(crl.DER) {
					t.Errorf("two CRLs have the number %d", crl.Number)
				}
				seen[crl.Number] = string(crl.DER)
				last = max(last, crl.Number)
				mu.Unlock()
				if list := parseCRL(t, crl.DER, parse(t, leaf.Chain)[1]); !names(list, parse(t, bad.Chain)[0]) {
					t.Errorf("the CRL %d lacks what was revoked before it was asked for", crl.Number)
				}
			}
		})
	}
	wait.Wait()
	h.exec(t, `delete from crls`)
	h.exec(t, `insert into crls select * from backup`)
	crl, err := h.ca.CRL(t.Context(), leaf.Issuer)
	if err != nil || crl.Number <= last {
		t.Errorf("after a restore: number %d after %d, %v", crl.Number, last, err)
	}
}

func names(list *x509.RevocationList, cert *x509.Certificate) bool {
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

func TestPKIPaths(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	a := h.tenant(t)
	leaf := a.leaf(t, h.ca)
	pki := h.ca.PKI()
	crl := get(t, pki, "/pki/crl/"+leaf.Issuer+".crl", nil)
	if crl.Code != 200 || crl.Header().Get("Content-Type") != "application/pkix-crl" || crl.Header().Get("Cache-Control") != "public, max-age=60" || crl.Header().Get("Expires") == "" {
		t.Errorf("the CRL: %d %v", crl.Code, crl.Header())
	}
	parseCRL(t, crl.Body.Bytes(), parse(t, leaf.Chain)[1])
	for name, value := range map[string]string{"If-None-Match": crl.Header().Get("Etag"), "If-Modified-Since": crl.Header().Get("Last-Modified")} {
		if value == "" {
			t.Errorf("nothing to ask %s with", name)
		}
		if again := get(t, pki, "/pki/crl/"+leaf.Issuer+".crl", map[string]string{name: value}); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s: %d with %d bytes", name, again.Code, again.Body.Len())
		}
	}
	parseCRL(t, get(t, pki, "/pki/crl/"+root.ID+".crl", nil).Body.Bytes(), parse(t, root.Chain)[0])
	for issuer, want := range map[string]*x509.Certificate{root.ID: parse(t, root.Chain)[0], leaf.Issuer: parse(t, leaf.Chain)[1]} {
		got := get(t, pki, "/pki/issuer/"+issuer+".crt", nil)
		if cert, err := x509.ParseCertificate(got.Body.Bytes()); err != nil || !cert.Equal(want) {
			t.Errorf("the certificate of %s: %v", want.Subject, err)
		}
	}
	if got := roots(t, h.ca); string(got) != string(root.Chain) {
		t.Errorf("roots.pem has\n%s", got)
	}
	unknown := strings.Repeat("0a", 32)
	for _, path := range []string{"/pki/crl/" + unknown + ".crl", "/pki/issuer/" + unknown + ".crt", "/pki/crl/" + leaf.Issuer, "/pki/crl/" + strings.ToUpper(leaf.Issuer) + ".crl",
		"/pki/crl/" + leaf.Issuer + ".crt", "/pki/crl/" + string(a.ID) + ".crl", "/pki/crl/..%2f" + leaf.Issuer + ".crl", "/pki/", "/pki/crl/", "/pki/roots"} {
		if answer := get(t, pki, path, nil); answer.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, answer.Code)
		}
	}
	post := httptest.NewRecorder()
	pki.ServeHTTP(post, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/pki/roots.pem", nil))
	if post.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", post.Code)
	}
}

// Whoever asks the same often asks the database once a second.
func TestPKIAsksTheDatabaseLittle(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	leaf := h.tenant(t).leaf(t, h.ca)
	pki := h.ca.PKI()
	path := "/pki/crl/" + leaf.Issuer + ".crl"
	if answer := get(t, pki, path, nil); answer.Code != 200 {
		t.Fatal(answer.Code)
	}
	h.pool.Close()
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if answer := get(t, pki, path, nil); answer.Code != 200 {
				t.Errorf("without the database: %d", answer.Code)
			}
		})
	}
	wait.Wait()
	if answer := get(t, pki, "/pki/issuer/"+leaf.Issuer+".crt", nil); answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" {
		t.Errorf("what was not asked before: %d", answer.Code)
	}
}

// However many strangers ask for whatever: each has an answer, and the others
// who use the database do not wait.
func TestPKIInACrowd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	leaf := a.leaf(t, h.ca)
	pki := h.ca.PKI()
	codes := make([]int, 2000)
	var wait sync.WaitGroup
	for i := range codes {
		wait.Go(func() { codes[i] = get(t, pki, fmt.Sprintf("/pki/crl/%064x.crl", i), nil).Code })
	}
	for range 10 {
		a.leaf(t, h.ca)
	}
	wait.Wait()
	for i, code := range codes {
		if code != http.StatusNotFound && code != http.StatusServiceUnavailable {
			t.Fatalf("stranger %d is answered %d", i, code)
		}
	}
	if answer := get(t, pki, "/pki/crl/"+leaf.Issuer+".crl", nil); answer.Code != http.StatusOK {
		t.Errorf("after the crowd: %d", answer.Code)
	}
}

func TestOpenSSLTakesCRLs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	a := h.tenant(t)
	good, bad := a.leaf(t, h.ca), a.leaf(t, h.ca)
	a.revoke(t, h.ca, bad.ID)
	var crls []byte
	for _, issuer := range []string{root.ID, good.Issuer} {
		crl, err := h.ca.CRL(t.Context(), issuer)
		if err != nil {
			t.Fatal(err)
		}
		text, err := openssl(t, "crl", "-inform", "DER", "-noout", "-text", "-in", write(t, "crl", crl.DER))
		if err != nil || !strings.Contains(text, "X509v3 CRL Number") || !strings.Contains(text, "X509v3 Authority Key Identifier") {
			t.Errorf("openssl crl: %v\n%s", err, text)
		}
		crls = append(crls, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})...)
	}
	anchors, lists := write(t, "roots", roots(t, h.ca)), write(t, "crls", crls)
	for _, c := range []struct {
		leaf certs.Issued
		want string
	}{{good, ": OK"}, {bad, "certificate revoked"}} {
		chain := write(t, "chain", c.leaf.Chain)
		out, err := openssl(t, "verify", "-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CAfile", anchors, "-CRLfile", lists, "-untrusted", chain, chain)
		if !strings.Contains(out, c.want) || (err == nil) != (c.want == ": OK") {
			t.Errorf("openssl verify: %v, want %q\n%s", err, c.want, out)
		}
	}
}

// zlint has nothing to say of roots, intermediates and CRLs, but that the
// root does not say in which country it is.
func TestCAsAndCRLsAreLinted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	a := h.tenant(t)
	bad := a.leaf(t, h.ca)
	a.revoke(t, h.ca, bad.ID)
	for _, cert := range []*x509.Certificate{parse(t, root.Chain)[0], parse(t, bad.Chain)[1]} {
		parsed, err := zcrypto.ParseCertificate(cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for name, result := range zlint.LintCertificate(parsed).Results {
			if result.Status >= lint.Warn && name != "e_ca_country_name_missing" {
				t.Errorf("%s: %s %s %s", cert.Subject, name, result.Status, result.Details)
			}
		}
	}
	for _, issuer := range []string{root.ID, bad.Issuer} {
		crl, err := h.ca.CRL(t.Context(), issuer)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := zcrypto.ParseRevocationList(crl.DER)
		if err != nil {
			t.Fatal(err)
		}
		for name, result := range zlint.LintRevocationList(parsed).Results {
			if result.Status >= lint.Warn {
				t.Errorf("the CRL of %s: %s %s %s", issuer, name, result.Status, result.Details)
			}
		}
	}
}

func BenchmarkCRL(b *testing.B) {
	h := newHouse(b)
	h.root(b)
	a := h.tenant(b)
	leaf := a.leaf(b, h.ca)
	for _, n := range []int{0, 1000, 100_000} {
		h.exec(b, `delete from revocations`)
		h.exec(b, `
			insert into revocations (account_id, id, issuer, serial, fingerprint, certificate_id, reason, created_by, revoked_at, not_after, revision)
			select $1, 'serial/' || i, $2, '40' || lpad(to_hex(i), 30, '0'), '', '', '', '', now(), now() + interval '30 days', i
			from generate_series(1, $3) i`, string(a.ID), leaf.Issuer, n)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			for b.Loop() {
				h.exec(b, `delete from crls`)
				crl, err := h.ca.CRL(b.Context(), leaf.Issuer)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(crl.DER)), "bytes")
			}
		})
	}
}
