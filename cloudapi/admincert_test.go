package cloudapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func csrOf(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// csr is a request for a key that nobody needs.
func csr(t *testing.T) []byte { return csrOf(t, newKey(t)) }

// certificate makes one for a service account.
func (a *tenant) certificate(t *testing.T, serviceAccount string) *adminv1.IssueCertificateResponse {
	t.Helper()
	return must[*adminv1.IssueCertificateResponse](t)(a.admin.IssueCertificate(t.Context(), &adminv1.IssueCertificateRequest{ServiceAccountId: serviceAccount, Csr: csr(t)}))
}

// mtlsNamespace makes a namespace that takes certificates of the CA whose common
// name begins with worker, and gives its full name.
func (a *tenant) mtlsNamespace(t *testing.T, name string, bundle []byte) string {
	t.Helper()
	return must[*cloudservice.CreateNamespaceResponse](t)(a.cloud.CreateNamespace(t.Context(), &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{
		Name: name, Regions: []string{"aws-us-east-1"}, RetentionDays: 7, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true},
		MtlsAuth: &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCa: bundle,
			CertificateFilters: []*namespace.CertificateFilterSpec{{CommonName: "worker*"}}}}})).GetNamespace()
}

// withCertificate is AdminService for the bearer of a client certificate.
func (w *world) withCertificate(t *testing.T, chain []byte, key *ecdsa.PrivateKey) (adminv1.AdminServiceClient, cloudservice.CloudServiceClient) {
	t.Helper()
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	pair := must[tls.Certificate](t)(tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{pair}})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return adminv1.NewAdminServiceClient(conn), cloudservice.NewCloudServiceClient(conn)
}

// A certificate from the request to its end, and the caller that it makes.
func TestCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	key := newKey(t)
	request := &adminv1.IssueCertificateRequest{ServiceAccountId: account, Csr: csrOf(t, key), Lifetime: durationpb.New(time.Hour), AsyncOperationId: "issue"}
	made := must[*adminv1.IssueCertificateResponse](t)(a.admin.IssueCertificate(ctx, request))
	cert := made.GetCertificate()
	if cert.GetServiceAccountId() != account || cert.GetState() != adminv1.Certificate_STATE_ACTIVE || made.GetAsyncOperationId() != "issue" ||
		cert.GetSpiffeId() != "spiffe://example.test/account/"+string(a.account)+"/service-account/"+account {
		t.Errorf("certificate = %v", cert)
	}
	block, rest := pem.Decode(made.GetChain())
	leaf := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	above, _ := pem.Decode(rest)
	issuer := must[*x509.Certificate](t)(x509.ParseCertificate(above.Bytes))
	if credential.Fingerprint(leaf) != cert.GetFingerprint() || credential.SerialText(leaf.SerialNumber) != cert.GetSerial() ||
		credential.IssuerID(issuer) != cert.GetIssuerId() || !leaf.NotAfter.Equal(cert.GetNotAfter().AsTime()) || leaf.CheckSignatureFrom(issuer) != nil {
		t.Errorf("%v is not what %v says", leaf.Subject, cert)
	}
	again := must[*adminv1.IssueCertificateResponse](t)(a.admin.IssueCertificate(ctx, request))
	if !proto.Equal(again, made) {
		t.Errorf("repetition = %v, want the same certificate", again.GetCertificate())
	}

	admin, cloud := w.withCertificate(t, made.GetChain(), key)
	if who := must[*cloudservice.GetCurrentIdentityResponse](t)(cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})); who.GetServiceAccount().GetId() != account || who.GetPrincipalApiKey() != nil {
		t.Errorf("identity = %v, want the service account and no key", who)
	}
	renewed := must[*adminv1.RenewCertificateResponse](t)(admin.RenewCertificate(ctx, &adminv1.RenewCertificateRequest{Csr: csr(t)}))
	if next := renewed.GetCertificate(); next.GetRenewedFrom() != cert.GetId() || next.GetFirstId() != cert.GetId() {
		t.Errorf("renewed = %v, want the successor of %s", next, cert.GetId())
	}
	list := must[*adminv1.ListCertificatesResponse](t)(a.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{ServiceAccountId: account})).GetCertificates()
	if len(list) != 2 {
		t.Errorf("%d certificates are listed, want 2", len(list))
	}
	issuers := must[*adminv1.ListIssuersResponse](t)(admin.ListIssuers(ctx, &adminv1.ListIssuersRequest{}))
	if len(issuers.GetIssuers()) != 1 || !issuers.GetIssuers()[0].GetCurrent() || issuers.GetIssuers()[0].GetId() != cert.GetIssuerId() || !bytes.Contains(issuers.GetRoots(), []byte("BEGIN CERTIFICATE")) {
		t.Errorf("issuers = %v, want the certificate's and the root", issuers)
	}

	ended := must[*adminv1.RevokeResponse](t)(a.admin.Revoke(ctx, &adminv1.RevokeRequest{CertificateId: cert.GetId(), Reason: "lost", AsyncOperationId: "revoke"}))
	if len(ended.GetRevocations()) != 2 {
		t.Errorf("revoked %v, want the certificate and its successor", ended.GetRevocations())
	}
	_, err := cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "with a revoked certificate", err, codes.Unauthenticated, "revoked")
	got := must[*adminv1.GetCertificateResponse](t)(a.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{CertificateId: cert.GetId()}))
	if got.GetCertificate().GetState() != adminv1.Certificate_STATE_REVOKED || got.GetCertificate().GetRevocationReason() != "lost" || !bytes.Equal(got.GetChain(), made.GetChain()) {
		t.Errorf("the revoked certificate is %v", got.GetCertificate())
	}
	revoked := must[*adminv1.ListRevocationsResponse](t)(a.admin.ListRevocations(ctx, &adminv1.ListRevocationsRequest{})).GetRevocations()
	if len(revoked) != 2 || revoked[0].GetRevokedTime() == nil || revoked[0].GetReason() != "lost" {
		t.Errorf("revocations = %v", revoked)
	}
	_, err = a.admin.RenewCertificate(ctx, &adminv1.RenewCertificateRequest{CertificateId: cert.GetId(), Csr: csr(t)})
	wantCode(t, "renewing a revoked certificate", err, codes.FailedPrecondition, "revoked")
	receipt := must[*adminv1.GetReceiptResponse](t)(a.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: "revoke"}))
	if receipt.GetHead().GetRevision() == 0 {
		t.Errorf("receipt = %v", receipt)
	}
}

