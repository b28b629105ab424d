package cloudapi_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// badInput is a call that has to be InvalidArgument and to name the field.
type badInput struct {
	name  string
	call  func() error
	field string // the violation's, or its beginning
}

func checkBadInput(t *testing.T, tests []badInput) {
	t.Helper()
	for _, tt := range tests {
		err := tt.call()
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want InvalidArgument", tt.name, err)
			continue
		}
		if field := violation(err); !strings.HasPrefix(field, tt.field) {
			t.Errorf("%s: got field %q (%v), want %s", tt.name, field, err, tt.field)
		}
		if len(status.Convert(err).Message()) > 1000 {
			t.Errorf("%s: the message has %d bytes; want it bounded", tt.name, len(status.Convert(err).Message()))
		}
	}
}

func TestBadUsers(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	orders := a.namespace(t, "orders")
	long := strings.Repeat("x", 100_000)
	user := func(change func(*identity.UserSpec)) func() error {
		return func() error {
			spec := &identity.UserSpec{Email: "new@example.com", Access: roleAccess(read)}
			change(spec)
			_, err := a.cloud.CreateUser(ctx, &cloudservice.CreateUserRequest{Spec: spec})
			return err
		}
	}
	checkBadInput(t, []badInput{
		{"user without spec", func() error { _, err := a.cloud.CreateUser(ctx, &cloudservice.CreateUserRequest{}); return err }, "spec"},
		{"no e-mail", user(func(s *identity.UserSpec) { s.Email = "" }), "spec.email"},
		{"malformed e-mail", user(func(s *identity.UserSpec) { s.Email = "ann" }), "spec.email"},
		{"e-mail with a display name", user(func(s *identity.UserSpec) { s.Email = "Ann <ann@example.com>" }), "spec.email"},
		{"oversized e-mail", user(func(s *identity.UserSpec) { s.Email = long + "@example.com" }), "spec.email"},
		{"unknown role", user(func(s *identity.UserSpec) { s.Access.AccountAccess.Role = 99 }), "spec.access.account_access.role"},
		{"unknown role text", user(func(s *identity.UserSpec) {
			s.Access.AccountAccess = &identity.AccountAccess{RoleDeprecated: "king"}
		}), "spec.access.account_access.role_deprecated"},
		{"two roles", user(func(s *identity.UserSpec) { s.Access.AccountAccess.RoleDeprecated = "admin" }), "spec.access.account_access.role"},
		{"custom roles", user(func(s *identity.UserSpec) { s.Access.AccountAccess.CustomRoles = []string{"r"} }), "spec.access.account_access.custom_roles"},
		{"unknown permission", user(func(s *identity.UserSpec) {
			s.Access.NamespaceAccesses = map[string]*identity.NamespaceAccess{orders: permission(9)}
		}), "spec.access.namespace_accesses"},
		{"no permission", user(func(s *identity.UserSpec) {
			s.Access.NamespaceAccesses = map[string]*identity.NamespaceAccess{orders: nil}
		}), "spec.access.namespace_accesses"},
		{"namespace without account", user(func(s *identity.UserSpec) {
			s.Access.NamespaceAccesses = map[string]*identity.NamespaceAccess{"orders": permission(readIt)}
		}), "spec.access.namespace_accesses"},
		{"admin with a namespace", user(func(s *identity.UserSpec) {
			s.Access = &identity.Access{AccountAccess: &identity.AccountAccess{Role: admin}, NamespaceAccesses: map[string]*identity.NamespaceAccess{orders: permission(readIt)}}
		}), "spec.access.namespace_accesses"},
		{"unknown project role", user(func(s *identity.UserSpec) {
			s.Access.ProjectAccesses = map[string]*identity.ProjectAccess{"p_x": {Role: 77}}
		}), "spec.access.project_accesses"},
		{"too many projects", user(func(s *identity.UserSpec) {
			s.Access.ProjectAccesses = map[string]*identity.ProjectAccess{}
			for i := range 1001 {
				s.Access.ProjectAccesses[fmt.Sprint("p_", i)] = &identity.ProjectAccess{Role: identity.ProjectAccess_PROJECT_ROLE_READ}
			}
		}), "spec.access.project_accesses"},
		{"unknown project", user(func(s *identity.UserSpec) {
			s.Access.ProjectAccesses = map[string]*identity.ProjectAccess{"p_x": {Role: identity.ProjectAccess_PROJECT_ROLE_READ}}
		}), "spec.access.project_accesses"},
	})
}

