package cloudapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// victim is an account with one of everything, and what is known of it.
type victim struct {
	*tenant
	t      *testing.T
	values map[string]string // what a request's field of that name is filled with
}

func newVictim(t *testing.T, w *world) victim {
	t.Helper()
	a := w.tenant(t)
	ctx := t.Context()
	project := must[*cloudservice.GetProjectsResponse](t)(a.cloud.GetProjects(ctx, &cloudservice.GetProjectsRequest{})).GetProjects()[0]
	account := a.serviceAccount(t, read)
	key, _ := a.keyOf(t, account)
	group := must[*cloudservice.CreateUserGroupResponse](t)(a.cloud.CreateUserGroup(ctx, &cloudservice.CreateUserGroupRequest{AsyncOperationId: "op-of-victim",
		Spec: &identity.UserGroupSpec{DisplayName: "team-of-victim", GroupType: &identity.UserGroupSpec_CloudGroup{CloudGroup: &identity.CloudGroupSpec{}}}}))
	user := a.user(t, read)
	full := a.namespace(t, "secret-orders")
	issued := a.certificate(t, account)
	filter := must[*adminv1.ListCertificateFiltersResponse](t)(a.admin.ListCertificateFilters(ctx, &adminv1.ListCertificateFiltersRequest{Namespace: a.mtlsNamespace(t, "secret-mtls", ca(t, "secret-ca", time.Now().Add(time.Hour)))})).GetFilters()[0]
	rule := must[*adminv1.CreateFederationRuleResponse](t)(a.admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{Spec: ruleSpec(account, "https://secret.example.com")}))
	return victim{a, t, map[string]string{
		"rule_id":        rule.GetFederationRule().GetId(),
		"certificate_id": issued.GetCertificate().GetId(), "filter_id": filter.GetId(),
		"user_id": user, "service_account_id": account, "key_id": key, "group_id": group.GetGroupId(), "namespace": full,
		"project_id": project.GetId(), "async_operation_id": "op-of-victim", "owner_id": account, "resource_version": "1",
		"region": "aws-us-east-1", "method": "/temporal.api.workflowservice.v1.WorkflowService/ListWorkflowExecutions",
	}}
}

// request fills a request with the victim's ids, and its spec with a good one.
func (v victim) request(message protoreflect.MessageDescriptor) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
	if err != nil {
		return nil, err
	}
	r := kind.New().Interface()
	switch r := r.(type) {
	case *cloudservice.CreateUserRequest:
		r.Spec = v.userSpec()
	case *cloudservice.UpdateUserRequest:
		r.Spec = v.userSpec()
	case *cloudservice.CreateServiceAccountRequest:
		r.Spec = v.serviceAccountSpec()
	case *cloudservice.UpdateServiceAccountRequest:
		r.Spec = v.serviceAccountSpec()
	case *cloudservice.CreateApiKeyRequest:
		r.Spec = keySpec(v.values["service_account_id"])
	case *adminv1.CreateApiKeyRequest:
		r.Spec = &adminv1.ApiKeySpec{OwnerId: v.values["service_account_id"], DisplayName: "mallory", ExpiryTime: keySpec("").GetExpiryTime()}
	case *cloudservice.UpdateApiKeyRequest:
		r.Spec = keySpec(v.values["service_account_id"])
	case *cloudservice.CreateUserGroupRequest:
		r.Spec = v.groupSpec()
	case *cloudservice.UpdateUserGroupRequest:
		r.Spec = v.groupSpec()
	case *cloudservice.CreateNamespaceRequest:
		r.Spec = namespaceSpec()
	case *cloudservice.UpdateNamespaceRequest:
		r.Spec = namespaceSpec()
	case *adminv1.IssueCertificateRequest:
		r.Csr = csr(v.t)
	case *adminv1.RenewCertificateRequest:
		r.Csr = csr(v.t)
	case *adminv1.AddCertificateFilterRequest:
		r.Filter = &adminv1.CertificateFilter{CommonName: "mallory"}
	case *adminv1.AddClientCasRequest:
		r.Certificates = ca(v.t, "mallory", time.Now().Add(time.Hour))
	case *adminv1.RemoveClientCasRequest:
		r.Fingerprints = []string{strings.Repeat("0", 64)}
	case *adminv1.CreateFederationRuleRequest:
		r.Spec = ruleSpec(v.values["service_account_id"], "https://mallory.example.com")
	case *adminv1.UpdateFederationRuleRequest:
		r.Spec = ruleSpec(v.values["service_account_id"], "https://mallory.example.com")
	case *adminv1.TestFederationRequest:
		r.Token = "ey.a.b"
	case *cloudservice.AddUserGroupMemberRequest:
		r.MemberId = &identity.UserGroupMemberId{MemberType: &identity.UserGroupMemberId_UserId{UserId: v.values["user_id"]}}
	case *cloudservice.RemoveUserGroupMemberRequest:
		r.MemberId = &identity.UserGroupMemberId{MemberType: &identity.UserGroupMemberId_UserId{UserId: v.values["user_id"]}}
	}
	fields := message.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value, ok := v.values[string(f.Name())]
		mutates := f.Name() == "async_operation_id" && (fields.ByName("spec") != nil || fields.ByName("resource_version") != nil || fields.ByName("member_id") != nil || fields.ByName("overlap") != nil)
		if ok && !mutates && f.Kind() == protoreflect.StringKind && !f.IsList() {
			r.ProtoReflect().Set(f, protoreflect.ValueOfString(value))
		}
	}
	return r, nil
}

