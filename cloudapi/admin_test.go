package cloudapi_test

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

const (
	startWorkflow = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"
	listWorkflows = "/temporal.api.workflowservice.v1.WorkflowService/ListWorkflowExecutions"
)

func TestRotate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	key, token := a.keyOf(t, account)
	rotated := must[*adminv1.RotateApiKeyResponse](t)(a.admin.RotateApiKey(ctx, &adminv1.RotateApiKeyRequest{KeyId: key, Overlap: durationpb.New(time.Hour), AsyncOperationId: "rotate"}))
	if rotated.GetKeyId() == key || rotated.GetToken() == "" || rotated.GetAsyncOperationId() != "rotate" || time.Until(rotated.GetOldKeyRetiresTime().AsTime()) > time.Hour {
		t.Errorf("rotation = %v", rotated.GetKeyId())
	}
	for _, bearer := range []string{token, rotated.GetToken()} {
		if _, err := w.client(t, bearer, "").CloudService().GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}); err != nil {
			t.Errorf("within the overlap: %v", err)
		}
	}
	_, err := a.admin.RotateApiKey(ctx, &adminv1.RotateApiKeyRequest{KeyId: key, Overlap: durationpb.New(time.Hour), AsyncOperationId: "rotate"})
	wantCode(t, "repetition", err, codes.AlreadyExists, "")
	// The service account rotates its own key, at once.
	own := w.as(t, a.account, account, rotated.GetToken())
	last := must[*adminv1.RotateApiKeyResponse](t)(own.admin.RotateApiKey(ctx, &adminv1.RotateApiKeyRequest{KeyId: rotated.GetKeyId()}))
	_, err = own.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "with the retired key", err, codes.Unauthenticated, "")
	if _, err := w.client(t, last.GetToken(), "").CloudService().GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}); err != nil {
		t.Errorf("with the newest key: %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.tenant(t), w.tenant(t)
	ctx := t.Context()
	orders := a.namespace(t, "orders")
	account := a.serviceAccount(t, read)
	sa := must[*cloudservice.GetServiceAccountResponse](t)(a.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account})).GetServiceAccount()
	must[*cloudservice.SetServiceAccountNamespaceAccessResponse](t)(a.cloud.SetServiceAccountNamespaceAccess(ctx, &cloudservice.SetServiceAccountNamespaceAccessRequest{
		ServiceAccountId: account, Namespace: orders, Access: permission(readIt), ResourceVersion: sa.GetResourceVersion()}))
	key, token := a.keyOf(t, account)
	ask := func(r *adminv1.ExplainRequest) *adminv1.ExplainResponse {
		t.Helper()
		return must[*adminv1.ExplainResponse](t)(a.admin.Explain(ctx, r))
	}
	got := ask(&adminv1.ExplainRequest{KeyId: key, Method: listWorkflows, Namespace: orders})
	if !got.GetAllowed() || got.GetPrincipalId() != account || got.GetGrant().GetRole() != "read" || got.GetGrant().GetSubject() != account || got.GetUntil() == nil {
		t.Errorf("listing = %v, want allowed by the grant read", got)
	}
	for _, r := range []*adminv1.ExplainRequest{{KeyId: key, Method: startWorkflow, Namespace: orders}, {Token: token, Method: startWorkflow, Namespace: orders}} {
		if got := ask(r); got.GetAllowed() || got.GetKind() != "permission denied" || got.GetReason() == "" {
			t.Errorf("starting = %v, want permission denied with a reason", got)
		}
	}
	mistyped := strings.Replace(token, token[len(token)-9:len(token)-8], "~", 1)
	if got := ask(&adminv1.ExplainRequest{Token: mistyped, Method: listWorkflows, Namespace: orders}); got.GetAllowed() || got.GetKind() != "unauthenticated" || got.GetPrincipalId() != "" {
		t.Errorf("mistyped token = %v, want unauthenticated, nobody named", got)
	}
	if got := must[*adminv1.ExplainResponse](t)(other.admin.Explain(ctx, &adminv1.ExplainRequest{Token: token, Method: listWorkflows, Namespace: orders})); got.GetAllowed() || got.GetPrincipalId() != "" {
		t.Errorf("another account's token = %v, want unauthenticated, nobody named", got)
	}
	_, err := other.admin.Explain(ctx, &adminv1.ExplainRequest{KeyId: key, Method: listWorkflows, Namespace: orders})
	wantCode(t, "another account's key", err, codes.NotFound, "")
	self := w.as(t, a.account, account, token)
	if got := must[*adminv1.ExplainResponse](t)(self.admin.Explain(ctx, &adminv1.ExplainRequest{KeyId: key, Method: listWorkflows, Namespace: orders})); !got.GetAllowed() {
		t.Errorf("asking about one's own key = %v, want allowed", got)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx := t.Context()
	user := must[*cloudservice.CreateUserResponse](t)(a.cloud.CreateUser(ctx, createAnn()))
	account := a.serviceAccount(t, developer)
	_, token := a.keyOf(t, account)
	var entries []*adminv1.AuditEntry
	for after := int64(0); ; after = entries[len(entries)-1].GetHead().GetRevision() {
		page := must[*adminv1.ListAuditEntriesResponse](t)(a.admin.ListAuditEntries(ctx, &adminv1.ListAuditEntriesRequest{AfterRevision: after, PageSize: 2})).GetEntries()
		if len(page) == 0 {
			break
		}
		entries = append(entries, page...)
	}
	previous := make([]byte, 32)
	var found bool
	for i, e := range entries {
		if e.GetHead().GetRevision() != int64(i+1) || string(e.GetPreviousHash()) != string(previous) {
			t.Fatalf("entry %d does not follow its predecessor", i+1)
		}
		sum := sha256.Sum256(append(append([]byte{}, previous...), e.GetBody()...))
		if string(sum[:]) != string(e.GetHead().GetHash()) {
			t.Fatalf("entry %d: its hash is not that of the chain", i+1)
		}
		previous = e.GetHead().GetHash()
		if e.GetAsyncOperationId() == user.GetAsyncOperation().GetId() {
			found = true
			if strings.Contains(string(e.GetBody()), "ann@example.com") || !strings.Contains(e.GetReadable(), "ann@example.com") {
				t.Errorf("the e-mail must be sealed in the body and readable beside it:\n%s\n%s", e.GetBody(), e.GetReadable())
			}
		}
		if strings.Contains(string(e.GetBody())+e.GetReadable(), token) {
			t.Errorf("entry %d holds a key's token", i+1)
		}
	}
	if !found {
		t.Error("the entry of CreateUser is missing")
	}
	_, err := w.as(t, a.account, account, token).admin.ListAuditEntries(ctx, &adminv1.ListAuditEntriesRequest{})
	wantCode(t, "a developer reads the audit log", err, codes.PermissionDenied, "")
}