// customer is a CA of a tenant's own.
type customer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newCustomer(t *testing.T, name string) customer {
	t.Helper()
	c := customer{key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(100 * 24 * time.Hour), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key))
	c.cert, c.pem = must[*x509.Certificate](t)(x509.ParseCertificate(der)), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return c
}

func (c customer) leaf(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, c.cert, newKey(t).Public(), c.key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der))
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// seen makes a certificate one that was seen on a namespace.
func (a *tenant) seen(t *testing.T, full string, ca customer, leaf *x509.Certificate) {
	t.Helper()
	name, _, _ := strings.Cut(full, ".")
	ids := must[map[string]sallyport.NamespaceID](t)(a.w.directory.NamespaceIDs(t.Context(), a.w.journal.Pool(), a.account, []string{name}))
	a.w.clientCAs.MarkSeen(clientca.Use{Account: a.account, Namespace: ids[name], Fingerprint: credential.Fingerprint(leaf), At: time.Now(),
		Chain: [][]byte{leaf.Raw}, CA: credential.Fingerprint(ca.cert), Filter: 1})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.w.clientCAs.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	for range 200 {
		list, err := a.admin.ListSeenCertificates(t.Context(), &adminv1.ListSeenCertificatesRequest{Namespace: full})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.GetCertificates()) > 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("what was seen is not listed after ten seconds")
}

