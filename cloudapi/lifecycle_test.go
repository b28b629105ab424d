package cloudapi_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sallyport-iam/sallyport"
)

const (
	read      = identity.AccountAccess_ROLE_READ
	developer = identity.AccountAccess_ROLE_DEVELOPER
	admin     = identity.AccountAccess_ROLE_ADMIN
	active    = resource.ResourceState_RESOURCE_STATE_ACTIVE

	readIt  = identity.NamespaceAccess_PERMISSION_READ
	writeIt = identity.NamespaceAccess_PERMISSION_WRITE
	adminIt = identity.NamespaceAccess_PERMISSION_ADMIN
)

func TestUsers(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx, cloud := t.Context(), a.cloud
	orders := a.namespace(t, "orders")

	spec := &identity.UserSpec{Email: "Ann+test@Example.com", Access: roleAccess(read)}
	spec.Access.NamespaceAccesses = map[string]*identity.NamespaceAccess{orders: permission(writeIt)}
	create := &cloudservice.CreateUserRequest{Spec: spec, AsyncOperationId: "create-ann"}
	made := must[*cloudservice.CreateUserResponse](t)(cloud.CreateUser(ctx, create))
	wantFulfilled(t, "CreateUser", made.GetAsyncOperation())
	if got := made.GetAsyncOperation().GetId(); got != "create-ann" {
		t.Errorf("operation id = %q, want the client's", got)
	}
	get := func() *identity.User {
		t.Helper()
		return must[*cloudservice.GetUserResponse](t)(cloud.GetUser(ctx, &cloudservice.GetUserRequest{UserId: made.GetUserId()})).GetUser()
	}
	user := get()
	if diff := cmp.Diff(spec, user.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("spec as read (-sent +got):\n%s", diff)
	}
	if user.GetState() != active || user.GetStateDeprecated() != "" || user.GetInvitation() == nil || user.GetLastModifiedTime() != nil {
		t.Errorf("user = %v, want active, invited, never modified, no deprecated state", user)
	}

	again := must[*cloudservice.CreateUserResponse](t)(cloud.CreateUser(ctx, proto.Clone(create).(*cloudservice.CreateUserRequest)))
	if again.GetUserId() != made.GetUserId() || again.GetAsyncOperation().GetId() != "create-ann" {
		t.Errorf("repetition = %v, want the first answer %v", again, made)
	}
	other := proto.Clone(create).(*cloudservice.CreateUserRequest)
	other.Spec.Email = "other@example.com"
	_, err := cloud.CreateUser(ctx, other)
	wantCode(t, "the id of another request", err, codes.InvalidArgument, "async_operation_id")
	_, err = cloud.CreateUser(ctx, &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Email: "ann+TEST@example.com"}})
	wantCode(t, "the same e-mail again", err, codes.AlreadyExists, "")

	list := must[*cloudservice.GetUsersResponse](t)(cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{Email: "ann+test@example.com"}))
	if diff := cmp.Diff([]*identity.User{user}, list.GetUsers(), protocmp.Transform()); diff != "" {
		t.Errorf("users by e-mail (-want +got):\n%s", diff)
	}
	list = must[*cloudservice.GetUsersResponse](t)(cloud.GetUsers(ctx, &cloudservice.GetUsersRequest{PageSize: 1}))
	if len(list.GetUsers()) != 1 || list.GetNextPageToken() == "" {
		t.Errorf("first page = %v, want one user and a token", list)
	}

	changed := proto.Clone(user.GetSpec()).(*identity.UserSpec)
	changed.Access.AccountAccess.Role = developer
	update := &cloudservice.UpdateUserRequest{UserId: user.GetId(), Spec: changed, ResourceVersion: user.GetResourceVersion()}
	wantFulfilled(t, "UpdateUser", must[*cloudservice.UpdateUserResponse](t)(cloud.UpdateUser(ctx, update)).GetAsyncOperation())
	update = &cloudservice.UpdateUserRequest{UserId: user.GetId(), Spec: changed, ResourceVersion: user.GetResourceVersion()}
	_, err = cloud.UpdateUser(ctx, update)
	wantCode(t, "stale version", err, codes.FailedPrecondition, "resource_version")
	user = get()
	_, err = cloud.UpdateUser(ctx, &cloudservice.UpdateUserRequest{UserId: user.GetId(), Spec: user.GetSpec(), ResourceVersion: user.GetResourceVersion()})
	wantCode(t, "no-op", err, codes.InvalidArgument, "nothing to change")

	_, err = cloud.SetUserNamespaceAccess(ctx, &cloudservice.SetUserNamespaceAccessRequest{Namespace: orders, UserId: user.GetId(), ResourceVersion: user.GetResourceVersion()})
	if err != nil {
		t.Errorf("removing the access: %v", err)
	}
	user = get()
	if n := len(user.GetSpec().GetAccess().GetNamespaceAccesses()); n != 0 {
		t.Errorf("namespace accesses after removal = %d, want 0", n)
	}
	del := &cloudservice.DeleteUserRequest{UserId: user.GetId(), ResourceVersion: user.GetResourceVersion()}
	wantFulfilled(t, "DeleteUser", must[*cloudservice.DeleteUserResponse](t)(cloud.DeleteUser(ctx, del)).GetAsyncOperation())
	_, err = cloud.GetUser(ctx, &cloudservice.GetUserRequest{UserId: user.GetId()})
	wantCode(t, "after delete", err, codes.NotFound, "")
	_, err = cloud.DeleteUser(ctx, &cloudservice.DeleteUserRequest{UserId: user.GetId(), ResourceVersion: user.GetResourceVersion()})
	wantCode(t, "second delete", err, codes.NotFound, "")
}

