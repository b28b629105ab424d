package cloudapi

import (
	"context"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/journal"
)

// An operation that is not yet enforced everywhere is nevertheless fulfilled
// after patience: fulfilled means committed, the receipt tells the rest.
const (
	patience = time.Second
	askAgain = 200 * time.Millisecond
)

// change carries out a mutation and describes it for the client.
func (s *Server) change(ctx context.Context, c call, r mutation, do func(journal.Operation) (journal.Committed, error)) (*operation.AsyncOperation, error) {
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	done, err := do(op)
	if err != nil {
		return nil, err
	}
	return s.operation(ctx, c, done), nil
}

// operation says how far a committed change is: fulfilled when it is enforced
// or old enough, in progress until then.
func (s *Server) operation(ctx context.Context, c call, done journal.Committed) *operation.AsyncOperation {
	fulfilled := s.now().Sub(done.At) >= patience
	if !fulfilled {
		var err error
		if fulfilled, err = s.enforced(ctx, done.Account, done.Head.Revision); err != nil {
			// The change is committed; not knowing who enforces it is no reason to
			// say that it failed.
			s.log.WarnContext(ctx, "asking who enforces a change", "error", err)
			fulfilled = false
		}
	}
	op := &operation.AsyncOperation{
		Id: done.OperationID, OperationType: done.Type, StartedTime: timestamp(done.At),
		State: operation.AsyncOperation_STATE_IN_PROGRESS, CheckDuration: durationpb.New(askAgain),
	}
	if fulfilled {
		op.State, op.CheckDuration, op.FinishedTime = operation.AsyncOperation_STATE_FULFILLED, nil, timestamp(done.At)
	}
	if c.upTo(textEnums()) {
		op.StateDeprecated = enumText(op.GetState(), "STATE_")
	}
	return op
}

// GetAsyncOperation tells how far a change is.
func (s *Server) GetAsyncOperation(ctx context.Context, r *cloudservice.GetAsyncOperationRequest) (*cloudservice.GetAsyncOperationResponse, error) {
	c := begin(ctx)
	if err := checkOperationID(r.GetAsyncOperationId()); err != nil {
		return nil, err
	}
	if err := authz.Check(c.caller, authz.AsyncOperationGet, authz.Resource{Account: c.caller.Account}); err != nil {
		return nil, err
	}
	done, err := s.journal.Operation(ctx, c.caller.Account, r.GetAsyncOperationId())
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetAsyncOperationResponse{AsyncOperation: s.operation(ctx, c, done)}, nil
}
