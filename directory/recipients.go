package directory

import (
	"context"
	"errors"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
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

// NameFor is what a user may know a principal of the account as: a user's e-mail
// address, a service account's name, or the principal's id where it is gone or
// the user may not see it.
func (d *Directory) NameFor(ctx context.Context, q pg.Querier, account sallyport.AccountID, user, principal string) (string, error) {
	name, err := d.nameFor(ctx, q, account, user, principal)
	if errors.Is(err, sallyport.NotFound) || errors.Is(err, sallyport.PermissionDenied) {
		return principal, nil
	}
	return name, err
}

func (d *Directory) nameFor(ctx context.Context, q pg.Querier, account sallyport.AccountID, user, principal string) (string, error) {
	reader := sallyport.Principal{Kind: sallyport.User, ID: user}
	access, _, err := d.Access(ctx, q, account, reader)
	if err != nil {
		return "", err
	}
	caller := sallyport.Caller{Account: account, Principal: reader, Access: access}
	if strings.HasPrefix(principal, sallyport.ServiceAccountPrefix) {
		s, err := serviceAccountFor(ctx, q, caller, authz.ServiceAccountGet, principal)
		return s.Name, err
	}
	if err := check(caller, authz.UserGet); err != nil {
		return "", err
	}
	u, err := readUser(ctx, q, account, principal)
	return u.Email, err
}
