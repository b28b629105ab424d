package cloudapi_test

import (
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// TestCAsOfNarrowedKeys: a key that works from some networks only lets nobody in
// from everywhere, in either API.
func TestCAsOfNarrowedKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	one, two := newCustomer(t, "one"), newCustomer(t, "two")
	full := a.mtlsNamespace(t, "orders", one.pem)
	account := a.serviceAccount(t, admin)
	as := func(limits *adminv1.ApiKeyLimits) *tenant {
		made := must[*adminv1.CreateApiKeyResponse](t)(a.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{Limits: limits,
			Spec: &adminv1.ApiKeySpec{OwnerId: account, DisplayName: "narrow", ExpiryTime: timestamppb.New(time.Now().Add(time.Hour))}}))
		return w.as(t, a.account, account, made.GetToken())
	}
	update := func(by *tenant, change func(*namespace.NamespaceSpec)) error {
		n := must[*cloudservice.GetNamespaceResponse](t)(by.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
		spec := proto.CloneOf(n.GetSpec())
		change(spec)
		_, err := by.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: full, Spec: spec, ResourceVersion: n.GetResourceVersion()})
		return err
	}
	add := func(by *tenant) error {
		_, err := by.admin.AddClientCas(ctx, &adminv1.AddClientCasRequest{Namespace: full, Certificates: two.pem})
		return err
	}
	office := as(&adminv1.ApiKeyLimits{Sources: []string{"127.0.0.0/8", "::1/128"}})
	const text = "some networks only"
	wantCode(t, "adding a CA", add(office), codes.PermissionDenied, text)
	wantCode(t, "another bundle", update(office, func(s *namespace.NamespaceSpec) { s.MtlsAuth.AcceptedClientCa = two.pem }), codes.PermissionDenied, text)
	wantCode(t, "no filters", update(office, func(s *namespace.NamespaceSpec) { s.MtlsAuth.CertificateFilters = nil }), codes.PermissionDenied, text)
	wantCode(t, "retention", update(office, func(s *namespace.NamespaceSpec) { s.RetentionDays = 8 }), codes.OK, "")
	reader := as(&adminv1.ApiKeyLimits{ReadOnly: true})
	wantCode(t, "adding a CA, read-only", add(reader), codes.PermissionDenied, "read-only")
	wantCode(t, "another bundle, read-only", update(reader, func(s *namespace.NamespaceSpec) { s.MtlsAuth.AcceptedClientCa = two.pem }), codes.PermissionDenied, "read-only")
	wantCode(t, "adding a CA, of the namespace", add(as(&adminv1.ApiKeyLimits{Namespaces: []string{full}})), codes.OK, "")
}

// TestNamespaceAdminRevokes: he may not, and reads what he can do.
func TestNamespaceAdminRevokes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	full := a.mtlsNamespace(t, "orders", newCustomer(t, "one").pem)
	account := a.serviceAccount(t, read)
	made := must[*cloudservice.GetServiceAccountResponse](t)(a.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account}))
	must[*cloudservice.SetServiceAccountNamespaceAccessResponse](t)(a.cloud.SetServiceAccountNamespaceAccess(ctx, &cloudservice.SetServiceAccountNamespaceAccessRequest{
		ServiceAccountId: account, Namespace: full, ResourceVersion: made.GetServiceAccount().GetResourceVersion(), Access: &identity.NamespaceAccess{Permission: identity.NamespaceAccess_PERMISSION_ADMIN}}))
	_, token := a.keyOf(t, account)
	by := w.as(t, a.account, account, token)
	hash := strings.Repeat("0a", 32)
	for _, r := range []*adminv1.RevokeRequest{{Fingerprint: hash}, {Serial: "a1", IssuerId: hash}, {IssuerId: hash}} {
		_, err := by.admin.Revoke(ctx, r)
		wantCode(t, r.String(), err, codes.PermissionDenied, "certificate filters (sallyport filter), or by removing its CA")
	}
}