func TestServiceAccounts(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx, cloud := t.Context(), a.cloud
	orders := a.namespace(t, "orders")
	project := must[*cloudservice.GetProjectsResponse](t)(cloud.GetProjects(ctx, &cloudservice.GetProjectsRequest{})).GetProjects()[0].GetId()
	specs := []*identity.ServiceAccountSpec{
		{Name: "account-wide", Description: "does it all", Access: &identity.Access{AccountAccess: &identity.AccountAccess{Role: developer},
			NamespaceAccesses: map[string]*identity.NamespaceAccess{orders: permission(readIt)}}},
		{Name: "one-namespace", NamespaceScopedAccess: &identity.NamespaceScopedAccess{Namespace: orders, Access: permission(writeIt)}},
		{Name: "one-project", ProjectScopedAccess: &identity.ProjectScopedAccess{ProjectId: project,
			Access: &identity.ProjectAccess{Role: identity.ProjectAccess_PROJECT_ROLE_WRITE}}},
	}
	for _, spec := range specs {
		made := must[*cloudservice.CreateServiceAccountResponse](t)(cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{Spec: spec}))
		wantFulfilled(t, "CreateServiceAccount", made.GetAsyncOperation())
		id := made.GetServiceAccountId()
		got := must[*cloudservice.GetServiceAccountResponse](t)(cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: id})).GetServiceAccount()
		if diff := cmp.Diff(spec, got.GetSpec(), protocmp.Transform()); diff != "" || got.GetState() != active {
			t.Errorf("%s as read, state %v (-sent +got):\n%s", spec.GetName(), got.GetState(), diff)
		}
		_, err := cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{Spec: spec})
		wantCode(t, "the same name again", err, codes.AlreadyExists, "")
		_, err = cloud.UpdateServiceAccount(ctx, &cloudservice.UpdateServiceAccountRequest{ServiceAccountId: id, Spec: got.GetSpec(), ResourceVersion: got.GetResourceVersion()})
		wantCode(t, "no-op", err, codes.InvalidArgument, "nothing to change")
		spec.Description = "another"
		if _, err := cloud.UpdateServiceAccount(ctx, &cloudservice.UpdateServiceAccountRequest{ServiceAccountId: id, Spec: spec, ResourceVersion: got.GetResourceVersion()}); err != nil {
			t.Errorf("updating %s: %v", spec.GetName(), err)
		}
	}
	list := must[*cloudservice.GetServiceAccountsResponse](t)(cloud.GetServiceAccounts(ctx, &cloudservice.GetServiceAccountsRequest{})).GetServiceAccount()
	if len(list) != len(specs) {
		t.Errorf("listed %d service accounts, want %d", len(list), len(specs))
	}
	for _, sa := range list {
		if sa.GetSpec().GetAccess() != nil {
			_, err := cloud.SetServiceAccountNamespaceAccess(ctx, &cloudservice.SetServiceAccountNamespaceAccessRequest{
				ServiceAccountId: sa.GetId(), Namespace: orders, Access: permission(adminIt), ResourceVersion: sa.GetResourceVersion()})
			if err != nil {
				t.Errorf("SetServiceAccountNamespaceAccess: %v", err)
			}
			continue
		}
		if _, err := cloud.DeleteServiceAccount(ctx, &cloudservice.DeleteServiceAccountRequest{ServiceAccountId: sa.GetId(), ResourceVersion: sa.GetResourceVersion()}); err != nil {
			t.Errorf("DeleteServiceAccount: %v", err)
		}
		_, err := cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: sa.GetId()})
		wantCode(t, "after delete", err, codes.NotFound, "")
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx, cloud := t.Context(), a.cloud
	account := a.serviceAccount(t, read)
	spec := keySpec(account)
	create := &cloudservice.CreateApiKeyRequest{Spec: spec, AsyncOperationId: "make-key"}
	made := must[*cloudservice.CreateApiKeyResponse](t)(cloud.CreateApiKey(ctx, create))
	wantFulfilled(t, "CreateApiKey", made.GetAsyncOperation())
	get := func() *identity.ApiKey {
		t.Helper()
		return must[*cloudservice.GetApiKeyResponse](t)(cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: made.GetKeyId()})).GetApiKey()
	}
	key := get()
	if diff := cmp.Diff(spec, key.GetSpec(), protocmp.Transform()); diff != "" || key.GetState() != active {
		t.Errorf("key as read, state %v (-sent +got):\n%s", key.GetState(), diff)
	}
	_, err := cloud.CreateApiKey(ctx, create)
	wantCode(t, "repetition", err, codes.AlreadyExists, "")

	bearer := w.client(t, made.GetToken(), "").CloudService()
	who := must[*cloudservice.GetCurrentIdentityResponse](t)(bearer.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}))
	if who.GetServiceAccount().GetId() != account || who.GetPrincipalApiKey().GetId() != made.GetKeyId() {
		t.Errorf("identity = %v, want service account %s by key %s", who, account, made.GetKeyId())
	}
	me := must[*cloudservice.GetCurrentIdentityResponse](t)(cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}))
	if me.GetUser().GetId() != a.owner {
		t.Errorf("identity = %v, want user %s", me, a.owner)
	}

	set := func(disabled bool) {
		t.Helper()
		key := get()
		next := proto.Clone(key.GetSpec()).(*identity.ApiKeySpec)
		next.Disabled = disabled
		resp := must[*cloudservice.UpdateApiKeyResponse](t)(cloud.UpdateApiKey(ctx, &cloudservice.UpdateApiKeyRequest{KeyId: key.GetId(), Spec: next, ResourceVersion: key.GetResourceVersion()}))
		wantFulfilled(t, "UpdateApiKey", resp.GetAsyncOperation())
	}
	set(true)
	if key := get(); key.GetState() != active || !key.GetSpec().GetDisabled() {
		t.Errorf("disabled key = %v, want state active and spec.disabled", key)
	}
	_, err = bearer.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "with a disabled key", err, codes.Unauthenticated, "disabled")
	set(false)
	if _, err := bearer.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}); err != nil {
		t.Errorf("with the key enabled again: %v", err)
	}
	list := must[*cloudservice.GetApiKeysResponse](t)(cloud.GetApiKeys(ctx, &cloudservice.GetApiKeysRequest{OwnerId: account, OwnerType: identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT}))
	if len(list.GetApiKeys()) != 1 {
		t.Errorf("keys of the service account = %v, want one", list)
	}
	key = get()
	wantFulfilled(t, "DeleteApiKey", must[*cloudservice.DeleteApiKeyResponse](t)(cloud.DeleteApiKey(ctx, &cloudservice.DeleteApiKeyRequest{KeyId: key.GetId(), ResourceVersion: key.GetResourceVersion()})).GetAsyncOperation())
	_, err = bearer.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "with a deleted key", err, codes.Unauthenticated, "")
	_, err = cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: key.GetId()})
	wantCode(t, "after delete", err, codes.NotFound, "")
}

