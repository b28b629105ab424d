package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type serviceAccountCommands struct {
	Create  serviceAccountCreate  `cmd:"" help:"Make a service account: a workload's identity. Its id goes to stdout."`
	List    serviceAccountList    `cmd:"" help:"List the service accounts."`
	Disable serviceAccountDisable `cmd:"" help:"Refuse all keys and certificates of a service account until it is enabled again, and show where that is in force."`
	Enable  serviceAccountEnable  `cmd:"" help:"Accept a disabled service account's keys and certificates again."`
	Delete  serviceAccountDelete  `cmd:"" help:"End a service account and all of its keys and certificates."`
}

type serviceAccountCreate struct {
	Name        string            `arg:"" help:"What it is called."`
	Description string            `help:"What it is for."`
	Role        string            `help:"Its role on the account: none, read, developer, admin, metrics-read. Without it: none with --namespace, otherwise read." enum:",none,read,developer,admin,metrics-read" default:"" placeholder:"ROLE"`
	Namespace   map[string]string `help:"What it may do in a namespace: read, write or admin. Repeat for others." placeholder:"NAME=PERMISSION"`
}

// Run makes an account-scoped service account.
func (c *serviceAccountCreate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	access := &identity.Access{AccountAccess: &identity.AccountAccess{Role: c.role()}}
	for name, permission := range c.Namespace {
		p := identity.NamespaceAccess_Permission(identity.NamespaceAccess_Permission_value["PERMISSION_"+strings.ToUpper(permission)])
		if p == identity.NamespaceAccess_PERMISSION_UNSPECIFIED {
			return fmt.Errorf("--namespace %s=%s: the permission is read, write or admin", name, permission)
		}
		if access.NamespaceAccesses == nil {
			access.NamespaceAccesses = map[string]*identity.NamespaceAccess{}
		}
		access.NamespaceAccesses[client.fullName(name)] = &identity.NamespaceAccess{Permission: p}
	}
	made, err := client.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix),
		Spec: &identity.ServiceAccountSpec{Name: c.Name, Description: c.Description, Access: access}})
	if err != nil {
		return err
	}
	if err := client.settle(ctx, made.GetAsyncOperation()); err != nil {
		return err
	}
	return s.show(made, func() error {
		_, err := fmt.Fprintln(s.stdout, made.GetServiceAccountId())
		return err
	})
}

// role is no more than was asked for: the role read may read every user's
// e-mail, which a worker has no use for.
func (c *serviceAccountCreate) role() identity.AccountAccess_Role {
	name := c.Role
	if name == "" && len(c.Namespace) == 0 {
		name = "read"
	}
	return identity.AccountAccess_Role(identity.AccountAccess_Role_value["ROLE_"+strings.ReplaceAll(strings.ToUpper(name), "-", "_")]) // none: unspecified
}

type serviceAccountList struct{}

