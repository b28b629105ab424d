// Package directory holds who and what there is in an account: projects,
// namespaces, users, groups and their members, service accounts, and the
// grants that give access. Every change is one journal entry that carries what
// authorizers must know of it.
//
// Namespaces, in parameters and results, go by their name without the account
// ("orders"); grants and authorizers refer to them by id, so that a name made
// again does not bring old grants back.
package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/journal"
)

// Config of a Directory.
type Config struct {
	Journal *journal.Journal // required
	Pages   *page.Signer     // required
	Regions []Region         // where namespaces may be; none: no namespace can be made
	// PrincipalEnded is called inside the transaction that removes a user or a
	// service account, before its rows go: whoever keeps credentials removes
	// the principal's there. Nil: nobody does.
	PrincipalEnded func(ctx context.Context, tx *journal.Tx, principal string) error
	// NamespaceChanged is called inside the transaction that makes, changes or
	// deletes a namespace, after its row is written: whoever keeps its client CAs
	// checks and publishes them there. before is zero of a new namespace, after of
	// a deleted one. Nil: nobody does.
	NamespaceChanged func(ctx context.Context, tx *journal.Tx, before, after Namespace) error
	MaxUsers         int // in an account; zero: 300
	MaxNamespaces    int // in an account; zero: 100
	MaxGroups        int // in an account; zero: 1000
	// MaxServiceAccounts is per account; zero: 1000.
	MaxServiceAccounts int
}

// Directory reads and changes accounts. It is safe for concurrent use. The
// account is always the caller's.
type Directory struct {
	journal            *journal.Journal
	pool               *pgxpool.Pool
	pages              *page.Signer
	regions            []Region
	principalEnded     func(context.Context, *journal.Tx, string) error
	namespaceChanged   func(context.Context, *journal.Tx, Namespace, Namespace) error
	maxUsers           int
	maxNamespaces      int
	maxGroups          int
	maxServiceAccounts int
}

// New makes a Directory.
func New(c Config) (*Directory, error) {
	if c.Journal == nil || c.Pages == nil {
		return nil, errors.New("directory: Config needs Journal and Pages")
	}
	if c.PrincipalEnded == nil {
		c.PrincipalEnded = func(context.Context, *journal.Tx, string) error { return nil }
	}
	if c.NamespaceChanged == nil {
		c.NamespaceChanged = func(context.Context, *journal.Tx, Namespace, Namespace) error { return nil }
	}
	regions := slices.Clone(c.Regions)
	slices.SortFunc(regions, func(a, b Region) int { return strings.Compare(a.ID, b.ID) })
	for i, r := range regions {
		if r.ID == "" || r.Cell == "" {
			return nil, fmt.Errorf("directory: region %q needs an id and a cell", r.ID)
		}
		if i > 0 && regions[i-1].ID == r.ID {
			return nil, fmt.Errorf("directory: there are two regions %s", r.ID)
		}
	}
	return &Directory{
		journal: c.Journal, pool: c.Journal.Pool(), pages: c.Pages, regions: regions, principalEnded: c.PrincipalEnded, namespaceChanged: c.NamespaceChanged,
		maxUsers: orDefault(c.MaxUsers, 300), maxNamespaces: orDefault(c.MaxNamespaces, 100),
		maxGroups: orDefault(c.MaxGroups, 1000), maxServiceAccounts: orDefault(c.MaxServiceAccounts, 1000),
	}, nil
}

func orDefault(n, zero int) int {
	if n == 0 {
		return zero
	}
	return n
}

// Stamp says when a thing was made and last changed. Revision is the account's
// at the last change; clients give it back to say what they have seen, and zero
// there means whatever it is now.
type Stamp struct {
	Revision int64
	Created  time.Time
	Modified time.Time
}

// stale answers Conflict when the client has seen another revision.
func (s Stamp) stale(seen int64) error {
	if seen == 0 || seen == s.Revision {
		return nil
	}
	return &sallyport.Error{Kind: sallyport.Conflict, Field: "resource_version",
		Msg: fmt.Sprintf("is %d, but it has changed since and is at %d; read it again and repeat the change", seen, s.Revision)}
}

// nothingToChange is the answer to an update that changes nothing. Clients look for these words.
func nothingToChange() error {
	return sallyport.Invalid.Errorf("nothing to change: it is already so")
}

// check is authz.Check for an action on the account as a whole.
func check(caller sallyport.Caller, a authz.Action) error {
	return authz.Check(caller, a, authz.Resource{Account: caller.Account})
}
