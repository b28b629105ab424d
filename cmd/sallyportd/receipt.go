package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/feed"
)

type receiptCommand struct {
	keyed
	Operation string        `arg:"" help:"The operation's id, as the change printed it."`
	Account   string        `help:"The account's id. Empty: 00000, which has what belongs to no tenant." placeholder:"ID"`
	Wait      time.Duration `help:"How long to wait until it is enforced everywhere." default:"0s" placeholder:"5s"`
}

// Run shows where the operation is in force.
func (c *receiptCommand) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		account := sallyport.SystemAccount
		if c.Account != "" {
			account = sallyport.AccountID(c.Account)
		}
		done, err := d.journal.Operation(ctx, account, c.Operation)
		if err != nil {
			return err
		}
		receipt, err := d.receipt(ctx, account, done.Head.Revision, c.Wait)
		if err != nil {
			return err
		}
		return printReceipt(out.stdout, done.OperationID, receipt)
	})
}

// feed is the feed as this copy of the service has it. Before it runs, it tells
// what others' streams have left in the database.
func (d *domain) feed(metrics prometheus.Registerer, log *slog.Logger) (*feed.Server, error) {
	return feed.New(feed.Config{Journal: d.journal, Authenticate: d.authenticateFeed, Directory: feed.Directory{
		AccountsInCell: d.directory.AccountsInCell, CellsOf: d.directory.CellsOf}, Used: d.keys.MarkUsed,
		CertificateUsed: d.certificateUsed, Metrics: metrics, Logger: log})
}

// receipt reads where a change is in force, again and again for as long as patience
// lasts and an authorizer that is connected has not answered.
func (d *domain) receipt(ctx context.Context, account sallyport.AccountID, revision int64, patience time.Duration) (feed.Receipt, error) {
	const pause = 50 * time.Millisecond
	server, err := d.feed(nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return feed.Receipt{}, err
	}
	for deadline := time.Now().Add(patience); ; {
		receipt, err := server.Receipt(ctx, account, revision)
		missing := slices.ContainsFunc(receipt.Authorizers, func(e feed.Enforcement) bool { return e.State == feed.Missing })
		if err != nil || !missing || !time.Now().Add(pause).Before(deadline) {
			return receipt, err
		}
		select {
		case <-ctx.Done():
			return receipt, nil
		case <-time.After(pause):
		}
	}
}

// printReceipt prints a line for the operation and one for each authorizer. It
// answers exitUnproved when there are authorizers and not all of them enforce it.
func printReceipt(w io.Writer, operation string, r feed.Receipt) error {
	var lines []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		lines = append(lines, err)
	}
	if len(r.Authorizers) == 0 {
		line("operation %s: committed; no authorizer is registered that has to do with the account, so there is nobody to enforce it", operation)
		return errors.Join(lines...)
	}
	enforced := 0
	for _, e := range r.Authorizers {
		if e.State == feed.Enforced {
			enforced++
		}
	}
	line("operation %s: enforced on %d/%d authorizers", operation, enforced, len(r.Authorizers))
	for _, e := range r.Authorizers {
		what := ""
		switch e.State {
		case feed.Enforced:
			what = fmt.Sprintf("after %.1f ms", float64(e.Took)/float64(time.Millisecond))
		case feed.Missing:
			what = "it is connected and has not answered yet"
		case feed.Lapsed:
			what = "it is not connected, and may serve the old state until " + e.MayServeUntil.Format(time.RFC3339)
		case feed.Diverged:
			what = "it holds another history since a restore and allows what both allow until a new epoch"
		}
		line("  %s  %s  %s: %s", e.Authorizer, e.Instance, e.State, what)
	}
	if err := errors.Join(lines...); err != nil || r.Everywhere() {
		return err
	}
	return exitUnproved
}