func TestBadReferences(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	long := strings.Repeat("x", 100_000)
	checkBadInput(t, []badInput{
		{"malformed id", func() error { _, err := a.cloud.GetUser(ctx, &cloudservice.GetUserRequest{UserId: "../x"}); return err }, "user_id"},
		{"oversized id", func() error { _, err := a.cloud.GetUser(ctx, &cloudservice.GetUserRequest{UserId: long}); return err }, "user_id"},
		{"no id", func() error { _, err := a.cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{}); return err }, "key_id"},
		{"NUL in an id", func() error {
			_, err := a.cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: "g\x00"})
			return err
		}, "group_id"},
		{"no version", func() error {
			_, err := a.cloud.DeleteUser(ctx, &cloudservice.DeleteUserRequest{UserId: a.owner})
			return err
		}, "resource_version"},
		{"malformed version", func() error {
			_, err := a.cloud.DeleteUser(ctx, &cloudservice.DeleteUserRequest{UserId: a.owner, ResourceVersion: "-1"})
			return err
		}, "resource_version"},
		{"oversized operation id", func() error {
			_, err := a.cloud.CreateUser(ctx, &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Email: "x@example.com"}, AsyncOperationId: long})
			return err
		}, "async_operation_id"},
		{"forged page token", func() error {
			_, err := a.cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{PageToken: "dV8x"})
			return err
		}, "page_token"},
		{"oversized page", func() error {
			_, err := a.cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{PageSize: 1001})
			return err
		}, "page_size"},
		{"negative page", func() error {
			_, err := a.cloud.GetNamespaces(ctx, &cloudservice.GetNamespacesRequest{PageSize: -1})
			return err
		}, "page_size"},
	})
}

func TestBadServiceAccounts(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	orders := a.namespace(t, "orders")
	long := strings.Repeat("x", 100_000)
	serviceAccount := func(spec *identity.ServiceAccountSpec) func() error {
		return func() error {
			_, err := a.cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{Spec: spec})
			return err
		}
	}
	checkBadInput(t, []badInput{
		{"no access at all", serviceAccount(&identity.ServiceAccountSpec{Name: "x"}), "spec.access"},
		{"two accesses", serviceAccount(&identity.ServiceAccountSpec{Name: "x", Access: roleAccess(read),
			NamespaceScopedAccess: &identity.NamespaceScopedAccess{Namespace: orders, Access: permission(readIt)}}), "spec.access"},
		{"service account without name", serviceAccount(&identity.ServiceAccountSpec{Access: roleAccess(read)}), "spec.name"},
		{"service account's oversized name", serviceAccount(&identity.ServiceAccountSpec{Name: long, Access: roleAccess(read)}), "spec.name"},
		{"service account as owner", serviceAccount(&identity.ServiceAccountSpec{Name: "x", Access: roleAccess(identity.AccountAccess_ROLE_OWNER)}), "spec.access.account_access.role"},
		{"scoped without permission", serviceAccount(&identity.ServiceAccountSpec{Name: "x",
			NamespaceScopedAccess: &identity.NamespaceScopedAccess{Namespace: orders}}), "spec.namespace_scoped_access.access.permission"},
		{"scoped to nothing", serviceAccount(&identity.ServiceAccountSpec{Name: "x",
			NamespaceScopedAccess: &identity.NamespaceScopedAccess{Access: permission(readIt)}}), "spec.namespace_scoped_access.namespace"},
		{"project-scoped without role", serviceAccount(&identity.ServiceAccountSpec{Name: "x",
			ProjectScopedAccess: &identity.ProjectScopedAccess{ProjectId: "p_x"}}), "spec.project_scoped_access.access.role"},
	})
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	key, _ := a.keyOf(t, account)
	long := strings.Repeat("x", 100_000)
	apiKey := func(change func(*identity.ApiKeySpec)) func() error {
		return func() error {
			spec := keySpec(account)
			change(spec)
			_, err := a.cloud.CreateApiKey(ctx, &cloudservice.CreateApiKeyRequest{Spec: spec})
			return err
		}
	}
	checkBadInput(t, []badInput{
		{"key without owner", apiKey(func(s *identity.ApiKeySpec) { s.OwnerId = "" }), "spec.owner_id"},
		{"key without owner type", apiKey(func(s *identity.ApiKeySpec) { s.OwnerType = 0 }), "spec.owner_type"},
		{"key of unknown owner type", apiKey(func(s *identity.ApiKeySpec) { s.OwnerType = 12 }), "spec.owner_type"},
		{"key without expiry", apiKey(func(s *identity.ApiKeySpec) { s.ExpiryTime = nil }), "spec.expiry_time"},
		{"key of the past", apiKey(func(s *identity.ApiKeySpec) { s.ExpiryTime = timestamppb.New(time.Now().Add(-time.Hour)) }), "spec.expiry_time"},
		{"key for ever", apiKey(func(s *identity.ApiKeySpec) { s.ExpiryTime = timestamppb.New(time.Now().AddDate(5, 0, 0)) }), "spec.expiry_time"},
		{"key beyond time", apiKey(func(s *identity.ApiKeySpec) { s.ExpiryTime = &timestamppb.Timestamp{Seconds: math.MaxInt64} }), "spec.expiry_time"},
		{"key without name", apiKey(func(s *identity.ApiKeySpec) { s.DisplayName = "" }), "spec.display_name"},
		{"key's oversized name", apiKey(func(s *identity.ApiKeySpec) { s.DisplayName = long }), "spec.display_name"},
		{"key's other owner", func() error {
			k := must[*cloudservice.GetApiKeyResponse](t)(a.cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: key})).GetApiKey()
			k.GetSpec().OwnerId = "sa_another"
			_, err := a.cloud.UpdateApiKey(ctx, &cloudservice.UpdateApiKeyRequest{KeyId: key, Spec: k.GetSpec(), ResourceVersion: k.GetResourceVersion()})
			return err
		}, "spec.owner_id"},
	})
}

