package directory

import (
	"context"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Recipient is a person who is told of something.
type Recipient struct {
	User  string // id
	Email string
}

// Recipients are the active users who are told of what concerns the namespace:
// the account's owners and admins, and the namespace's admins by a grant, by
// their project or by a group. Ordered by id.
func (d *Directory) Recipients(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) ([]Recipient, error) {
	return recipients(ctx, q, account, namespace)
}

// Recipient is the user as somebody to tell something now. It answers NotFound
// when the user is gone or disabled.
func (d *Directory) Recipient(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) (Recipient, error) {
	return recipient(ctx, q, account, user)
}