func TestGroups(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx, cloud := t.Context(), a.cloud
	orders := a.namespace(t, "orders")
	user := a.user(t, read)
	specs := []*identity.UserGroupSpec{
		{DisplayName: "team-a", GroupType: &identity.UserGroupSpec_CloudGroup{CloudGroup: &identity.CloudGroupSpec{}},
			Access: &identity.Access{AccountAccess: &identity.AccountAccess{Role: developer}, NamespaceAccesses: map[string]*identity.NamespaceAccess{orders: permission(writeIt)}}},
		{DisplayName: "team-b", GroupType: &identity.UserGroupSpec_GoogleGroup{GoogleGroup: &identity.GoogleGroupSpec{EmailAddress: "b@example.com"}},
			Access: &identity.Access{AccountAccess: &identity.AccountAccess{}}},
	}
	for _, spec := range specs {
		made := must[*cloudservice.CreateUserGroupResponse](t)(cloud.CreateUserGroup(ctx, &cloudservice.CreateUserGroupRequest{Spec: spec}))
		wantFulfilled(t, "CreateUserGroup", made.GetAsyncOperation())
		got := must[*cloudservice.GetUserGroupResponse](t)(cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: made.GetGroupId()})).GetGroup()
		if diff := cmp.Diff(spec, got.GetSpec(), protocmp.Transform()); diff != "" || got.GetState() != active {
			t.Errorf("%s as read, state %v (-sent +got):\n%s", spec.GetDisplayName(), got.GetState(), diff)
		}
	}
	list := must[*cloudservice.GetUserGroupsResponse](t)(cloud.GetUserGroups(ctx, &cloudservice.GetUserGroupsRequest{DisplayName: "team-a"})).GetGroups()
	if len(list) != 1 {
		t.Fatalf("groups named team-a = %v, want one", list)
	}
	group := list[0]
	member := &identity.UserGroupMemberId{MemberType: &identity.UserGroupMemberId_UserId{UserId: user}}
	wantFulfilled(t, "AddUserGroupMember", must[*cloudservice.AddUserGroupMemberResponse](t)(cloud.AddUserGroupMember(ctx, &cloudservice.AddUserGroupMemberRequest{GroupId: group.GetId(), MemberId: member})).GetAsyncOperation())
	members := must[*cloudservice.GetUserGroupMembersResponse](t)(cloud.GetUserGroupMembers(ctx, &cloudservice.GetUserGroupMembersRequest{GroupId: group.GetId()})).GetMembers()
	if len(members) != 1 || members[0].GetMemberId().GetUserId() != user || members[0].GetCreatedTime() == nil {
		t.Errorf("members = %v, want %s", members, user)
	}
	wantFulfilled(t, "RemoveUserGroupMember", must[*cloudservice.RemoveUserGroupMemberResponse](t)(cloud.RemoveUserGroupMember(ctx, &cloudservice.RemoveUserGroupMemberRequest{GroupId: group.GetId(), MemberId: member})).GetAsyncOperation())

	group = must[*cloudservice.GetUserGroupResponse](t)(cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: group.GetId()})).GetGroup()
	next := proto.Clone(group.GetSpec()).(*identity.UserGroupSpec)
	next.Access = &identity.Access{} // as the Terraform provider takes all access
	update := &cloudservice.UpdateUserGroupRequest{GroupId: group.GetId(), Spec: next, ResourceVersion: group.GetResourceVersion()}
	wantFulfilled(t, "UpdateUserGroup", must[*cloudservice.UpdateUserGroupResponse](t)(cloud.UpdateUserGroup(ctx, update)).GetAsyncOperation())
	group = must[*cloudservice.GetUserGroupResponse](t)(cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: group.GetId()})).GetGroup()
	_, err := cloud.UpdateUserGroup(ctx, &cloudservice.UpdateUserGroupRequest{GroupId: group.GetId(), Spec: group.GetSpec(), ResourceVersion: group.GetResourceVersion()})
	wantCode(t, "no-op", err, codes.InvalidArgument, "nothing to change")
	set := &cloudservice.SetUserGroupNamespaceAccessRequest{GroupId: group.GetId(), Namespace: orders, Access: permission(readIt), ResourceVersion: group.GetResourceVersion()}
	wantFulfilled(t, "SetUserGroupNamespaceAccess", must[*cloudservice.SetUserGroupNamespaceAccessResponse](t)(cloud.SetUserGroupNamespaceAccess(ctx, set)).GetAsyncOperation())
	group = must[*cloudservice.GetUserGroupResponse](t)(cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: group.GetId()})).GetGroup()
	wantFulfilled(t, "DeleteUserGroup", must[*cloudservice.DeleteUserGroupResponse](t)(cloud.DeleteUserGroup(ctx, &cloudservice.DeleteUserGroupRequest{GroupId: group.GetId(), ResourceVersion: group.GetResourceVersion()})).GetAsyncOperation())
	_, err = cloud.GetUserGroup(ctx, &cloudservice.GetUserGroupRequest{GroupId: group.GetId()})
	wantCode(t, "after delete", err, codes.NotFound, "")
}