func TestBadGroups(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	group := func(spec *identity.UserGroupSpec) func() error {
		return func() error {
			_, err := a.cloud.CreateUserGroup(ctx, &cloudservice.CreateUserGroupRequest{Spec: spec})
			return err
		}
	}
	checkBadInput(t, []badInput{
		{"group without kind", group(&identity.UserGroupSpec{DisplayName: "team-a"}), "spec.group_type"},
		{"group's malformed name", group(&identity.UserGroupSpec{DisplayName: "Team A", GroupType: &identity.UserGroupSpec_CloudGroup{}}), "spec.display_name"},
		{"Google group without e-mail", group(&identity.UserGroupSpec{DisplayName: "team-a", GroupType: &identity.UserGroupSpec_GoogleGroup{}}), "spec.google_group.email_address"},
		{"member without id", func() error {
			_, err := a.cloud.AddUserGroupMember(ctx, &cloudservice.AddUserGroupMemberRequest{GroupId: "g_x"})
			return err
		}, "member_id.user_id"},
	})
}

func TestBadNamespaces(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	long := strings.Repeat("x", 100_000)
	space := func(change func(*namespace.NamespaceSpec)) func() error {
		return func() error {
			spec := &namespace.NamespaceSpec{Name: "payments", Regions: []string{"aws-us-east-1"}, RetentionDays: 7, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}
			change(spec)
			_, err := a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: spec})
			return err
		}
	}
	checkBadInput(t, []badInput{
		{"namespace's malformed name", space(func(s *namespace.NamespaceSpec) { s.Name = "Orders!" }), "spec.name"},
		{"namespace's oversized name", space(func(s *namespace.NamespaceSpec) { s.Name = strings.Repeat("a", 65) }), "spec.name"},
		{"no region", space(func(s *namespace.NamespaceSpec) { s.Regions = nil }), "spec.replicas"},
		{"unknown region", space(func(s *namespace.NamespaceSpec) { s.Regions = []string{"aws-us-fake-99"} }), "spec.replicas"},
		{"two regions", space(func(s *namespace.NamespaceSpec) { s.Regions = []string{"aws-us-east-1", "azure-centralus"} }), "spec.replicas"},
		{"regions against replicas", space(func(s *namespace.NamespaceSpec) {
			s.Replicas = []*namespace.ReplicaSpec{{Region: "azure-centralus"}}
		}), "spec.replicas"},
		{"no retention", space(func(s *namespace.NamespaceSpec) { s.RetentionDays = 0 }), "spec.retention_days"},
		{"retention for ever", space(func(s *namespace.NamespaceSpec) { s.RetentionDays = 91 }), "spec.retention_days"},
		{"unknown attribute type", space(func(s *namespace.NamespaceSpec) {
			s.SearchAttributes = map[string]namespace.NamespaceSpec_SearchAttributeType{"A": 55}
		}), "spec.search_attributes"},
		{"connectivity rules", space(func(s *namespace.NamespaceSpec) { s.ConnectivityRuleIds = []string{"r"} }), "spec.connectivity_rule_ids"},
		{"codec server's URL", space(func(s *namespace.NamespaceSpec) {
			s.CodecServer = &namespace.CodecServerSpec{Endpoint: "javascript:alert(1)"}
		}), "spec.codec_server.endpoint"},
		{"description", space(func(s *namespace.NamespaceSpec) { s.Description = long }), "spec.description"},
		{"encryption that nobody checks", space(func(s *namespace.NamespaceSpec) {
			s.EncryptionValidation = &namespace.EncryptionValidationSpec{Mode: namespace.EncryptionValidationSpec_ENCRYPTION_VALIDATION_MODE_DENY}
		}), "spec.encryption_validation.mode"},
		{"unknown project of a namespace", func() error {
			_, err := a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{ProjectId: "p_none",
				Spec: &namespace.NamespaceSpec{Name: "x1", Regions: []string{"aws-us-east-1"}, RetentionDays: 1}})
			return err
		}, "project_id"},
		{"tags", func() error {
			_, err := a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{Name: "x1"}, Tags: map[string]string{"a": "b"}})
			return err
		}, "tags"},
	})
}

