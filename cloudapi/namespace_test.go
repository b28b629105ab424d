package cloudapi_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// ca makes a self-signed CA, as tcld does.
func ca(t *testing.T, organization string, notAfter time.Time) []byte {
	t.Helper()
	return certificate(t, &x509.Certificate{Subject: pkix.Name{Organization: []string{organization}}, NotAfter: notAfter, IsCA: true})
}

func certificate(t *testing.T, template *x509.Certificate) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), template.NotAfter.Add(-365*24*time.Hour)
	template.BasicConstraintsValid, template.DNSNames = true, []string{"client.root.testing.abcd"}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx, cloud := t.Context(), a.cloud
	// Two CAs of one name, one expired, a blank line between and after them.
	bundle := bytes.Join([][]byte{ca(t, "testing", time.Now().Add(-time.Hour)), ca(t, "testing", time.Now().Add(300*24*time.Hour)), nil}, []byte("\n"))
	spec := &namespace.NamespaceSpec{
		Name: "orders", Regions: []string{"aws-us-east-1"}, RetentionDays: 14,
		MtlsAuth: &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCa: bundle,
			CertificateFilters: []*namespace.CertificateFilterSpec{{SubjectAlternativeName: "example.com"}, {CommonName: "*.example.com"}}},
		CodecServer: &namespace.CodecServerSpec{Endpoint: "https://example.com", PassAccessToken: true,
			CustomErrorMessage: &namespace.CodecServerSpec_CustomErrorMessage{Default: &namespace.CodecServerSpec_CustomErrorMessage_ErrorMessage{Message: "ask us", Link: "https://example.com/help"}}},
		Lifecycle:    &namespace.LifecycleSpec{EnableDeleteProtection: true},
		Fairness:     &namespace.FairnessSpec{},
		CapacitySpec: &namespace.CapacitySpec{Spec: &namespace.CapacitySpec_OnDemand_{OnDemand: &namespace.CapacitySpec_OnDemand{}}},
		SearchAttributes: map[string]namespace.NamespaceSpec_SearchAttributeType{
			"CustomerId": namespace.NamespaceSpec_SEARCH_ATTRIBUTE_TYPE_KEYWORD},
	}
	var header metadata.MD
	made := must[*cloudservice.CreateNamespaceResponse](t)(cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: spec}, grpc.Header(&header)))
	wantFulfilled(t, "CreateNamespace", made.GetAsyncOperation())
	if want := "orders." + string(a.account); made.GetNamespace() != want {
		t.Errorf("namespace = %q, want %q", made.GetNamespace(), want)
	}
	if w := header.Get("sallyport-warning"); len(w) != 1 {
		t.Errorf("warnings of an expired CA = %q, want one", w)
	}
	get := func() *namespace.Namespace {
		t.Helper()
		return must[*cloudservice.GetNamespaceResponse](t)(cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: made.GetNamespace()})).GetNamespace()
	}
	n := get()
	want := proto.Clone(spec).(*namespace.NamespaceSpec)
	want.Replicas = []*namespace.ReplicaSpec{{Region: "aws-us-east-1"}}
	want.ApiKeyAuth = &namespace.ApiKeyAuthSpec{}
	if diff := cmp.Diff(want, n.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("spec as read (-want +got):\n%s", diff)
	}
	if n.GetState() != active || n.GetActiveRegion() != "aws-us-east-1" || n.GetLimits() == nil || n.GetCreatedTime() == nil ||
		n.GetEndpoints().GetMtlsGrpcAddress() != "east.example:7233" || n.GetEndpoints().GetGrpcAddress() != "" || len(n.GetRegionStatus()) > 0 {
		t.Errorf("namespace = %v", n)
	}
	_, err := cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: spec})
	wantCode(t, "the same name again", err, codes.AlreadyExists, "")
	list := must[*cloudservice.GetNamespacesResponse](t)(cloud.GetNamespaces(ctx, &cloudservice.GetNamespacesRequest{Name: "orders"}))
	if diff := cmp.Diff([]*namespace.Namespace{n}, list.GetNamespaces(), protocmp.Transform()); diff != "" {
		t.Errorf("namespaces by name (-want +got):\n%s", diff)
	}

	del := &cloudservice.DeleteNamespaceRequest{Namespace: n.GetNamespace(), ResourceVersion: n.GetResourceVersion()}
	_, err = cloud.DeleteNamespace(ctx, del)
	wantCode(t, "deleting a protected one", err, codes.FailedPrecondition, "enable_delete_protection")
	next := proto.Clone(n.GetSpec()).(*namespace.NamespaceSpec)
	next.Lifecycle, next.MtlsAuth, next.ApiKeyAuth.Enabled = nil, nil, true
	wantFulfilled(t, "UpdateNamespace", must[*cloudservice.UpdateNamespaceResponse](t)(cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{
		Namespace: n.GetNamespace(), Spec: next, ResourceVersion: n.GetResourceVersion()})).GetAsyncOperation())
	updated := get()
	if diff := cmp.Diff(next, updated.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("spec after the update (-want +got):\n%s", diff)
	}
	if updated.GetEndpoints().GetGrpcAddress() == "" || updated.GetEndpoints().GetMtlsGrpcAddress() != "" || updated.GetLastModifiedTime() == nil {
		t.Errorf("namespace after the update = %v", updated)
	}
	_, err = cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: n.GetNamespace(), Spec: n.GetSpec(), ResourceVersion: n.GetResourceVersion()})
	wantCode(t, "stale version", err, codes.FailedPrecondition, "resource_version")

	del = &cloudservice.DeleteNamespaceRequest{Namespace: n.GetNamespace(), ResourceVersion: updated.GetResourceVersion()}
	wantFulfilled(t, "DeleteNamespace", must[*cloudservice.DeleteNamespaceResponse](t)(cloud.DeleteNamespace(ctx, del)).GetAsyncOperation())
	_, err = cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: n.GetNamespace()})
	wantCode(t, "after delete", err, codes.NotFound, "")
	if a.namespace(t, "orders") != n.GetNamespace() {
		t.Error("the name made again is another")
	}
}