// Run lists all pages. CloudService has every service account active: JSON has the
// state SUSPENDED for disabled ones.
func (c *serviceAccountList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &cloudservice.GetServiceAccountsRequest{}, &cloudservice.GetServiceAccountsResponse{}
	for {
		page, err := client.GetServiceAccounts(ctx, request)
		if err != nil {
			return err
		}
		all.ServiceAccount = append(all.ServiceAccount, page.GetServiceAccount()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	disabled, err := client.disabledServiceAccounts(ctx)
	if err != nil {
		return err
	}
	for _, a := range all.GetServiceAccount() {
		if disabled[a.GetId()] {
			a.State = resource.ResourceState_RESOURCE_STATE_SUSPENDED
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, a := range all.GetServiceAccount() {
			state := enumName(a.GetState().String(), "RESOURCE_STATE_")
			if disabled[a.GetId()] {
				state = "disabled"
			}
			rows = append(rows, []string{a.GetId(), a.GetSpec().GetName(), state,
				moment(a.GetCreatedTime()), accessOf(a.GetSpec())})
		}
		return s.table("no service accounts", []string{"ID", "NAME", "STATE", "CREATED", "ACCESS"}, rows)
	})
}

func (c *client) disabledServiceAccounts(ctx context.Context) (map[string]bool, error) {
	disabled, request := map[string]bool{}, &adminv1.ListServiceAccountsRequest{}
	for {
		page, err := c.admin.ListServiceAccounts(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, a := range page.GetServiceAccounts() {
			disabled[a.GetId()] = a.GetDisabled()
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return disabled, nil
		}
	}
}

// accessOf is what the account may do, in a line.
func accessOf(spec *identity.ServiceAccountSpec) string {
	permission := func(a *identity.NamespaceAccess) string { return enumName(a.GetPermission().String(), "PERMISSION_") }
	var parts []string
	if role := roleName(spec.GetAccess().GetAccountAccess().GetRole()); role != "" {
		parts = append(parts, role)
	}
	if scoped := spec.GetNamespaceScopedAccess(); scoped != nil {
		parts = append(parts, scoped.GetNamespace()+"="+permission(scoped.GetAccess())+" only")
	}
	projects, namespaces := spec.GetAccess().GetProjectAccesses(), spec.GetAccess().GetNamespaceAccesses()
	if scoped := spec.GetProjectScopedAccess(); scoped != nil {
		namespaces = scoped.GetNamespaceAccesses()
		projects = map[string]*identity.ProjectAccess{scoped.GetProjectId(): scoped.GetAccess()}
	}
	for _, id := range slices.Sorted(maps.Keys(projects)) {
		parts = append(parts, id+"="+enumName(projects[id].GetRole().String(), "PROJECT_ROLE_"))
	}
	for _, name := range slices.Sorted(maps.Keys(namespaces)) {
		parts = append(parts, name+"="+permission(namespaces[name]))
	}
	return strings.Join(parts, ", ")
}

type serviceAccountStatus struct {
	versioned
	ID   string `arg:"" help:"The service account's id."`
	Wait span   `help:"How long to wait for authorizers to enforce it." default:"5s" placeholder:"5s"`
}

type serviceAccountDisable struct{ serviceAccountStatus }

// Run disables the service account and waits for the proof.
func (c *serviceAccountDisable) Run(ctx context.Context, s *session) error {
	return c.set(ctx, s, true)
}

type serviceAccountEnable struct{ serviceAccountStatus }

// Run enables the service account and waits for the proof.
func (c *serviceAccountEnable) Run(ctx context.Context, s *session) error {
	return c.set(ctx, s, false)
}

func (c *serviceAccountStatus) set(ctx context.Context, s *session, disabled bool) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: c.ID})
	if err != nil {
		return err
	}
	done, err := client.admin.SetServiceAccountStatus(ctx, &adminv1.SetServiceAccountStatusRequest{ServiceAccountId: c.ID, Disabled: disabled,
		ResourceVersion: c.or(seen.GetServiceAccount().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	id, word := done.GetAsyncOperationId(), "enabled"
	if disabled {
		word = "disabled"
	}
	receipt, err := client.receipt(ctx, id, time.Duration(c.Wait))
	if err != nil {
		return fmt.Errorf("service account %s is %s (operation %s), but not where that is in force: %w", c.ID, word, id, err)
	}
	if err := s.show(receipt, func() error {
		_, err := fmt.Fprintf(s.stdout, "service account %s %s: %s\n", c.ID, word, oneLine(summary(receipt)))
		return err
	}); err != nil {
		return err
	}
	return proved(receipt)
}

type serviceAccountDelete struct {
	versioned
	ID string `arg:"" help:"The service account's id."`
}

// Run deletes the service account.
func (c *serviceAccountDelete) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: c.ID})
	if err != nil {
		return err
	}
	done, err := client.DeleteServiceAccount(ctx, &cloudservice.DeleteServiceAccountRequest{ServiceAccountId: c.ID,
		ResourceVersion: c.or(seen.GetServiceAccount().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	if err := client.settle(ctx, done.GetAsyncOperation()); err != nil {
		return err
	}
	return s.show(done, func() error {
		_, err := fmt.Fprintf(s.stdout, "service account %s and its keys and certificates ended (operation %s)\n", c.ID, done.GetAsyncOperation().GetId())
		return err
	})
}