func TestAssignments(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx, cloud := t.Context(), a.cloud
	orders := a.namespace(t, "orders")
	account := a.serviceAccount(t, read)
	sa := must[*cloudservice.GetServiceAccountResponse](t)(cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account})).GetServiceAccount()
	must[*cloudservice.SetServiceAccountNamespaceAccessResponse](t)(cloud.SetServiceAccountNamespaceAccess(ctx, &cloudservice.SetServiceAccountNamespaceAccessRequest{
		ServiceAccountId: account, Namespace: orders, Access: permission(writeIt), ResourceVersion: sa.GetResourceVersion()}))
	must[*cloudservice.CreateUserGroupResponse](t)(cloud.CreateUserGroup(ctx, &cloudservice.CreateUserGroupRequest{Spec: &identity.UserGroupSpec{
		DisplayName: "team-a", GroupType: &identity.UserGroupSpec_CloudGroup{CloudGroup: &identity.CloudGroupSpec{}},
		Access: &identity.Access{NamespaceAccesses: map[string]*identity.NamespaceAccess{orders: permission(readIt)}}}}))

	users := must[*cloudservice.GetUserNamespaceAssignmentsResponse](t)(cloud.GetUserNamespaceAssignments(ctx, &cloudservice.GetUserNamespaceAssignmentsRequest{Namespace: orders})).GetUsers()
	if len(users) != 1 || users[0].GetId() != a.owner || !users[0].GetInheritedAccess() || users[0].GetNamespaceAccess() != nil {
		t.Errorf("users = %v, want the owner by inheritance", users)
	}
	accounts := must[*cloudservice.GetServiceAccountNamespaceAssignmentsResponse](t)(cloud.GetServiceAccountNamespaceAssignments(ctx, &cloudservice.GetServiceAccountNamespaceAssignmentsRequest{Namespace: orders})).GetServiceAccounts()
	if len(accounts) != 1 || accounts[0].GetId() != account || accounts[0].GetInheritedAccess() || accounts[0].GetNamespaceAccess().GetPermission() != writeIt {
		t.Errorf("service accounts = %v, want %s with write", accounts, account)
	}
	groups := must[*cloudservice.GetUserGroupNamespaceAssignmentsResponse](t)(cloud.GetUserGroupNamespaceAssignments(ctx, &cloudservice.GetUserGroupNamespaceAssignmentsRequest{Namespace: orders})).GetGroups()
	if len(groups) != 1 || groups[0].GetDisplayName() != "team-a" || groups[0].GetNamespaceAccess().GetPermission() != readIt {
		t.Errorf("groups = %v, want team-a with read", groups)
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	enforced := make(chan bool, 10)
	w.enforced = func(sallyport.AccountID, int64) (bool, error) { return <-enforced, nil }
	for range 4 {
		enforced <- false
	}
	a := w.tenant(t)
	ctx := t.Context()
	made := must[*cloudservice.CreateServiceAccountResponse](t)(a.cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{
		Spec: &identity.ServiceAccountSpec{Name: "worker", Access: roleAccess(read)}}))
	start := time.Now()
	op := made.GetAsyncOperation()
	if op.GetState() != operation.AsyncOperation_STATE_IN_PROGRESS || op.GetCheckDuration().AsDuration() <= 0 || op.GetOperationType() != "CreateServiceAccount" {
		t.Errorf("operation = %v, want in progress with a check_duration", op)
	}
	poll := func() *operation.AsyncOperation {
		t.Helper()
		return must[*cloudservice.GetAsyncOperationResponse](t)(a.cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: op.GetId()})).GetAsyncOperation()
	}
	if got := poll().GetState(); got != operation.AsyncOperation_STATE_IN_PROGRESS && time.Since(start) < 500*time.Millisecond {
		t.Errorf("state = %v before anybody enforces it, want in progress", got)
	}
	time.Sleep(time.Until(start.Add(1100 * time.Millisecond)))
	wantFulfilled(t, "after a second", poll())
	_, err := a.cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: "nothing"})
	wantCode(t, "unknown operation", err, codes.NotFound, "")
}