// CAs and filters, one by one, with what is in use protected.
func TestClientCAs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	old, next := newCustomer(t, "old CA"), newCustomer(t, "next CA")
	full := a.mtlsNamespace(t, "orders", old.pem)
	leaf := old.leaf(t, "worker-1")
	a.seen(t, full, old, leaf)

	add := &adminv1.AddClientCasRequest{Namespace: full, Certificates: next.pem, AsyncOperationId: "add"}
	added := must[*adminv1.AddClientCasResponse](t)(a.admin.AddClientCas(ctx, add))
	if again := must[*adminv1.AddClientCasResponse](t)(a.admin.AddClientCas(ctx, add)); !proto.Equal(again, added) {
		t.Errorf("repetition = %v, want %v", again, added)
	}
	bundle := must[*adminv1.ListClientCasResponse](t)(a.admin.ListClientCas(ctx, &adminv1.ListClientCasRequest{Namespace: full}))
	if len(bundle.GetClientCas()) != 2 || !bundle.GetMtlsEnabled() || bundle.GetResourceVersion() != added.GetResourceVersion() {
		t.Fatalf("bundle = %v", bundle)
	}
	first := bundle.GetClientCas()[0]
	if first.GetFingerprint() != credential.Fingerprint(old.cert) || first.GetFingerprintSha1() != credential.FingerprintSHA1(old.cert) || first.GetSubject() != "CN=old CA" ||
		first.GetLastSeenTime() == nil || !bytes.Equal(bytes.TrimSpace(first.GetCertificate()), bytes.TrimSpace(old.pem)) {
		t.Errorf("first CA = %v", first)
	}
	space := must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
	if want := append(bytes.Clone(old.pem), next.pem...); !bytes.Equal(space.GetSpec().GetMtlsAuth().GetAcceptedClientCa(), want) || space.GetResourceVersion() != added.GetResourceVersion() {
		t.Errorf("CloudService shows another bundle:\n%s", space.GetSpec().GetMtlsAuth().GetAcceptedClientCa())
	}

	check := must[*adminv1.CheckClientCasResponse](t)(a.admin.CheckClientCas(ctx, &adminv1.CheckClientCasRequest{Namespace: full, Bundle: next.pem}))
	if len(check.GetWouldStop()) != 1 || check.GetWouldStop()[0].GetFingerprint() != credential.Fingerprint(leaf) || check.GetChecked() != 1 {
		t.Errorf("check = %v, want that the worker would stop", check)
	}
	remove := &adminv1.RemoveClientCasRequest{Namespace: full, Fingerprints: []string{credential.FingerprintSHA1(old.cert)}}
	_, err := a.admin.RemoveClientCas(ctx, remove)
	wantCode(t, "removing a CA in use", err, codes.FailedPrecondition, credential.Fingerprint(leaf))
	remove.Force = true
	removed := must[*adminv1.RemoveClientCasResponse](t)(a.admin.RemoveClientCas(ctx, remove))
	if removed.GetAsyncOperationId() == "" || removed.GetResourceVersion() == added.GetResourceVersion() {
		t.Errorf("removed = %v", removed)
	}
	_, err = a.admin.RemoveClientCas(ctx, remove)
	wantCode(t, "removing it again", err, codes.NotFound, "")
}

// mTLS is switched, and the bundle replaced, by the rules of RemoveClientCas.
func TestSetNamespaceMtls(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	old, next := newCustomer(t, "old CA"), newCustomer(t, "next CA")
	full := a.mtlsNamespace(t, "orders", old.pem)
	leaf := old.leaf(t, "worker-1")
	a.seen(t, full, old, leaf)
	read := func(full string) *namespace.Namespace {
		t.Helper()
		return must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
	}
	before := read(full)
	for what, r := range map[string]*adminv1.SetNamespaceMtlsRequest{
		"off": {}, "another bundle": {Enabled: true, ReplaceClientCa: true, ClientCa: next.pem},
	} {
		r.Namespace, r.ResourceVersion = full, before.GetResourceVersion()
		_, err := a.admin.SetNamespaceMtls(ctx, r)
		wantCode(t, what, err, codes.FailedPrecondition, credential.Fingerprint(leaf))
	}
	if got := read(full); !proto.Equal(got, before) {
		t.Errorf("something was changed: %v, want %v", got, before)
	}
	off := &adminv1.SetNamespaceMtlsRequest{Namespace: full, Force: true, ResourceVersion: before.GetResourceVersion(), AsyncOperationId: "off"}
	done := must[*adminv1.SetNamespaceMtlsResponse](t)(a.admin.SetNamespaceMtls(ctx, off))
	if again := must[*adminv1.SetNamespaceMtlsResponse](t)(a.admin.SetNamespaceMtls(ctx, off)); again.GetResourceVersion() != done.GetResourceVersion() || len(done.GetWarnings()) != 1 {
		t.Errorf("done = %v, repetition = %v", done, again)
	}
	if got := read(full); got.GetSpec().GetMtlsAuth().GetEnabled() || !bytes.Equal(got.GetSpec().GetMtlsAuth().GetAcceptedClientCa(), old.pem) || got.GetResourceVersion() != done.GetResourceVersion() {
		t.Errorf("off = %v", got)
	}

	// Without a bundle of its own, too, CloudService shows what there is.
	managed := must[*cloudservice.CreateNamespaceResponse](t)(a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{
		Name: "managed", Regions: []string{"aws-us-east-1"}, RetentionDays: 7, MtlsAuth: &namespace.MtlsAuthSpec{Enabled: true}}})).GetNamespace()
	for _, on := range []bool{false, true} {
		must[*adminv1.SetNamespaceMtlsResponse](t)(a.admin.SetNamespaceMtls(ctx, &adminv1.SetNamespaceMtlsRequest{Namespace: managed, Enabled: on}))
		if got := read(managed).GetSpec().GetMtlsAuth().GetEnabled(); got != on {
			t.Errorf("CloudService shows mTLS %v, want %v", got, on)
		}
	}
}

func TestCertificateFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	full := a.mtlsNamespace(t, "orders", newCustomer(t, "CA").pem)
	account := a.serviceAccount(t, admin)
	filters := func() []*adminv1.CertificateFilter {
		return must[*adminv1.ListCertificateFiltersResponse](t)(a.admin.ListCertificateFilters(ctx, &adminv1.ListCertificateFiltersRequest{Namespace: full})).GetFilters()
	}
	must[*adminv1.AddCertificateFilterResponse](t)(a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full,
		Filter: &adminv1.CertificateFilter{CommonName: "reader", Organization: "Example", Permission: "read"}}))
	list := filters()
	if len(list) != 2 || list[1].GetPermission() != "read" || list[1].GetOrganization() != "Example" || !list[1].GetPresent() || list[1].GetId() == "" {
		t.Fatalf("filters = %v", list)
	}
	must[*adminv1.MapCertificateFilterResponse](t)(a.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: list[0].GetId(), ServiceAccountId: account}))
	if got := filters()[0]; got.GetServiceAccountId() != account || got.GetCommonName() != "worker*" {
		t.Errorf("mapped filter = %v", got)
	}
	must[*adminv1.RemoveCertificateFilterResponse](t)(a.admin.RemoveCertificateFilter(ctx, &adminv1.RemoveCertificateFilterRequest{Namespace: full, FilterId: list[1].GetId()}))
	if list = filters(); len(list) != 2 || list[1].GetPresent() && list[0].GetPresent() {
		t.Errorf("filters = %v, want the map of the removed one to wait", list)
	}
	powerless := &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: list[0].GetId(), ServiceAccountId: a.serviceAccount(t, read)}
	_, err := a.admin.MapCertificateFilter(ctx, powerless)
	wantCode(t, "mapping to one without access", err, codes.FailedPrecondition, "no access to this namespace")
	powerless.Force = true
	must[*adminv1.MapCertificateFilterResponse](t)(a.admin.MapCertificateFilter(ctx, powerless))
	if got := filters()[0]; !strings.Contains(got.GetWarning(), "no access to this namespace") {
		t.Errorf("a filter that gives nothing = %v", got)
	}
	_, err = a.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: strings.Repeat("0", 32), Permission: "read"})
	wantCode(t, "mapping a filter that is not there", err, codes.NotFound, "")
	_, err = a.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: list[0].GetId(), ServiceAccountId: "sa_aaaaaaaaaaaaaaaa"})
	wantCode(t, "mapping to nobody", err, codes.NotFound, "")
}

