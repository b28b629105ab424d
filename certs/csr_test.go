package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/certs"
)

// Whatever a request asks for, it gets what everybody gets.
func TestOnlyTheKeyCounts(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	key := ecdsaKey(t, elliptic.P256())
	uri, err := url.Parse("spiffe://" + authntest.TrustDomain + "/account/00000/service-account/sa_root")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	greedy := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"00000"}, Country: []string{"DE"}},
		DNSNames: []string{"localhost"}, EmailAddresses: []string{"root@example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{uri},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: ca},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 1, 6}},
			{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}},
		},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, greedy, key)
	if err != nil {
		t.Fatal(err)
	}
	plain := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, CSR: csrOf(t, key)}).Chain)[0]
	got := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, CSR: der}).Chain)[0]
	if !bytes.Equal(got.RawSubject, plain.RawSubject) || len(got.Extensions) != len(plain.Extensions) {
		t.Errorf("the subject is %s, with %d extensions", got.Subject, len(got.Extensions))
	}
	for i, e := range got.Extensions {
		if want := plain.Extensions[i]; !e.Id.Equal(want.Id) || e.Critical != want.Critical || !bytes.Equal(e.Value, want.Value) {
			t.Errorf("extension %s: %x, want %x", e.Id, e.Value, want.Value)
		}
	}
}

func TestHostileRequests(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	good, _ := authntest.CSR(t)
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	_, odd, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, csr := range map[string][]byte{
		"none":            nil,
		"no request":      []byte("hello"),
		"wrong signature": forged,
		"P-224":           csrOf(t, ecdsaKey(t, elliptic.P224())),
		"P-521":           csrOf(t, ecdsaKey(t, elliptic.P521())),
		"Ed25519":         csrOf(t, odd),
		"two":             append(bytes.Clone(good), good...),
		"huge":            append(bytes.Clone(good), bytes.Repeat([]byte("x"), 1<<20)...),
		"a private key":   privateKeyPEM(t, ecdsaKey(t, elliptic.P256())),
	} {
		_, _, err := a.Certs.Issue(t.Context(), a.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
		wantKind(t, name, err, sallyport.Invalid, "csr: ")
	}
	for name, test := range map[string]struct {
		id   string
		kind sallyport.Kind
	}{
		"nobody":   {"", sallyport.NotFound},
		"unknown":  {"sa_aaaaaaaaaaaaaaaa", sallyport.NotFound},
		"a user":   {a.Owner.Principal.ID, sallyport.NotFound},
		"a path":   {"../../account", sallyport.NotFound},
		"a wonder": {"sa_\x00", ""},
	} {
		_, _, err := a.Certs.Issue(t.Context(), a.Operator, op("IssueCertificate"), certs.IssueParams{ServiceAccount: test.id, CSR: good})
		if test.kind != "" {
			wantKind(t, name, err, test.kind, "service_account_id")
		} else if err == nil {
			t.Errorf("%s has a certificate", name)
		}
	}
	if list, _, err := a.Certs.List(t.Context(), a.Operator, "", sallyport.Page{}); err != nil || len(list) != 0 {
		t.Errorf("%d certificates were made, %v", len(list), err)
	}
}

func privateKeyPEM(t testing.TB, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// openssl makes requests and verifies what is issued for them, to the root.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: there is no openssl on this machine")
	}
	w := newWorld(t)
	a := w.Tenant(t)
	sa := robot(t, a)
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), openssl, args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	_, roots, err := w.Certs.Issuers(t.Context(), a.Owner)
	if err != nil {
		t.Fatal(err)
	}
	for name, newKey := range map[string][]string{
		"P-256": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"P-384": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"RSA":   {"-newkey", "rsa:2048"},
	} {
		run(append([]string{"req", "-new", "-nodes", "-subj", "/CN=whatever", "-keyout", "key.pem", "-out", "csr.pem"}, newKey...)...)
		csr, err := os.ReadFile(filepath.Join(dir, "csr.pem"))
		if err != nil {
			t.Fatal(err)
		}
		issued := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
		for file, data := range map[string][]byte{"chain.pem": issued.Chain, "roots.pem": roots} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out := run("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "roots.pem", "-untrusted", "chain.pem", "chain.pem"); !strings.Contains(out, "OK") {
			t.Errorf("%s: %s", name, out)
		}
		serial := strings.TrimSpace(strings.ToLower(run("x509", "-noout", "-serial", "-in", "chain.pem")))
		if strings.TrimLeft(strings.TrimPrefix(serial, "serial="), "0") != issued.Serial {
			t.Errorf("%s: openssl says %s, we %s", name, serial, issued.Serial)
		}
	}
}

// Metrics count over all accounts, and twice in one registry is an error.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := prometheus.NewRegistry()
	config := w.Config()
	config.Metrics = registry
	a, err := certs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.New(config); err == nil {
		t.Error("two in one registry")
	}
	tenant := w.Tenant(t)
	sa := robot(t, tenant)
	csr, _ := authntest.CSR(t)
	issued, _, err := a.Issue(t.Context(), tenant.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Renew(t.Context(), tenant.Owner, op("RenewCertificate"), certs.RenewParams{ID: issued.ID, CSR: csr}); err != nil {
		t.Fatal(err)
	}
	count := func() map[string]float64 {
		t.Helper()
		if err := a.Count(t.Context()); err != nil {
			t.Fatal(err)
		}
		return gathered(t, registry)
	}
	got := count()
	for name, want := range map[string]float64{"sallyport_certificates_issued_total first": 1, "sallyport_certificates_issued_total renewal": 1,
		"sallyport_certificates_live": 2, "sallyport_certificates_expiring": 0} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	w.Advance(19 * time.Hour)
	if got := count(); got["sallyport_certificates_expiring"] != 1 { // the renewal: the first was renewed
		t.Errorf("expiring: %v", got)
	}
	w.Advance(6 * time.Hour)
	if got := count(); got["sallyport_certificates_live"] != 0 || got["sallyport_certificates_expiring"] != 0 {
		t.Errorf("after their end: %v", got)
	}
}

// While the service runs the gauges follow: what was just issued is seen by the
// next count, by every copy.
func TestGaugesFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := w.Config()
	registry := prometheus.NewRegistry()
	config.Metrics = registry
	a, err := certs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a.CountEvery(20 * time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	wait := func(want float64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got := gathered(t, registry)
			live, good := got["sallyport_certificates_live"], got["sallyport_issuers good"]
			if live == want && good == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v certificates and %v issuers are counted, want %v of each", live, good, want)
			}
		}
	}
	wait(0)
	for n := range 2 {
		tenant := w.Tenant(t)
		issue(t, tenant, certs.IssueParams{ServiceAccount: robot(t, tenant).ID}) // by another copy
		wait(float64(n + 1))
	}
}

func gathered(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