// TestNothingToChange: specs that are spelled otherwise and mean the same.
func TestNothingToChange(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	tests := []struct {
		name   string
		change func(*namespace.NamespaceSpec) // of what was sent first
	}{
		{"the same", func(*namespace.NamespaceSpec) {}},
		{"replicas for regions", func(s *namespace.NamespaceSpec) {
			s.Replicas, s.Regions = []*namespace.ReplicaSpec{{Region: s.Regions[0]}}, nil
		}},
		{"neither replicas nor regions", func(s *namespace.NamespaceSpec) { s.Regions = nil }},
		{"empty messages", func(s *namespace.NamespaceSpec) {
			s.MtlsAuth, s.Lifecycle, s.CodecServer = &namespace.MtlsAuthSpec{}, &namespace.LifecycleSpec{}, &namespace.CodecServerSpec{}
			s.HighAvailability = &namespace.HighAvailabilitySpec{}
		}},
		{"empty map", func(s *namespace.NamespaceSpec) {
			s.SearchAttributes = map[string]namespace.NamespaceSpec_SearchAttributeType{}
		}},
	}
	a.namespace(t, "orders")
	sent := &namespace.NamespaceSpec{Name: "orders", Regions: []string{"aws-us-east-1"}, RetentionDays: 7, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}
	full := "orders." + string(a.account)
	for _, tt := range tests {
		spec := proto.Clone(sent).(*namespace.NamespaceSpec)
		tt.change(spec)
		n := must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
		_, err := a.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: full, Spec: spec, ResourceVersion: n.GetResourceVersion()})
		wantCode(t, tt.name, err, codes.InvalidArgument, "nothing to change")
	}
}