func TestBadCertificates(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	good := ca(t, "good", time.Now().Add(time.Hour))
	space := func(change func(*namespace.NamespaceSpec)) func() error {
		return func() error {
			spec := &namespace.NamespaceSpec{Name: "payments", Regions: []string{"aws-us-east-1"}, RetentionDays: 7, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}
			change(spec)
			_, err := a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: spec})
			return err
		}
	}
	mtls := func(bundle []byte, filters ...*namespace.CertificateFilterSpec) func() error {
		return space(func(s *namespace.NamespaceSpec) {
			s.MtlsAuth = &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCa: bundle, CertificateFilters: filters}
		})
	}
	const pemField = "spec.mtls_auth.accepted_client_ca"
	checkBadInput(t, []badInput{
		{"not PEM", mtls([]byte("nonsense")), pemField},
		{"control characters after the PEM", mtls(append(bytes.Clone(good), "\x1b[2J"...)), pemField},
		{"torn PEM", mtls(good[:len(good)-40]), pemField},
		{"a private key", mtls([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), pemField},
		{"not a certificate", mtls([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), pemField},
		{"17 certificates", mtls(bytes.Repeat(good, 17)), pemField},
		{"over 32 KB", mtls(append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 32<<10)...)), pemField},
		{"a leaf", mtls(certificate(t, &x509.Certificate{NotAfter: time.Now().Add(time.Hour)})), pemField},
		{"CA as text that is no base64", space(func(s *namespace.NamespaceSpec) {
			s.MtlsAuth = &namespace.MtlsAuthSpec{AcceptedClientCaDeprecated: "!"}
		}), "spec.mtls_auth.accepted_client_ca_deprecated"},
		{"empty filter", mtls(good, &namespace.CertificateFilterSpec{}), "spec.mtls_auth.certificate_filters[0]"},
		{"lone wildcard", mtls(good, &namespace.CertificateFilterSpec{CommonName: "*"}), "spec.mtls_auth.certificate_filters[0].common_name"},
		{"inner wildcard", mtls(good, &namespace.CertificateFilterSpec{Organization: "a.*.b"}), "spec.mtls_auth.certificate_filters[0].organization"},
		{"two wildcards", mtls(good, &namespace.CertificateFilterSpec{Organization: "*a*"}), "spec.mtls_auth.certificate_filters[0].organization"},
	})
}

