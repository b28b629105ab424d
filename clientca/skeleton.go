package clientca

import (
	"context"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

func notYet() error { return sallyport.Unavailable.Errorf("not yet") }

// NamespaceChanged is the directory's Config.NamespaceChanged.
func (c *ClientCAs) NamespaceChanged(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) error {
	return nil
}

// List gives a namespace's bundle.
func (c *ClientCAs) List(ctx context.Context, caller sallyport.Caller, namespace string) (Bundle, error) {
	return Bundle{}, notYet()
}

// Add appends certificates.
func (c *ClientCAs) Add(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, pem []byte) (Change, journal.Committed, error) {
	return Change{}, journal.Committed{}, notYet()
}

// Remove takes certificates out.
func (c *ClientCAs) Remove(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, fingerprints []string, force bool) (Change, journal.Committed, error) {
	return Change{}, journal.Committed{}, notYet()
}

// Filters lists filters.
func (c *ClientCAs) Filters(ctx context.Context, caller sallyport.Caller, namespace string) ([]Filter, error) {
	return nil, notYet()
}

// AddFilter adds a filter.
func (c *ClientCAs) AddFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, f credential.Filter, m Map) (Change, journal.Committed, error) {
	return Change{}, journal.Committed{}, notYet()
}

// RemoveFilter takes a filter away.
func (c *ClientCAs) RemoveFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace, id string, force bool) (Change, journal.Committed, error) {
	return Change{}, journal.Committed{}, notYet()
}

// MapFilter says what a filter gives.
func (c *ClientCAs) MapFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace, id string, m Map) (Change, journal.Committed, error) {
	return Change{}, journal.Committed{}, notYet()
}

// Seen lists seen certificates.
func (c *ClientCAs) Seen(ctx context.Context, caller sallyport.Caller, namespace string, since time.Time, p sallyport.Page) ([]Seen, string, error) {
	return nil, "", notYet()
}

// Check tries.
func (c *ClientCAs) Check(ctx context.Context, caller sallyport.Caller, namespace string, p CheckParams) (CheckResult, error) {
	return CheckResult{}, notYet()
}

// MarkSeen notes a use. It never blocks.
func (c *ClientCAs) MarkSeen(use Use) {}

// Objects rebuilds.
func (c *ClientCAs) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	return nil, notYet()
}

// Run flushes.
func (c *ClientCAs) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Expiring lists what expires.
func (c *ClientCAs) Expiring(ctx context.Context, q pg.Querier, now time.Time) ([]Expiring, error) {
	return nil, notYet()
}
