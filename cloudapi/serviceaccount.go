package cloudapi

import (
	"context"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

func (c call) serviceAccount(a directory.ServiceAccount) *identity.ServiceAccount {
	spec := &identity.ServiceAccountSpec{Name: a.Name, Description: a.Description}
	switch a.Scope {
	case sallyport.ScopeNamespace:
		for name, p := range a.Access.Namespaces { // exactly one
			spec.NamespaceScopedAccess = &identity.NamespaceScopedAccess{Namespace: c.fullName(name), Access: c.namespaceAccess(p)}
		}
	case sallyport.ScopeProject:
		for id, role := range a.Access.Projects { // exactly one
			spec.ProjectScopedAccess = &identity.ProjectScopedAccess{ProjectId: id, Access: projectAccess(role),
				NamespaceAccesses: c.namespaceAccesses(a.Access.Namespaces)}
		}
	default:
		spec.Access = c.access(a.Access)
	}
	wire := &identity.ServiceAccount{
		Id: a.ID, ResourceVersion: version(a.Revision), Spec: spec, State: resource.ResourceState_RESOURCE_STATE_ACTIVE, // also when it is disabled: Terraform takes all else for gone
		CreatedTime: timestamp(a.Created), LastModifiedTime: modified(a.Created, a.Modified),
	}
	wire.StateDeprecated = c.oldState(wire.GetState())
	return wire
}

// serviceAccountParams reads a spec, which has exactly one of three accesses.
func (c call) serviceAccountParams(spec *identity.ServiceAccountSpec) (directory.ServiceAccountParams, error) {
	if spec == nil {
		return directory.ServiceAccountParams{}, specMissing()
	}
	params := directory.ServiceAccountParams{Name: spec.GetName(), Description: spec.GetDescription()}
	given := 0
	for _, set := range []bool{spec.GetAccess() != nil, spec.GetNamespaceScopedAccess() != nil, spec.GetProjectScopedAccess() != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return params, sallyport.InvalidField("spec.access", "exactly one of access, namespace_scoped_access and project_scoped_access is required; the spec has %d", given)
	}
	var err error
	switch {
	case spec.GetAccess() != nil:
		params.Scope = sallyport.ScopeAccount
		params.Access, err = c.accessOf("spec.access", spec.GetAccess())
	case spec.GetNamespaceScopedAccess() != nil:
		params.Scope = sallyport.ScopeNamespace
		params.Access, err = c.namespaceScoped(spec.GetNamespaceScopedAccess())
	default:
		params.Scope = sallyport.ScopeProject
		params.Access, err = c.projectScoped(spec.GetProjectScopedAccess())
	}
	return params, err
}

func (c call) namespaceScoped(a *identity.NamespaceScopedAccess) (directory.Access, error) {
	const field = "spec.namespace_scoped_access"
	name, err := c.namespaceName(field+".namespace", a.GetNamespace())
	if err != nil {
		return directory.Access{}, err
	}
	p, err := permissionOf(field+".access", a.GetAccess())
	if err == nil && p == sallyport.NoPermission {
		err = sallyport.InvalidField(field+".access.permission", "is required")
	}
	return directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{name: p}}, err
}

func (c call) projectScoped(a *identity.ProjectScopedAccess) (directory.Access, error) {
	const field = "spec.project_scoped_access"
	if err := checkID(field+".project_id", a.GetProjectId()); err != nil {
		return directory.Access{}, err
	}
	role, err := projectRole(field+".access", a.GetAccess())
	if err != nil {
		return directory.Access{}, err
	}
	namespaces, err := c.namespacesOf(field+".namespace_accesses", a.GetNamespaceAccesses())
	return directory.Access{Projects: map[string]sallyport.ProjectRole{a.GetProjectId(): role}, Namespaces: namespaces}, err
}

// GetServiceAccounts lists the account's service accounts of all scopes.
func (s *Server) GetServiceAccounts(ctx context.Context, r *cloudservice.GetServiceAccountsRequest) (*cloudservice.GetServiceAccountsResponse, error) {
	c := begin(ctx)
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*identity.ServiceAccount, string, error) {
		list, next, err := s.directory.ServiceAccounts(ctx, c.caller, p)
		return each(list, c.serviceAccount), next, err
	})
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetServiceAccountsResponse{ServiceAccount: list, NextPageToken: next}, nil
}

// GetServiceAccount reads a service account.
func (s *Server) GetServiceAccount(ctx context.Context, r *cloudservice.GetServiceAccountRequest) (*cloudservice.GetServiceAccountResponse, error) {
	c := begin(ctx)
	account, err := read(ctx, c, "service_account_id", r.GetServiceAccountId(), s.directory.ServiceAccount)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetServiceAccountResponse{ServiceAccount: c.serviceAccount(account)}, nil
}

// CreateServiceAccount makes a service account.
func (s *Server) CreateServiceAccount(ctx context.Context, r *cloudservice.CreateServiceAccountRequest) (*cloudservice.CreateServiceAccountResponse, error) {
	c := begin(ctx)
	params, err := c.serviceAccountParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.CreateServiceAccountResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.CreateServiceAccount(ctx, c.caller, op, params)
		resp.ServiceAccountId = done.Target
		return done, err
	})
	return answer(resp, err)
}

// UpdateServiceAccount replaces what can change of a service account.
func (s *Server) UpdateServiceAccount(ctx context.Context, r *cloudservice.UpdateServiceAccountRequest) (*cloudservice.UpdateServiceAccountResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("service_account_id", r.GetServiceAccountId(), r)
	if err != nil {
		return nil, err
	}
	params, err := c.serviceAccountParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.UpdateServiceAccountResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.UpdateServiceAccount(ctx, c.caller, op, r.GetServiceAccountId(), seen, params)
		return done, err
	})
	return answer(resp, err)
}

// DeleteServiceAccount ends a service account and its keys.
func (s *Server) DeleteServiceAccount(ctx context.Context, r *cloudservice.DeleteServiceAccountRequest) (*cloudservice.DeleteServiceAccountResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("service_account_id", r.GetServiceAccountId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.DeleteServiceAccountResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		return s.directory.DeleteServiceAccount(ctx, c.caller, op, r.GetServiceAccountId(), seen)
	})
	return answer(resp, err)
}

// SetServiceAccountNamespaceAccess sets or removes a service account's
// permission in a namespace.
func (s *Server) SetServiceAccountNamespaceAccess(ctx context.Context, r *cloudservice.SetServiceAccountNamespaceAccessRequest) (*cloudservice.SetServiceAccountNamespaceAccessResponse, error) {
	c := begin(ctx)
	namespace, permission, seen, err := c.grantOf("service_account_id", r.GetServiceAccountId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.SetServiceAccountNamespaceAccessResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.SetServiceAccountNamespaceAccess(ctx, c.caller, op, r.GetServiceAccountId(), namespace, seen, permission)
		return done, err
	})
	return answer(resp, err)
}