func TestAccountAndRegions(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	account := must[*cloudservice.GetAccountResponse](t)(a.cloud.GetAccount(ctx, &cloudservice.GetAccountRequest{})).GetAccount()
	if account.GetId() != string(a.account) || account.GetState() != active || account.GetResourceVersion() == "" {
		t.Errorf("account = %v, want %s, active, with a version", account, a.account)
	}
	regions := must[*cloudservice.GetRegionsResponse](t)(a.cloud.GetRegions(ctx, &cloudservice.GetRegionsRequest{})).GetRegions()
	var ids []string
	for _, r := range regions {
		if r.GetCloudProvider() == 0 || r.GetLocation() == "" {
			t.Errorf("region = %v, want a provider and a location", r)
		}
		ids = append(ids, r.GetId())
	}
	if diff := cmp.Diff([]string{"aws-us-east-1", "azure-centralus"}, ids); diff != "" {
		t.Errorf("regions (-want +got):\n%s", diff)
	}
	_, err := a.cloud.GetRegion(ctx, &cloudservice.GetRegionRequest{Region: "aws-us-fake-99"})
	wantCode(t, "unknown region", err, codes.NotFound, "")
	_, err = a.cloud.GetNexusEndpoints(ctx, &cloudservice.GetNexusEndpointsRequest{})
	wantCode(t, "what we do not have", err, codes.Unimplemented, "")
}

func createAnn() *cloudservice.CreateUserRequest {
	return &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{Email: "ann@example.com", Access: roleAccess(read)}}
}

// TestRepeatedAtOnce: a request that is sent many times at once is carried out once.
func TestRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer)
	for range 8 {
		go func() {
			r := createAnn()
			r.AsyncOperationId = "only-once"
			resp, err := a.cloud.CreateUser(t.Context(), r)
			answers <- answer{resp.GetUserId(), err}
		}()
	}
	ids := map[string]bool{}
	for range 8 {
		got := <-answers
		if got.err != nil {
			t.Error(got.err)
		}
		ids[got.id] = true
	}
	if len(ids) != 1 {
		t.Errorf("user ids = %v, want one", ids)
	}
	users := must[*cloudservice.GetUsersResponse](t)(a.cloud.GetUsers(t.Context(), &cloudservice.GetUsersRequest{})).GetUsers()
	if len(users) != 2 {
		t.Errorf("the account has %d users, want the owner and one", len(users))
	}
}
