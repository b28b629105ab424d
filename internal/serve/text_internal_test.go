package serve

import (
	"errors"
	"strings"
	"testing"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

func TestCheckText(t *testing.T) {
	t.Parallel()
	access := func(key string, role string) *cloudservice.CreateUserRequest {
		return &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Access: &identity.Access{
			NamespaceAccesses: map[string]*identity.NamespaceAccess{key: {PermissionDeprecated: role}}}}}
	}
	for _, tt := range []struct {
		name  string
		req   proto.Message
		field string // "": nothing is wrong
	}{
		{"nothing", &cloudservice.GetUsersRequest{}, ""},
		{"text", &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{Name: "Größe\t1\r\n日本"}}, ""},
		{"NUL in bytes", &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{MtlsAuth: &namespace.MtlsAuthSpec{AcceptedClientCa: []byte{0}}}}, ""},
		{"as long as possible", &cloudservice.GetUsersRequest{Email: strings.Repeat("x", maxText)}, ""},
		{"too long", &cloudservice.GetUsersRequest{Email: strings.Repeat("x", maxText+1)}, "email"},
		{"NUL", &cloudservice.GetUsersRequest{Email: "a\x00b"}, "email"},
		{"escape", &cloudservice.GetUsersRequest{Email: "a\x1b[31mb"}, "email"},
		{"delete", &cloudservice.GetUsersRequest{Email: "a\x7f"}, "email"},
		{"C1", &cloudservice.GetUsersRequest{Email: "a\u0085"}, "email"},
		{"no UTF-8", &cloudservice.GetUsersRequest{PageToken: "\xff"}, "page_token"},
		{"in a message", &cloudservice.GetUserGroupsRequest{GoogleGroup: &cloudservice.GetUserGroupsRequest_GoogleGroupFilter{EmailAddress: "\x00"}}, "google_group.email_address"},
		{"in a list", &adminv1.CreateApiKeyRequest{Limits: &adminv1.ApiKeyLimits{Sources: []string{"10.0.0.0/8", "\x00"}}}, "limits.sources[1]"},
		{"in a map", access("orders", "\x00"), `spec.access.namespace_accesses["orders"].permission_deprecated`},
		{"in a map's key", access("\x00", ""), "spec.access.namespace_accesses"},
		{"in a map of texts", &cloudservice.CreateNamespaceRequest{Tags: map[string]string{"a": "\x00"}}, `tags["a"]`},
	} {
		err := checkText(tt.req)
		var e *sallyport.Error
		switch {
		case tt.field == "" && err != nil:
			t.Errorf("%s: %v, want nothing", tt.name, err)
		case tt.field != "" && (!errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != tt.field):
			t.Errorf("%s: %v, want Invalid on %s", tt.name, err, tt.field)
		}
	}
}