// Explain with certificates: issued here, of a customer's CA, and of nobody's.
func TestExplainCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.tenant(t), w.tenant(t)
	ctx := t.Context()
	own := newCustomer(t, "CA")
	full := a.mtlsNamespace(t, "orders", own.pem)
	account := a.serviceAccount(t, admin)
	managed := a.certificate(t, account)
	ask := func(by *tenant, chain []byte, method, space string) *adminv1.ExplainResponse {
		t.Helper()
		return must[*adminv1.ExplainResponse](t)(by.admin.Explain(ctx, &adminv1.ExplainRequest{Certificate: chain, Method: method, Namespace: space}))
	}
	if got := ask(a, managed.GetChain(), listWorkflows, full); !got.GetAllowed() || got.GetPrincipalId() != account || got.GetCertificateFingerprint() != managed.GetCertificate().GetFingerprint() || got.GetUntil() == nil {
		t.Errorf("issued here = %v, want allowed as the service account", got)
	}
	if got := ask(a, pemOf(own.leaf(t, "worker-1")), startWorkflow, full); !got.GetAllowed() || got.GetPrincipalKind() != string(sallyport.Certificate) {
		t.Errorf("a customer's = %v, want allowed", got)
	}
	if got := ask(a, pemOf(own.leaf(t, "stranger")), startWorkflow, full); got.GetAllowed() || !strings.Contains(got.GetReason(), "filter") {
		t.Errorf("without a matching filter = %v, want a refusal that says so", got)
	}
	if got := ask(a, pemOf(newCustomer(t, "other CA").leaf(t, "worker-1")), startWorkflow, full); got.GetAllowed() || got.GetPrincipalId() != "" || !strings.Contains(got.GetReason(), "its issuer is") {
		t.Errorf("of another CA = %v, want a refusal that names nobody and tells which CA it is of", got)
	}
	if got := ask(a, pemOf(own.leaf(t, "worker-1")), startWorkflow, a.namespace(t, "keys")); got.GetAllowed() || !strings.Contains(got.GetReason(), "switch mTLS on") {
		t.Errorf("on a namespace without mTLS = %v, want a refusal that says so", got)
	}
	if got := ask(other, managed.GetChain(), listWorkflows, ""); got.GetAllowed() || got.GetPrincipalId() != "" {
		t.Errorf("of another account = %v, want a refusal that names nobody", got)
	}
	_, err := other.admin.Explain(ctx, &adminv1.ExplainRequest{Certificate: managed.GetChain(), Method: listWorkflows, Namespace: full})
	wantCode(t, "on another account's namespace", err, codes.NotFound, "")
	_, token := a.keyOf(t, account)
	must[*adminv1.RevokeResponse](t)(a.admin.Revoke(ctx, &adminv1.RevokeRequest{Fingerprint: managed.GetCertificate().GetFingerprint()}))
	if got := ask(w.as(t, a.account, account, token), managed.GetChain(), listWorkflows, full); got.GetAllowed() || !strings.Contains(got.GetReason(), "revoked") {
		t.Errorf("revoked = %v, want a refusal that says so", got)
	}
}