func TestBadAdminRequests(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	key, _ := a.keyOf(t, account)
	checkBadInput(t, []badInput{
		{"explain without a key", func() error {
			_, err := a.admin.Explain(ctx, &adminv1.ExplainRequest{Method: "/m"})
			return err
		}, "key_id"},
		{"explain without a method", func() error { _, err := a.admin.Explain(ctx, &adminv1.ExplainRequest{KeyId: key}); return err }, "method"},
		{"negative overlap", func() error {
			_, err := a.admin.RotateApiKey(ctx, &adminv1.RotateApiKeyRequest{KeyId: key, Overlap: durationpb.New(-time.Hour)})
			return err
		}, "overlap"},
		{"audit before the beginning", func() error {
			_, err := a.admin.ListAuditEntries(ctx, &adminv1.ListAuditEntriesRequest{AfterRevision: -1})
			return err
		}, "after_revision"},
	})
}

// TestControlCharacters: what is no text reaches no database, in whatever field.
func TestControlCharacters(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	users := func(r *cloudservice.GetUsersRequest) func() error {
		return func() error { _, err := a.cloud.GetUsers(ctx, r); return err }
	}
	namespaces := func(r *cloudservice.GetNamespacesRequest) func() error {
		return func() error { _, err := a.cloud.GetNamespaces(ctx, r); return err }
	}
	groups := func(r *cloudservice.GetUserGroupsRequest) func() error {
		return func() error { _, err := a.cloud.GetUserGroups(ctx, r); return err }
	}
	checkBadInput(t, []badInput{
		{"users' e-mail", users(&cloudservice.GetUsersRequest{Email: "a\x00@example.com"}), "email"},
		{"users' page", users(&cloudservice.GetUsersRequest{PageToken: "\x00"}), "page_token"},
		{"users' namespace", users(&cloudservice.GetUsersRequest{Namespace: "\x00"}), "namespace"},
		{"oversized filter", users(&cloudservice.GetUsersRequest{Email: strings.Repeat("x", 100_000)}), "email"},
		{"namespaces' name", namespaces(&cloudservice.GetNamespacesRequest{Name: "\x00"}), "name"},
		{"namespaces' project", namespaces(&cloudservice.GetNamespacesRequest{ProjectId: "p_\x00"}), "project_id"},
		{"groups' name", groups(&cloudservice.GetUserGroupsRequest{DisplayName: "a\x1b[2J"}), "display_name"},
		{"groups' e-mail", groups(&cloudservice.GetUserGroupsRequest{GoogleGroup: &cloudservice.GetUserGroupsRequest_GoogleGroupFilter{EmailAddress: "\x00"}}), "google_group.email_address"},
		{"groups' IdP id", groups(&cloudservice.GetUserGroupsRequest{ScimGroup: &cloudservice.GetUserGroupsRequest_SCIMGroupFilter{IdpId: "\x00"}}), "scim_group.idp_id"},
		{"operation", func() error {
			_, err := a.cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: "op\x00"})
			return err
		}, "async_operation_id"},
		{"operation's receipt", func() error {
			_, err := a.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: "op\x00"})
			return err
		}, "async_operation_id"},
		{"group's IdP id", func() error {
			_, err := a.cloud.CreateUserGroup(ctx, &cloudservice.CreateUserGroupRequest{Spec: &identity.UserGroupSpec{DisplayName: "team",
				GroupType: &identity.UserGroupSpec_ScimGroup{ScimGroup: &identity.SCIMGroupSpec{IdpId: "a\x00"}}}})
			return err
		}, "spec.scim_group.idp_id"},
		{"operation id of a change", func() error {
			_, err := a.cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{AsyncOperationId: "\x7f",
				Spec: &identity.ServiceAccountSpec{Name: "x", Access: roleAccess(read)}})
			return err
		}, "async_operation_id"},
	})
}

// violation is the field that an error names.
func violation(err error) string {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// TestForeignNamespaces: other accounts' namespaces are not there.
func TestForeignNamespaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t), w.tenant(t)
	ctx := context.Background()
	theirs := b.namespace(t, "orders")
	_, err := a.cloud.CreateUser(ctx, &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Email: "x@example.com",
		Access: &identity.Access{NamespaceAccesses: map[string]*identity.NamespaceAccess{theirs: permission(readIt)}}}})
	wantCode(t, "access to a foreign namespace", err, codes.NotFound, "")
	_, err = a.cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{Namespace: theirs})
	wantCode(t, "users of a foreign namespace", err, codes.NotFound, "")
}
