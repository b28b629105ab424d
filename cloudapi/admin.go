package cloudapi

import (
	"bytes"
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/journal"
)

// AdminConfig of an Admin.
type AdminConfig struct {
	Directory *directory.Directory // required
	Keys      *apikeys.Keys        // required
	Certs     *certs.Authority     // required
	ClientCAs *clientca.ClientCAs  // required
	Tokens    *token.Issuer        // required
	Journal   *journal.Journal     // required
	// Receipt says where a revision of the account is in force. Required.
	Receipt func(ctx context.Context, account sallyport.AccountID, revision int64) (feed.Receipt, error)
	Now     func() time.Time // nil: time.Now
}

// Admin is our own AdminService.
type Admin struct {
	adminv1.UnimplementedAdminServiceServer
	directory *directory.Directory
	keys      *apikeys.Keys
	certs     *certs.Authority
	clientCAs *clientca.ClientCAs
	tokens    *token.Issuer
	journal   *journal.Journal
	receipt   func(ctx context.Context, account sallyport.AccountID, revision int64) (feed.Receipt, error)
	now       func() time.Time
	explains  chan struct{} // a slot for each account that is being copied
}

// maxExplains bounds how many accounts are copied into memory at once.
const maxExplains = 2

// NewAdmin makes an Admin.
func NewAdmin(c AdminConfig) (*Admin, error) {
	if c.Directory == nil || c.Keys == nil || c.Certs == nil || c.ClientCAs == nil || c.Tokens == nil || c.Journal == nil || c.Receipt == nil {
		return nil, errors.New("cloudapi: AdminConfig needs Directory, Keys, Certs, ClientCAs, Tokens, Journal and Receipt")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Admin{directory: c.Directory, keys: c.Keys, certs: c.Certs, clientCAs: c.ClientCAs, tokens: c.Tokens,
		journal: c.Journal, receipt: c.Receipt, now: c.Now, explains: make(chan struct{}, maxExplains)}, nil
}

// AdminRules are the REST paths of AdminService.
func AdminRules() []*annotations.HttpRule {
	const service = "sallyport.admin.v1.AdminService."
	return []*annotations.HttpRule{
		{Selector: service + "CreateApiKey", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/api-keys"}},
		{Selector: service + "ListApiKeys", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/api-keys"}},
		{Selector: service + "RotateApiKey", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/api-keys/{key_id}/rotate"}},
		{Selector: service + "SetServiceAccountStatus", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/service-accounts/{service_account_id}/status"}},
		{Selector: service + "ListServiceAccounts", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/service-accounts"}},
		{Selector: service + "Explain", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/explain"}},
		{Selector: service + "GetReceipt", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/operations/{async_operation_id}/receipt"}},
		{Selector: service + "ListAuditEntries", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/audit-entries"}},
		{Selector: service + "IssueCertificate", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/certificates"}},
		{Selector: service + "RenewCertificate", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/certificates/{certificate_id}/renew"},
			AdditionalBindings: []*annotations.HttpRule{{Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/current-certificate/renew"}}}},
		{Selector: service + "GetCertificate", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/certificates/{certificate_id}"}},
		{Selector: service + "ListCertificates", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/certificates"}},
		{Selector: service + "ListIssuers", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/issuers"}},
		{Selector: service + "Revoke", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/revocations"}},
		{Selector: service + "ListRevocations", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/revocations"}},
		{Selector: service + "ListClientCas", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/namespaces/{namespace}/client-cas"}},
		{Selector: service + "AddClientCas", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/client-cas"}},
		{Selector: service + "RemoveClientCas", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/client-cas/remove"}},
		{Selector: service + "CheckClientCas", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/client-cas/check"}},
		{Selector: service + "SetNamespaceMtls", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/mtls"}},
		{Selector: service + "ListCertificateFilters", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/namespaces/{namespace}/certificate-filters"}},
		{Selector: service + "AddCertificateFilter", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/certificate-filters"}},
		{Selector: service + "RemoveCertificateFilter", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/certificate-filters/{filter_id}/remove"}},
		{Selector: service + "MapCertificateFilter", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/namespaces/{namespace}/certificate-filters/{filter_id}/map"}},
		{Selector: service + "ListSeenCertificates", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/namespaces/{namespace}/seen-certificates"}},
		{Selector: service + "CreateFederationRule", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/federation-rules"}},
		{Selector: service + "UpdateFederationRule", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/federation-rules/{rule_id}"}},
		{Selector: service + "DeleteFederationRule", Pattern: &annotations.HttpRule_Delete{Delete: "/sallyport/v1/federation-rules/{rule_id}"}},
		{Selector: service + "GetFederationRule", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/federation-rules/{rule_id}"}},
		{Selector: service + "ListFederationRules", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/federation-rules"}},
		{Selector: service + "TestFederation", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/service-accounts/{service_account_id}/federation-test"}},
	}
}

// Explain decides as an authorizer with the account's newest state would.
func (a *Admin) Explain(ctx context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	c := begin(ctx)
	ways := 0
	for _, given := range []bool{r.GetKeyId() != "", r.GetToken() != "", len(r.GetCertificate()) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, sallyport.InvalidField("key_id", "exactly one of key_id, token and certificate is required")
	case r.GetMethod() == "" || len(r.GetMethod()) > 200:
		return nil, sallyport.InvalidField("method", "is required: a gRPC method in full, as /temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution")
	}
	if r.GetNamespace() != "" {
		if err := checkID("namespace", r.GetNamespace()); err != nil {
			return nil, err
		}
	}
	presented, err := presentedOf(r.GetCertificate())
	if err != nil {
		return nil, err
	}
	if err := a.mayExplain(ctx, c, r); err != nil {
		return nil, err
	}
	select {
	case a.explains <- struct{}{}:
		defer func() { <-a.explains }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	accounts := []sallyport.AccountID{c.caller.Account}
	if credential.IsToken(r.GetToken()) {
		accounts = append(accounts, sallyport.SystemAccount) // has the keys that sign tokens
	}
	copied, err := a.replica(ctx, accounts...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = copied.Close() }() // it holds no files
	switch {
	case r.GetKeyId() != "":
		return decision(copied.Explain(c.caller.Account, r.GetKeyId(), r.GetMethod(), r.GetNamespace(), a.now())), nil
	case presented != nil:
		by := replica.Credential{Kind: replica.Certificate, Account: presented.Account, Certificate: presented, From: c.caller.From}
		decided := copied.Decide(by, r.GetMethod(), r.GetNamespace(), a.now())
		wire := decision(decided)
		wire.CertificateFingerprint = presented.Fingerprint
		if r.GetNamespace() != "" { // the caller may read it, says mayExplain
			wire.Reason = decided.Detail()
		}
		return wire, nil
	}
	return decision(copied.Decide(copied.Credential("Bearer "+r.GetToken(), nil, c.caller.From), r.GetMethod(), r.GetNamespace(), a.now())), nil
}

// presentedOf reads a client certificate and its chain; nil if there is none.
func presentedOf(chain []byte) (*credential.Presented, error) {
	if len(chain) == 0 {
		return nil, nil //nolint:nilnil // none is no error
	}
	parsed, err := credential.ParseChain(chain)
	var invalid *sallyport.Error
	if errors.As(err, &invalid) {
		return nil, &sallyport.Error{Kind: invalid.Kind, Field: "certificate", Msg: invalid.Msg}
	}
	if err != nil {
		return nil, err
	}
	return credential.NewPresented(parsed), nil
}

// mayExplain checks that the caller may ask about the key. Whoever has a
// token may ask about it: he would learn the same by using it. Certificates are
// public, so about one on a namespace may ask who may read the namespace.
func (a *Admin) mayExplain(ctx context.Context, c call, r *adminv1.ExplainRequest) error {
	if r.GetKeyId() == "" {
		if err := authz.Check(c.caller, authz.IdentityGet, authz.Resource{Account: c.caller.Account}); err != nil || len(r.GetCertificate()) == 0 || r.GetNamespace() == "" {
			return err
		}
		name, err := c.space(r)
		if err == nil {
			_, err = a.directory.Namespace(ctx, c.caller, name)
		}
		return err
	}
	key, err := read(ctx, c, "key_id", r.GetKeyId(), a.keys.Get)
	if err != nil {
		return err
	}
	standing, err := a.directory.Standing(ctx, a.journal.Pool(), c.caller.Account, key.Owner)
	if err != nil {
		return err
	}
	return authz.Check(c.caller, authz.DecisionExplain, authz.Resource{Account: c.caller.Account, Project: standing.Project,
		Namespace: standing.Namespace, Owner: key.Owner})
}

// replica is a copy of the accounts' newest state, as an authorizer holds it.
func (a *Admin) replica(ctx context.Context, accounts ...sallyport.AccountID) (*replica.Replica, error) {
	copied, err := replica.Open(replica.Config{})
	if err != nil {
		return nil, err
	}
	for _, account := range accounts {
		batch, err := a.journal.Snapshot(ctx, account)
		if err == nil {
			err = copied.Load(replica.Batch(batch))
		}
		if err != nil {
			return nil, errors.Join(err, copied.Close())
		}
	}
	return copied, nil
}

func decision(d replica.Decision) *adminv1.ExplainResponse {
	wire := &adminv1.ExplainResponse{Allowed: d.Allow, Reason: d.Reason, Kind: string(d.Kind), Head: headOf(d.Head), Until: timestamp(d.Until)}
	if d.Kind == sallyport.Unauthenticated {
		return wire // nothing was proved, so nobody is named
	}
	wire.PrincipalKind, wire.PrincipalId, wire.KeyId = string(d.Principal.Kind), d.Principal.ID, d.KeyID
	if d.Allow && d.Grant != (sallyport.Grant{}) {
		wire.Grant = &adminv1.Grant{Subject: d.Grant.Subject, Scope: string(d.Grant.Scope), Target: d.Grant.Target, Role: d.Grant.Role}
	}
	return wire
}

func headOf(h sallyport.Head) *adminv1.Head {
	return &adminv1.Head{Epoch: h.Epoch, Revision: h.Revision, Hash: h.Hash[:]}
}

// ListAuditEntries reads the account's journal.
func (a *Admin) ListAuditEntries(ctx context.Context, r *adminv1.ListAuditEntriesRequest) (*adminv1.ListAuditEntriesResponse, error) {
	c := begin(ctx)
	account := c.caller.Account
	size := int(r.GetPageSize())
	switch {
	case r.GetAfterRevision() < 0:
		return nil, sallyport.InvalidField("after_revision", "must not be negative")
	case size < 0 || size > 1000:
		return nil, sallyport.InvalidField("page_size", "must be between 1 and 1000, or 0 for 100")
	case size == 0:
		size = 100
	}
	if err := authz.Check(c.caller, authz.AuditLogList, authz.Resource{Account: account}); err != nil {
		a.journal.Denied(account, c.caller, "ListAuditEntries", err.Error())
		return nil, err
	}
	before, err := a.journal.HeadAt(ctx, account, r.GetAfterRevision())
	if err != nil {
		return nil, err
	}
	entries, err := a.auditEntries(ctx, account, r.GetAfterRevision(), before.Hash, size)
	return answer(&adminv1.ListAuditEntriesResponse{Entries: entries}, err)
}

// auditBatch is how many entries are read at a time: one may have a megabyte.
const auditBatch = 16

// auditEntries reads at most size entries after a revision, whose entry has
// the hash previous, and fewer when they are too large for an answer.
func (a *Admin) auditEntries(ctx context.Context, account sallyport.AccountID, after int64, previous [32]byte, size int) ([]*adminv1.AuditEntry, error) {
	var entries []*adminv1.AuditEntry
	used := 0
	for len(entries) < size {
		batch, err := a.journal.Entries(ctx, account, after, min(auditBatch, size-len(entries)))
		if err != nil {
			return nil, err
		}
		if len(batch) == 0 {
			break
		}
		wire := make([]*adminv1.AuditEntry, len(batch))
		for i, e := range batch {
			readable, err := a.journal.Unseal(ctx, account, e.Body)
			if err != nil {
				return nil, err
			}
			wire[i] = &adminv1.AuditEntry{
				Head: headOf(e.Head), PreviousHash: bytes.Clone(previous[:]), AsyncOperationId: e.OperationID, Type: e.Type,
				Time: timestamp(e.At), Body: e.Body, Readable: string(readable),
			}
			previous, after = e.Head.Hash, e.Head.Revision
		}
		n := fitting(wire, used)
		entries = append(entries, wire[:n]...)
		if n < len(wire) {
			break
		}
		for _, e := range wire {
			used += proto.Size(e)
		}
	}
	return entries, nil
}