func TestBadCertificateRequests(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	hash := strings.Repeat("0a", 32)
	issue := func(change func(*adminv1.IssueCertificateRequest)) func() error {
		return func() error {
			r := &adminv1.IssueCertificateRequest{ServiceAccountId: account, Csr: csr(t)}
			change(r)
			_, err := a.admin.IssueCertificate(ctx, r)
			return err
		}
	}
	revoke := func(r *adminv1.RevokeRequest) func() error {
		return func() error { _, err := a.admin.Revoke(ctx, r); return err }
	}
	explain := func(r *adminv1.ExplainRequest) func() error {
		return func() error { _, err := a.admin.Explain(ctx, r); return err }
	}
	checkBadInput(t, []badInput{
		{"nobody's certificate", issue(func(r *adminv1.IssueCertificateRequest) { r.ServiceAccountId = "" }), "service_account_id"},
		{"NUL in an id", issue(func(r *adminv1.IssueCertificateRequest) { r.ServiceAccountId = "sa_\x00" }), "service_account_id"},
		{"no request", issue(func(r *adminv1.IssueCertificateRequest) { r.Csr = nil }), "csr"},
		{"no PKCS #10", issue(func(r *adminv1.IssueCertificateRequest) { r.Csr = []byte("hello") }), "csr"},
		{"a huge request", issue(func(r *adminv1.IssueCertificateRequest) { r.Csr = bytes.Repeat([]byte("x"), 17<<10) }), "csr"},
		{"a request with a wrong signature", issue(func(r *adminv1.IssueCertificateRequest) { r.Csr = forged(t) }), "csr"},
		{"a short life", issue(func(r *adminv1.IssueCertificateRequest) { r.Lifetime = durationpb.New(time.Minute) }), "lifetime"},
		{"a long life", issue(func(r *adminv1.IssueCertificateRequest) { r.Lifetime = durationpb.New(91 * 24 * time.Hour) }), "lifetime"},
		{"a negative life", issue(func(r *adminv1.IssueCertificateRequest) { r.Lifetime = durationpb.New(-time.Hour) }), "lifetime"},
		{"no life", issue(func(r *adminv1.IssueCertificateRequest) { r.Lifetime = &durationpb.Duration{} }), "lifetime"},
		{"an impossible life", issue(func(r *adminv1.IssueCertificateRequest) { r.Lifetime = &durationpb.Duration{Seconds: 1, Nanos: -5} }), "lifetime"},
		{"operation id", issue(func(r *adminv1.IssueCertificateRequest) { r.AsyncOperationId = "a b" }), "async_operation_id"},
		{"renewing with a key that came", func() error {
			_, err := a.admin.RenewCertificate(ctx, &adminv1.RenewCertificateRequest{Csr: csr(t)})
			return err
		}, "certificate_id"},
		{"reading none", func() error {
			_, err := a.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{})
			return err
		}, "certificate_id"},
		{"listing nobody's", func() error {
			_, err := a.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{ServiceAccountId: "../x"})
			return err
		}, "service_account_id"},
		{"list's page", func() error {
			_, err := a.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{PageToken: "x"})
			return err
		}, "page_token"},
		{"revoking nothing", revoke(&adminv1.RevokeRequest{}), "certificate_id"},
		{"revoking two things", revoke(&adminv1.RevokeRequest{CertificateId: "cert_a", Fingerprint: hash}), "certificate_id"},
		{"a serial number of nobody", revoke(&adminv1.RevokeRequest{Serial: "a1"}), "issuer_id"},
		{"a serial number that is none", revoke(&adminv1.RevokeRequest{Serial: "0x1", IssuerId: hash}), "serial"},
		{"a serial number with a zero", revoke(&adminv1.RevokeRequest{Serial: "01", IssuerId: hash}), "serial"},
		{"a long serial number", revoke(&adminv1.RevokeRequest{Serial: strings.Repeat("a", 41), IssuerId: hash}), "serial"},
		{"an issuer that is none", revoke(&adminv1.RevokeRequest{IssuerId: "CN=x"}), "issuer_id"},
		{"a fingerprint in capitals", revoke(&adminv1.RevokeRequest{Fingerprint: strings.ToUpper(hash)}), "fingerprint"},
		{"a long reason", revoke(&adminv1.RevokeRequest{Fingerprint: hash, Reason: strings.Repeat("é", 201)}), "reason"},
		{"a reason that is no text", revoke(&adminv1.RevokeRequest{Fingerprint: hash, Reason: "a\x00"}), "reason"},
		{"explaining nothing", explain(&adminv1.ExplainRequest{Method: "/m"}), "key_id"},
		{"explaining two", explain(&adminv1.ExplainRequest{Method: "/m", KeyId: "a", Certificate: []byte("x")}), "key_id"},
		{"explaining no certificate", explain(&adminv1.ExplainRequest{Method: "/m", Certificate: []byte("x")}), "certificate"},
	})
}