func (v victim) access() *identity.Access {
	return &identity.Access{AccountAccess: &identity.AccountAccess{Role: read}, NamespaceAccesses: map[string]*identity.NamespaceAccess{v.values["namespace"]: permission(readIt)}}
}

func (v victim) userSpec() *identity.UserSpec {
	return &identity.UserSpec{Email: "mallory@example.com", Access: v.access()}
}

func (v victim) serviceAccountSpec() *identity.ServiceAccountSpec {
	return &identity.ServiceAccountSpec{Name: "mallory", Access: v.access()}
}

func (v victim) groupSpec() *identity.UserGroupSpec {
	return &identity.UserGroupSpec{DisplayName: "mallory", GroupType: &identity.UserGroupSpec_CloudGroup{CloudGroup: &identity.CloudGroupSpec{}}, Access: v.access()}
}

func namespaceSpec() *namespace.NamespaceSpec {
	return &namespace.NamespaceSpec{Name: "mallory", Regions: []string{"aws-us-east-1"}, RetentionDays: 1}
}

// state is all that the victim's owner can see, for comparing.
func (v victim) state(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	var b strings.Builder
	for _, m := range []proto.Message{
		must[*cloudservice.GetUsersResponse](t)(v.cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{})),
		must[*cloudservice.GetServiceAccountsResponse](t)(v.cloud.GetServiceAccounts(ctx, &cloudservice.GetServiceAccountsRequest{})),
		must[*cloudservice.GetUserGroupsResponse](t)(v.cloud.GetUserGroups(ctx, &cloudservice.GetUserGroupsRequest{})),
		must[*cloudservice.GetApiKeysResponse](t)(v.cloud.GetApiKeys(ctx, &cloudservice.GetApiKeysRequest{})),
		must[*cloudservice.GetNamespacesResponse](t)(v.cloud.GetNamespaces(ctx, &cloudservice.GetNamespacesRequest{})),
		must[*cloudservice.GetAccountResponse](t)(v.cloud.GetAccount(ctx, &cloudservice.GetAccountRequest{})),
		must[*adminv1.ListCertificatesResponse](t)(v.admin.ListCertificates(ctx, &adminv1.ListCertificatesRequest{})),
		must[*adminv1.ListFederationRulesResponse](t)(v.admin.ListFederationRules(ctx, &adminv1.ListFederationRulesRequest{})),
		must[*adminv1.ListRevocationsResponse](t)(v.admin.ListRevocations(ctx, &adminv1.ListRevocationsRequest{})),
		must[*adminv1.ListCertificateFiltersResponse](t)(v.admin.ListCertificateFilters(ctx, &adminv1.ListCertificateFiltersRequest{Namespace: "secret-mtls." + string(v.account)})),
		must[*adminv1.ListClientCasResponse](t)(v.admin.ListClientCas(ctx, &adminv1.ListClientCasRequest{Namespace: "secret-mtls." + string(v.account)})),
	} {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

// open methods answer every caller, about himself or about nobody.
var open = map[string]bool{"GetCurrentIdentity": true, "GetAccount": true, "GetRegions": true, "GetRegion": true,
	"GetUsers": true, "GetServiceAccounts": true, "GetUserGroups": true, "GetNamespaces": true, "GetProjects": true, "GetApiKeys": true,
	"ListAuditEntries": true, "ListApiKeys": true, "Explain": true, "ListServiceAccounts": true, "ListCertificates": true, "ListIssuers": true, "ListRevocations": true}

// TestTenantIsolation walks every method of the server with the owner of
// another account, and with somebody of the account who holds nothing in it,
// filling requests with the victim's ids.
func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := newVictim(t, w)
	intruder := w.tenant(t)
	before := v.state(t)
	implemented := 0
	for _, desc := range []grpc.ServiceDesc{cloudservice.CloudService_ServiceDesc, adminv1.AdminService_ServiceDesc} {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
		if err != nil {
			t.Fatal(err)
		}
		service := found.(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			req, err := v.request(method.Input())
			if err != nil {
				t.Fatal(err)
			}
			full := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
			answer, err := w.invoke(t, intruder.token, full, req, method.Output())
			if status.Code(err) == codes.Unimplemented {
				continue
			}
			implemented++
			name := string(method.Name())
			if code := status.Code(err); code != codes.NotFound && code != codes.PermissionDenied && !open[name] && !namesForeign(name, err) && !makesOwn(name, err) {
				t.Errorf("%s with another account's ids: %v, %v; want NotFound or PermissionDenied", name, answer, err)
			}
			v.checkLeaks(t, name, req, answer, err)
			if _, err := w.invoke(t, "", full, req, method.Output()); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s without a key: %v, want Unauthenticated", name, err)
			}
		}
	}
	if implemented < 72 {
		t.Errorf("walked %d implemented methods, want all 72 or more", implemented)
	}
	if v.state(t) != before {
		t.Error("the victim's account changed")
	}
}