func TestSearchAttributesStay(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	full := a.namespace(t, "orders")
	update := func(change func(*namespace.NamespaceSpec)) error {
		n := must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
		change(n.GetSpec())
		_, err := a.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: full, Spec: n.GetSpec(), ResourceVersion: n.GetResourceVersion()})
		return err
	}
	type types = map[string]namespace.NamespaceSpec_SearchAttributeType
	if err := update(func(s *namespace.NamespaceSpec) {
		s.SearchAttributes = types{"A": namespace.NamespaceSpec_SEARCH_ATTRIBUTE_TYPE_INT}
	}); err != nil {
		t.Fatal(err)
	}
	err := update(func(s *namespace.NamespaceSpec) { s.SearchAttributes = nil })
	wantCode(t, "removing one", err, codes.InvalidArgument, "cannot be removed")
	err = update(func(s *namespace.NamespaceSpec) {
		s.SearchAttributes["A"] = namespace.NamespaceSpec_SEARCH_ATTRIBUTE_TYPE_BOOL
	})
	wantCode(t, "another type", err, codes.InvalidArgument, "cannot change its type")
}

// TestOldClients: those up to v0.3.0 send and read text where newer ones have
// enumerations; any other value of the header is fine.
func TestOldClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	bundle := ca(t, "old", time.Now().Add(time.Hour))
	old := w.client(t, a.token, "v0.2.0").CloudService()
	full := must[*cloudservice.CreateNamespaceResponse](t)(old.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{
		Name: "orders", Regions: []string{"aws-us-east-1"}, RetentionDays: 7, CustomSearchAttributes: map[string]string{"A": "keyword_list"},
		MtlsAuth: &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCaDeprecated: base64.StdEncoding.EncodeToString(bundle)}}})).GetNamespace()
	get := func(version string) *namespace.Namespace {
		t.Helper()
		client := w.client(t, a.token, version).CloudService()
		return must[*cloudservice.GetNamespaceResponse](t)(client.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
	}
	tests := []struct {
		version                 string
		texts, base64CA, status bool
	}{
		{"v0.2.0", true, true, true}, {"v0.3.0", true, false, true}, {"v0.3.1", false, false, true}, {"v0.15.0", false, false, true},
		{"v0.17.1", false, false, false}, {"", false, false, false}, {"2025-07-09-00", false, false, false}, {"nonsense", false, false, false},
	}
	for _, tt := range tests {
		n := get(tt.version)
		if got := n.GetStateDeprecated() == "active" && n.GetSpec().GetCustomSearchAttributes()["A"] == "keyword_list"; got != tt.texts {
			t.Errorf("%s: texts = %v, want %v: %v", tt.version, got, tt.texts, n)
		}
		if got := n.GetSpec().GetMtlsAuth().GetAcceptedClientCaDeprecated() != ""; got != tt.base64CA {
			t.Errorf("%s: CA as text = %v, want %v", tt.version, got, tt.base64CA)
		}
		if got := len(n.GetRegionStatus()) > 0; got != tt.status {
			t.Errorf("%s: region_status = %v, want %v", tt.version, got, tt.status)
		}
		if !bytes.Equal(n.GetSpec().GetMtlsAuth().GetAcceptedClientCa(), bundle) || len(n.GetSpec().GetRegions()) != 1 {
			t.Errorf("%s: spec = %v, want the CA and the regions whatever the version", tt.version, n.GetSpec())
		}
	}
}

