package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type receiptCommand struct {
	Operation string `arg:"" help:"The operation's id, as the change's answer and the audit log have it."`
	Wait      span   `help:"How long to wait until it is enforced everywhere." default:"0s" placeholder:"5s"`
}

// Run shows the receipt.
func (c *receiptCommand) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	receipt, err := client.receipt(ctx, c.Operation, time.Duration(c.Wait))
	if err != nil {
		return err
	}
	if err := s.show(receipt, func() error { return s.receipt(receipt) }); err != nil {
		return err
	}
	return proved(receipt)
}

// receipt reads a receipt, again and again for as long as patience lasts and
// an authorizer that is connected has not answered. Those that are not
// connected are not waited for.
func (c *client) receipt(ctx context.Context, operation string, patience time.Duration) (*adminv1.GetReceiptResponse, error) {
	const pause = 50 * time.Millisecond
	for deadline := time.Now().Add(patience); ; {
		receipt, err := c.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: operation})
		if err != nil {
			return nil, err
		}
		if len(in(receipt, adminv1.Enforcement_STATE_MISSING)) == 0 || !time.Now().Add(pause).Before(deadline) {
			return receipt, nil
		}
		select {
		case <-ctx.Done():
			return receipt, nil
		case <-time.After(pause):
		}
	}
}

// in gives the authorizers that are in a state.
func in(r *adminv1.GetReceiptResponse, state adminv1.Enforcement_State) []*adminv1.Enforcement {
	var list []*adminv1.Enforcement
	for _, a := range r.GetAuthorizers() {
		if a.GetState() == state {
			list = append(list, a)
		}
	}
	return list
}

// summary is a receipt in a line.
func summary(r *adminv1.GetReceiptResponse) string {
	if len(r.GetAuthorizers()) == 0 {
		return "committed; no authorizer is registered for this account's cells, so there is nobody to enforce it"
	}
	enforced := in(r, adminv1.Enforcement_STATE_ENFORCED)
	text := fmt.Sprintf("enforced on %d/%d authorizers", len(enforced), len(r.GetAuthorizers()))
	var slowest time.Duration
	for _, a := range enforced {
		slowest = max(slowest, a.GetTook().AsDuration())
	}
	if len(enforced) > 0 {
		text += fmt.Sprintf(", slowest %.1f ms", float64(slowest)/float64(time.Millisecond))
	}
	var rest []string
	for _, a := range in(r, adminv1.Enforcement_STATE_MISSING) {
		rest = append(rest, a.GetAuthorizerId()+" has not answered yet")
	}
	for _, a := range in(r, adminv1.Enforcement_STATE_DIVERGED) {
		rest = append(rest, a.GetAuthorizerId()+" holds another history since a restore and allows what both allow until a new epoch")
	}
	for _, a := range in(r, adminv1.Enforcement_STATE_LAPSED) {
		rest = append(rest, a.GetAuthorizerId()+" is not connected"+mayServe(a))
	}
	if len(rest) > 0 {
		text += "; " + strings.Join(rest, ", ")
	}
	return text
}

func mayServe(a *adminv1.Enforcement) string {
	if a.GetMayServeUntil() == nil {
		return ""
	}
	return " and may serve the old state until " + moment(a.GetMayServeUntil())
}

// proved is exitUnproved when there are authorizers and not all of them
// enforce the change.
func proved(r *adminv1.GetReceiptResponse) error {
	if len(r.GetAuthorizers()) > 0 && !r.GetEnforcedEverywhere() {
		return exitUnproved
	}
	return nil
}

func (s *session) receipt(r *adminv1.GetReceiptResponse) error {
	if err := s.fields([2]string{"operation", r.GetAsyncOperationId()}, [2]string{"revision", fmt.Sprintf("%d (epoch %d)", r.GetHead().GetRevision(), r.GetHead().GetEpoch())},
		[2]string{"committed", moment(r.GetCommittedTime())}, [2]string{"in force", summary(r)}); err != nil {
		return err
	}
	if len(r.GetAuthorizers()) == 0 {
		return nil
	}
	var rows [][]string
	for _, a := range r.GetAuthorizers() {
		took := ""
		if a.GetTook() != nil {
			took = fmt.Sprintf("%.1f ms", float64(a.GetTook().AsDuration())/float64(time.Millisecond))
		}
		rows = append(rows, []string{a.GetAuthorizerId(), a.GetInstance(), strings.Join(a.GetCells(), ","), enumName(a.GetState().String(), "STATE_"), took, moment(a.GetMayServeUntil())})
	}
	fmt.Fprintln(s.stdout)
	return s.table("", []string{"AUTHORIZER", "INSTANCE", "CELLS", "STATE", "TOOK", "MAY SERVE UNTIL"}, rows)
}