func TestBadClientCARequests(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	full := a.mtlsNamespace(t, "orders", newCustomer(t, "CA").pem)
	account := a.serviceAccount(t, read)
	hash := strings.Repeat("0a", 32)
	id := must[*adminv1.ListCertificateFiltersResponse](t)(a.admin.ListCertificateFilters(ctx, &adminv1.ListCertificateFiltersRequest{Namespace: full})).GetFilters()[0].GetId()
	checkBadInput(t, []badInput{
		{"a namespace without its account", func() error {
			_, err := a.admin.ListClientCas(ctx, &adminv1.ListClientCasRequest{Namespace: "orders"})
			return err
		}, "namespace"},
		{"adding nothing", func() error {
			_, err := a.admin.AddClientCas(ctx, &adminv1.AddClientCasRequest{Namespace: full})
			return err
		}, "certificates"},
		{"adding a leaf", func() error {
			_, err := a.admin.AddClientCas(ctx, &adminv1.AddClientCasRequest{Namespace: full, Certificates: pemOf(newCustomer(t, "x").leaf(t, "y"))})
			return err
		}, "certificates"},
		{"removing nothing", func() error {
			_, err := a.admin.RemoveClientCas(ctx, &adminv1.RemoveClientCasRequest{Namespace: full})
			return err
		}, "fingerprints"},
		{"removing what is no fingerprint", func() error {
			_, err := a.admin.RemoveClientCas(ctx, &adminv1.RemoveClientCasRequest{Namespace: full, Fingerprints: []string{hash, "AA:BB"}})
			return err
		}, "fingerprints[1]"},
		{"a bundle that would not count", func() error {
			_, err := a.admin.SetNamespaceMtls(ctx, &adminv1.SetNamespaceMtlsRequest{Namespace: full, Enabled: true, ClientCa: newCustomer(t, "x").pem})
			return err
		}, "replace_client_ca"},
		{"a bundle that is none", func() error {
			_, err := a.admin.SetNamespaceMtls(ctx, &adminv1.SetNamespaceMtlsRequest{Namespace: full, Enabled: true, ClientCa: []byte("x"), ReplaceClientCa: true})
			return err
		}, "client_ca"},
		{"mTLS of a version that is none", func() error {
			_, err := a.admin.SetNamespaceMtls(ctx, &adminv1.SetNamespaceMtlsRequest{Namespace: full, ResourceVersion: "-1"})
			return err
		}, "resource_version"},
		{"no filter", func() error {
			_, err := a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full})
			return err
		}, "filter"},
		{"an empty filter", func() error {
			_, err := a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full, Filter: &adminv1.CertificateFilter{}})
			return err
		}, "filter"},
		{"a filter with two asterisks", func() error {
			_, err := a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full, Filter: &adminv1.CertificateFilter{Organization: "*a*"}})
			return err
		}, "filter.organization"},
		{"a map of two", func() error {
			_, err := a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full, Filter: &adminv1.CertificateFilter{CommonName: "a", ServiceAccountId: account, Permission: "read"}})
			return err
		}, "filter.permission"},
		{"no filter's id", func() error {
			_, err := a.admin.RemoveCertificateFilter(ctx, &adminv1.RemoveCertificateFilterRequest{Namespace: full, FilterId: "CN=x"})
			return err
		}, "filter_id"},
		{"a map to admin", func() error {
			_, err := a.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: id, Permission: "admin"})
			return err
		}, "permission"},
		{"a map to no id", func() error {
			_, err := a.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: full, FilterId: id, ServiceAccountId: "a b"})
			return err
		}, "service_account_id"},
		{"seen since never", func() error {
			_, err := a.admin.ListSeenCertificates(ctx, &adminv1.ListSeenCertificatesRequest{Namespace: full, Since: &timestamppb.Timestamp{Seconds: -1 << 60}})
			return err
		}, "since"},
		{"checking what is no bundle", func() error {
			_, err := a.admin.CheckClientCas(ctx, &adminv1.CheckClientCasRequest{Namespace: full, Bundle: []byte("x")})
			return err
		}, "bundle"},
		{"filters that would not count", func() error {
			_, err := a.admin.CheckClientCas(ctx, &adminv1.CheckClientCasRequest{Namespace: full, Filters: []*adminv1.CertificateFilter{{CommonName: "a"}}})
			return err
		}, "replace_filters"},
		{"checking what is no filter", func() error {
			_, err := a.admin.CheckClientCas(ctx, &adminv1.CheckClientCasRequest{Namespace: full, ReplaceFilters: true, Filters: []*adminv1.CertificateFilter{{CommonName: "a"}, {CommonName: "*"}}})
			return err
		}, "filters[1].common_name"},
	})
}

// forged is a request that somebody changed after it was signed.
func forged(t *testing.T) []byte {
	t.Helper()
	block, _ := pem.Decode(csr(t))
	block.Bytes[len(block.Bytes)-1] ^= 1
	return pem.EncodeToMemory(block)
}