// A service account is disabled, seen so here and active for CloudService, and enabled.
func TestServiceAccountStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t)
	ctx, account := t.Context(), a.serviceAccount(t, read)
	_, token := a.keyOf(t, account)
	cloud := w.client(t, token, "").CloudService()
	key := newKey(t)
	issued := must[*adminv1.IssueCertificateResponse](t)(a.admin.IssueCertificate(ctx, &adminv1.IssueCertificateRequest{ServiceAccountId: account, Csr: csrOf(t, key)}))
	_, byCertificate := w.withCertificate(t, issued.GetChain(), key)
	state := func() (string, bool) {
		t.Helper()
		seen := must[*cloudservice.GetServiceAccountResponse](t)(a.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: account})).GetServiceAccount()
		if seen.GetState() != active {
			t.Errorf("CloudService has it %v, want active", seen.GetState())
		}
		list := must[*adminv1.ListServiceAccountsResponse](t)(a.admin.ListServiceAccounts(ctx, &adminv1.ListServiceAccountsRequest{})).GetServiceAccounts()
		if len(list) != 1 || list[0].GetId() != account || list[0].GetName() == "" || list[0].GetResourceVersion() != seen.GetResourceVersion() {
			t.Errorf("service accounts = %v", list)
		}
		return seen.GetResourceVersion(), list[0].GetDisabled()
	}
	version, _ := state()
	request := &adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: version, Disabled: true, AsyncOperationId: "disable"}
	done := must[*adminv1.SetServiceAccountStatusResponse](t)(a.admin.SetServiceAccountStatus(ctx, request))
	version, disabled := state()
	if !disabled || done.GetResourceVersion() != version || done.GetAsyncOperationId() != "disable" {
		t.Errorf("disabled = %v, %v at %s", done, disabled, version)
	}
	if again := must[*adminv1.SetServiceAccountStatusResponse](t)(a.admin.SetServiceAccountStatus(ctx, request)); !proto.Equal(again, done) {
		t.Errorf("a repetition = %v, want %v", again, done)
	}
	for name, c := range map[string]cloudservice.CloudServiceClient{"API key": cloud, "certificate": byCertificate} {
		_, err := c.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
		wantCode(t, "disabled, with its "+name, err, codes.Unauthenticated, "disabled")
	}
	must[*adminv1.SetServiceAccountStatusResponse](t)(a.admin.SetServiceAccountStatus(ctx, &adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: version}))
	if _, disabled := state(); disabled {
		t.Error("it is disabled still")
	}
	for name, c := range map[string]cloudservice.CloudServiceClient{"API key": cloud, "certificate": byCertificate} {
		if _, err := c.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}); err != nil {
			t.Errorf("enabled again, with its %s: %v", name, err)
		}
	}
	set := func(r *adminv1.SetServiceAccountStatusRequest) func() error {
		return func() error { _, err := a.admin.SetServiceAccountStatus(ctx, r); return err }
	}
	checkBadInput(t, []badInput{
		{"nobody", set(&adminv1.SetServiceAccountStatusRequest{ResourceVersion: "1"}), "service_account_id"},
		{"no id", set(&adminv1.SetServiceAccountStatusRequest{ServiceAccountId: "../x", ResourceVersion: "1"}), "service_account_id"},
		{"no version", set(&adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account}), "resource_version"},
		{"a version that is none", set(&adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: "x"}), "resource_version"},
		{"operation id", set(&adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: "1", AsyncOperationId: "a b"}), "async_operation_id"},
		{"list's page", func() error {
			_, err := a.admin.ListServiceAccounts(ctx, &adminv1.ListServiceAccountsRequest{PageToken: "x"})
			return err
		}, "page_token"},
	})
	_, err := a.admin.SetServiceAccountStatus(ctx, &adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: "1", Disabled: true})
	wantCode(t, "an old version", err, codes.FailedPrecondition, "read it again")
	now, _ := state()
	_, err = a.admin.SetServiceAccountStatus(ctx, &adminv1.SetServiceAccountStatusRequest{ServiceAccountId: account, ResourceVersion: now})
	wantCode(t, "enabling what is enabled", err, codes.InvalidArgument, "nothing to change")
}

func TestReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.tenant(t), w.tenant(t)
	ctx := t.Context()
	op := must[*cloudservice.CreateUserResponse](t)(a.cloud.CreateUser(ctx, createAnn())).GetAsyncOperation()
	got := must[*adminv1.GetReceiptResponse](t)(a.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: op.GetId()}))
	if got.GetEnforcedEverywhere() || len(got.GetAuthorizers()) > 0 || got.GetHead().GetRevision() == 0 || !got.GetCommittedTime().AsTime().Equal(op.GetStartedTime().AsTime()) {
		t.Errorf("receipt with no authorizer registered = %v, want the change and nobody", got)
	}
	_, err := other.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: op.GetId()})
	wantCode(t, "another account's operation", err, codes.NotFound, "")
}

func TestNarrowedKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.tenant(t), w.tenant(t)
	ctx := t.Context()
	orders := a.namespace(t, "orders")
	account := a.serviceAccount(t, admin)
	spec := &adminv1.ApiKeySpec{OwnerId: account, DisplayName: "reader", ExpiryTime: timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second))}
	limits := &adminv1.ApiKeyLimits{ReadOnly: true, Namespaces: []string{orders}, Sources: []string{"127.0.0.0/8", "192.0.2.0/24"}}
	made := must[*adminv1.CreateApiKeyResponse](t)(a.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{Spec: spec, Limits: limits}))
	keys := must[*adminv1.ListApiKeysResponse](t)(a.admin.ListApiKeys(ctx, &adminv1.ListApiKeysRequest{OwnerId: account})).GetApiKeys()
	if len(keys) != 1 || keys[0].GetId() != made.GetKeyId() || keys[0].GetState() != adminv1.ApiKey_STATE_ACTIVE ||
		!proto.Equal(keys[0].GetSpec(), spec) || !proto.Equal(keys[0].GetLimits(), limits) {
		t.Errorf("keys = %v, want the one that was made", keys)
	}
	narrow := w.as(t, a.account, account, made.GetToken())
	if _, err := narrow.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: orders}); err != nil {
		t.Errorf("reading with a read-only key: %v", err)
	}
	_, err := narrow.cloud.CreateUser(ctx, createAnn())
	wantCode(t, "changing with a read-only key", err, codes.PermissionDenied, "")
	_, err = narrow.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{Spec: spec})
	wantCode(t, "widening oneself", err, codes.PermissionDenied, "")

	tests := []struct {
		limits *adminv1.ApiKeyLimits
		code   codes.Code
	}{
		{&adminv1.ApiKeyLimits{Sources: []string{"anywhere"}}, codes.InvalidArgument},
		{&adminv1.ApiKeyLimits{Namespaces: []string{"nothing." + string(a.account)}}, codes.InvalidArgument},
		{&adminv1.ApiKeyLimits{Namespaces: []string{other.namespace(t, "orders")}}, codes.NotFound},
	}
	for _, tt := range tests {
		_, err := a.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{Spec: spec, Limits: tt.limits})
		wantCode(t, tt.limits.String(), err, tt.code, "limits.")
	}
	_, err = a.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{Spec: &adminv1.ApiKeySpec{OwnerId: "g_group", DisplayName: "x"}})
	wantCode(t, "a group as owner", err, codes.InvalidArgument, "spec.owner_id")
}
