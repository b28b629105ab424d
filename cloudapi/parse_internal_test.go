package cloudapi

import (
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
)

// TestTexts pins how old clients spell enumerations.
func TestTexts(t *testing.T) {
	t.Parallel()
	c := call{version: &apiVersion{0, 3, 0}}
	tests := []struct{ got, want string }{
		{roleText(identity.AccountAccess_ROLE_OWNER), "owner"},
		{roleText(identity.AccountAccess_ROLE_FINANCE_ADMIN), "financeadmin"},
		{roleText(identity.AccountAccess_ROLE_METRICS_READ), "metricsread"},
		{roleText(identity.AccountAccess_ROLE_UNSPECIFIED), ""},
		{permissionText(identity.NamespaceAccess_PERMISSION_WRITE), "write"},
		{ownerText(identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT), "service-account"},
		{ownerText(identity.OwnerType_OWNER_TYPE_USER), "user"},
		{enumText(operation.AsyncOperation_STATE_IN_PROGRESS, "STATE_"), "in_progress"},
		{c.oldState(resource.ResourceState_RESOURCE_STATE_ACTIVATION_FAILED), "activationfailed"},
		{attributeText(namespace.NamespaceSpec_SEARCH_ATTRIBUTE_TYPE_KEYWORD_LIST), "keyword_list"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("text = %q, want %q", tt.got, tt.want)
		}
	}
}

// TestAccessRoundTrip: every role and permission comes back as it went.
func TestAccessRoundTrip(t *testing.T) {
	t.Parallel()
	c := call{caller: sallyport.Caller{Account: "aaaaa"}}
	for number, name := range identity.AccountAccess_Role_name {
		sent := &identity.AccountAccess{Role: identity.AccountAccess_Role(number)}
		role, err := accountRole("role", sent)
		if err != nil || !proto.Equal(c.accountAccess(role), sent) {
			t.Errorf("%s: %v, %v, want it back", name, c.accountAccess(role), err)
		}
	}
	for number, name := range identity.NamespaceAccess_Permission_name {
		sent := &identity.NamespaceAccess{Permission: identity.NamespaceAccess_Permission(number)}
		p, err := permissionOf("access", sent)
		if got := c.namespaceAccess(p); err != nil || number != 0 && !proto.Equal(got, sent) || number == 0 && got != nil {
			t.Errorf("%s: %v, %v, want it back", name, got, err)
		}
	}
	for number, name := range identity.ProjectAccess_ProjectRole_name {
		sent := &identity.ProjectAccess{Role: identity.ProjectAccess_ProjectRole(number)}
		role, err := projectRole("access", sent)
		if number == 0 {
			continue // required
		}
		if err != nil || !proto.Equal(projectAccess(role), sent) {
			t.Errorf("%s: %v, %v, want it back", name, projectAccess(role), err)
		}
	}
	if got := c.access(directory.Access{}); got.GetAccountAccess().GetRole() != 0 || got.GetNamespaceAccesses() != nil {
		t.Errorf("no access = %v, want the role unspecified and nothing else", got)
	}
}

func FuzzNamespaceName(f *testing.F) {
	f.Add("orders.aaaaa")
	f.Add(".aaaaa")
	f.Add("a.b.aaaaa")
	c := call{caller: sallyport.Caller{Account: "aaaaa"}}
	f.Fuzz(func(t *testing.T, full string) {
		if name, err := c.namespaceName("namespace", full); err == nil && c.fullName(name) != full {
			t.Errorf("namespaceName(%q) = %q", full, name)
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("v0.3.0")
	f.Add("2025-07-09-00")
	f.Add("v..")
	f.Fuzz(func(t *testing.T, s string) {
		if v := parseVersion(s); v != nil && (v[0] < 0 || v[1] < 0 || v[2] < 0) {
			t.Errorf("parseVersion(%q) = %v", s, *v)
		}
	})
}

// FuzzNormalSpec: whatever a client sends, what is stored reads back the same
// and means the same as itself.
func FuzzNormalSpec(f *testing.F) {
	seed, err := proto.Marshal(&namespace.NamespaceSpec{Name: "a", Regions: []string{"r"}, RetentionDays: 1, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		sent := &namespace.NamespaceSpec{}
		if proto.Unmarshal(encoded, sent) != nil {
			return
		}
		spec, err := normalSpec(sent)
		if err != nil {
			if sallyport.KindOf(err) != sallyport.Invalid {
				t.Errorf("normalSpec: %v, want Invalid", err)
			}
			return
		}
		params, err := paramsOf(spec)
		if err != nil {
			return
		}
		back, err := specOf(params)
		if err != nil || !proto.Equal(back, spec) || !sameMeaning(back, spec) {
			t.Errorf("stored spec reads back as %v, %v, want %v", back, err, spec)
		}
	})
}

func TestEnforcement(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		from feed.Enforcement
		want *adminv1.Enforcement
	}{
		{feed.Enforcement{Instance: "i", Authorizer: "sa_x", Cells: []string{"east"}, State: feed.Enforced, EnforcedAt: at, Took: time.Second},
			&adminv1.Enforcement{Instance: "i", AuthorizerId: "sa_x", Cells: []string{"east"}, State: adminv1.Enforcement_STATE_ENFORCED,
				EnforcedTime: timestamppb.New(at), Took: durationpb.New(time.Second)}},
		{feed.Enforcement{Instance: "i", State: feed.Missing}, &adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_MISSING}},
		{feed.Enforcement{Instance: "i", State: feed.Diverged}, &adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_DIVERGED}},
		{feed.Enforcement{Instance: "i", State: feed.Lapsed, MayServeUntil: at},
			&adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_LAPSED, MayServeUntil: timestamppb.New(at)}},
	}
	for _, tt := range tests {
		if got := enforcementOf(tt.from); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.from.State, got, tt.want)
		}
	}
}
