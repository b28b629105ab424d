package cloudapi

import (
	"context"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
)

// SetServiceAccountStatus disables or enables a service account.
func (a *Admin) SetServiceAccountStatus(ctx context.Context, r *adminv1.SetServiceAccountStatusRequest) (*adminv1.SetServiceAccountStatusResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("service_account_id", r.GetServiceAccountId(), r)
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	status := object.Active
	if r.GetDisabled() {
		status = object.Disabled
	}
	account, done, err := a.directory.SetServiceAccountStatus(ctx, c.caller, op, r.GetServiceAccountId(), seen, status)
	if err != nil {
		return nil, err
	}
	return &adminv1.SetServiceAccountStatusResponse{AsyncOperationId: done.OperationID, ResourceVersion: version(account.Revision)}, nil
}

// ListServiceAccounts lists the account's service accounts of all scopes.
func (a *Admin) ListServiceAccounts(ctx context.Context, r *adminv1.ListServiceAccountsRequest) (*adminv1.ListServiceAccountsResponse, error) {
	c := begin(ctx)
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.ServiceAccount, string, error) {
		list, next, err := a.directory.ServiceAccounts(ctx, c.caller, p)
		return each(list, func(s directory.ServiceAccount) *adminv1.ServiceAccount {
			return &adminv1.ServiceAccount{Id: s.ID, ResourceVersion: version(s.Revision), Name: s.Name, Disabled: s.Status == object.Disabled}
		}), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListServiceAccountsResponse{ServiceAccounts: list, NextPageToken: next}, nil
}
