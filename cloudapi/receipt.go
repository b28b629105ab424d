package cloudapi

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/feed"
)

// GetReceipt tells where a committed change is in force, server by server.
func (a *Admin) GetReceipt(ctx context.Context, r *adminv1.GetReceiptRequest) (*adminv1.GetReceiptResponse, error) {
	c := begin(ctx)
	if err := checkOperationID(r.GetAsyncOperationId()); err != nil {
		return nil, err
	}
	if err := authz.Check(c.caller, authz.ReceiptGet, authz.Resource{Account: c.caller.Account}); err != nil {
		return nil, err
	}
	done, err := a.journal.Operation(ctx, c.caller.Account, r.GetAsyncOperationId())
	if err != nil {
		return nil, err
	}
	receipt, err := a.receipt(ctx, c.caller.Account, done.Head.Revision)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetReceiptResponse{
		AsyncOperationId: done.OperationID, Head: headOf(receipt.Head), CommittedTime: timestamp(receipt.CommittedAt),
		EnforcedEverywhere: receipt.Everywhere(), Authorizers: each(receipt.Authorizers, enforcementOf),
	}, nil
}

func enforcementOf(e feed.Enforcement) *adminv1.Enforcement {
	wire := &adminv1.Enforcement{
		AuthorizerId: e.Authorizer, Instance: e.Instance, Cells: e.Cells,
		EnforcedTime: timestamp(e.EnforcedAt), MayServeUntil: timestamp(e.MayServeUntil),
	}
	switch e.State {
	case feed.Enforced:
		wire.State, wire.Took = adminv1.Enforcement_STATE_ENFORCED, durationpb.New(e.Took)
	case feed.Missing:
		wire.State = adminv1.Enforcement_STATE_MISSING
	case feed.Lapsed:
		wire.State = adminv1.Enforcement_STATE_LAPSED
	case feed.Diverged:
		wire.State = adminv1.Enforcement_STATE_DIVERGED
	}
	return wire
}