// TestClientCAsInSpec: what changes client CAs and filters one by one is in the
// spec, and the bytes are those that were sent, whoever sent them.
func TestClientCAsInSpec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	full := a.namespace(t, "orders")
	get := func() *namespace.Namespace {
		t.Helper()
		return must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
	}
	update := func(change func(*namespace.NamespaceSpec)) error {
		n := get()
		change(n.GetSpec())
		_, err := a.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: full, Spec: n.GetSpec(), ResourceVersion: n.GetResourceVersion()})
		return err
	}
	later := time.Now().Add(100 * 24 * time.Hour)
	one, two := ca(t, "one", later), ca(t, "two", later)
	if got := get().GetSpec().GetMtlsAuth(); got != nil {
		t.Errorf("mtls_auth = %v, want none as none was sent", got)
	}
	must[*adminv1.AddClientCasResponse](t)(a.admin.AddClientCas(ctx, &adminv1.AddClientCasRequest{Namespace: full, Certificates: one}))
	must[*adminv1.AddCertificateFilterResponse](t)(a.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: full,
		Filter: &adminv1.CertificateFilter{CommonName: "*.Example.com"}}))
	want := &namespace.MtlsAuthSpec{AcceptedClientCa: one, CertificateFilters: []*namespace.CertificateFilterSpec{{CommonName: "*.Example.com"}}}
	if diff := cmp.Diff(want, get().GetSpec().GetMtlsAuth(), protocmp.Transform()); diff != "" {
		t.Errorf("mtls_auth after AddClientCas (-want +got):\n%s", diff)
	}
	list := must[*cloudservice.GetNamespacesResponse](t)(a.cloud.GetNamespaces(ctx, &cloudservice.GetNamespacesRequest{})).GetNamespaces()
	if len(list) != 1 || !proto.Equal(list[0], get()) {
		t.Errorf("the list has %v, want %v", list, get())
	}
	wantCode(t, "what was read", update(func(*namespace.NamespaceSpec) {}), codes.InvalidArgument, "nothing to change")
	// A file with its last newline and without, and another line between.
	for _, bundle := range [][]byte{bytes.TrimSpace(one), one, append(bytes.Clone(one), "\r\n \n"...), bytes.Join([][]byte{one, two}, []byte("\n"))} {
		if err := update(func(s *namespace.NamespaceSpec) { s.MtlsAuth.Enabled, s.MtlsAuth.AcceptedClientCa = true, bundle }); err != nil {
			t.Fatal(err)
		}
		if got := get().GetSpec().GetMtlsAuth().GetAcceptedClientCa(); !bytes.Equal(got, bundle) {
			t.Errorf("accepted_client_ca = %q, want %q", got, bundle)
		}
		wantCode(t, "the same", update(func(s *namespace.NamespaceSpec) { s.MtlsAuth.AcceptedClientCa = bytes.Clone(bundle) }), codes.InvalidArgument, "nothing to change")
	}
	if err := update(func(s *namespace.NamespaceSpec) { s.MtlsAuth.Enabled = false }); err != nil {
		t.Fatal(err)
	}
	if m := get().GetSpec().GetMtlsAuth(); m.GetEnabled() || len(m.GetAcceptedClientCa()) == 0 || len(m.GetCertificateFilters()) != 1 {
		t.Errorf("mtls_auth = %v, want the bundle and the filter kept while it is off", m)
	}
	if err := update(func(s *namespace.NamespaceSpec) { s.MtlsAuth = nil }); err != nil {
		t.Fatal(err)
	}
	if m := get().GetSpec().GetMtlsAuth(); m != nil {
		t.Errorf("mtls_auth = %v, want none as none was sent", m)
	}
	var header metadata.MD
	n := get()
	n.Spec.MtlsAuth = &namespace.MtlsAuthSpec{AcceptedClientCa: ca(t, "soon", time.Now().Add(24*time.Hour))}
	must[*cloudservice.UpdateNamespaceResponse](t)(a.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: full, Spec: n.GetSpec(),
		ResourceVersion: n.GetResourceVersion()}, grpc.Header(&header)))
	if w := header.Get("sallyport-warning"); len(w) != 1 {
		t.Errorf("warnings of a CA that expires tomorrow = %q, want one", w)
	}
}