// namesForeign: making something for a foreign thing may also be Invalid.
func namesForeign(method string, err error) bool {
	return status.Code(err) == codes.InvalidArgument && (method == "CreateNamespace" || method == "CreateApiKey")
}

// makesOwn: what was made is in the intruder's own account.
func makesOwn(method string, err error) bool {
	return err == nil && method == "CreateNamespace"
}

// checkLeaks looks for what the victim's owner knows and the request did not say.
func (v victim) checkLeaks(t *testing.T, method string, req, answer proto.Message, err error) {
	t.Helper()
	text := fmt.Sprint(err)
	if err == nil {
		text = protojson.Format(answer)
	}
	sent := protojson.Format(req)
	for field, value := range v.values {
		if field == "region" || field == "resource_version" || field == "method" || strings.Contains(sent, value) {
			continue
		}
		if strings.Contains(text, value) {
			t.Errorf("%s tells the victim's %s: %s", method, field, text)
		}
	}
	for _, secret := range []string{"team-of-victim", "secret-orders", "secret-mtls", "secret-ca", "secret.example"} {
		if strings.Contains(text, secret) && !strings.Contains(sent, secret) {
			t.Errorf("%s tells %q: %s", method, secret, text)
		}
	}
}

func (w *world) invoke(t *testing.T, token, method string, req proto.Message, output protoreflect.MessageDescriptor) (proto.Message, error) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(output.FullName())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(w.roots, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	answer := kind.New().Interface()
	return answer, conn.Invoke(ctx, method, req, answer)
}

// TestNoAccess: a service account of the account that holds nothing in it
// learns nothing, not even who it is.
func TestNoAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := newVictim(t, w)
	_, token := v.keyOf(t, v.serviceAccount(t, identity.AccountAccess_ROLE_UNSPECIFIED))
	before := v.state(t)
	for _, name := range []string{cloudservice.CloudService_ServiceDesc.ServiceName, adminv1.AdminService_ServiceDesc.ServiceName} {
		service := must[protoreflect.Descriptor](t)(protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))).(protoreflect.ServiceDescriptor)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			req, err := v.request(method.Input())
			if err != nil {
				t.Fatal(err)
			}
			answer, err := w.invoke(t, token, fmt.Sprintf("/%s/%s", service.FullName(), method.Name()), req, method.Output())
			switch status.Code(err) {
			case codes.Unimplemented, codes.NotFound, codes.PermissionDenied:
			default:
				t.Errorf("%s by somebody without access: %v, %v; want NotFound or PermissionDenied", method.Name(), answer, err)
			}
		}
	}
	if v.state(t) != before {
		t.Error("the account changed")
	}
}

// TestRevokedAdmin: what an admin has under way when his role is taken does
// not land afterwards.
func TestRevokedAdmin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := context.Background()
	account := a.serviceAccount(t, admin)
	_, token := a.keyOf(t, account)
	demoted := w.client(t, token, "").CloudService()
	sa := must[*cloudservice.GetServiceAccountResponse](t)(a.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account})).GetServiceAccount()
	spec := proto.Clone(sa.GetSpec()).(*identity.ServiceAccountSpec)
	spec.Access = roleAccess(read)

	type outcome struct {
		made []string
		err  error
	}
	outcomes := make(chan outcome)
	for worker := range 4 {
		go func() {
			var o outcome
			for i := range 200 {
				email := fmt.Sprintf("race-%d-%d@example.com", worker, i)
				resp, err := demoted.CreateUser(ctx, &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Email: email}})
				if o.err = err; err != nil {
					break
				}
				o.made = append(o.made, resp.GetUserId())
			}
			outcomes <- o
		}()
	}
	_, err := a.cloud.UpdateServiceAccount(ctx, &cloudservice.UpdateServiceAccountRequest{ServiceAccountId: account, Spec: spec, ResourceVersion: sa.GetResourceVersion(), AsyncOperationId: "demote"})
	if err != nil {
		t.Fatal(err)
	}
	demotion := must[*cloudservice.GetServiceAccountResponse](t)(a.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account})).GetServiceAccount()
	for range 4 {
		o := <-outcomes
		wantCode(t, "after the demotion", o.err, codes.PermissionDenied, "")
		for _, id := range o.made {
			user := must[*cloudservice.GetUserResponse](t)(a.cloud.GetUser(ctx, &cloudservice.GetUserRequest{UserId: id})).GetUser()
			if number(t, user.GetResourceVersion()) > number(t, demotion.GetResourceVersion()) {
				t.Errorf("user %s was made at revision %s, after the demotion at %s", id, user.GetResourceVersion(), demotion.GetResourceVersion())
			}
		}
	}
}

func number(t *testing.T, version string) int64 {
	t.Helper()
	var n int64
	if _, err := fmt.Sscan(version, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
