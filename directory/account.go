package directory

import (
	"context"
	"errors"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Account is a tenant.
type Account struct {
	ID             sallyport.AccountID
	Name           string
	Status         object.Status
	DefaultProject string // its id
	Stamp
}

// AccountParams is what a new account begins with.
type AccountParams struct {
	ID         sallyport.AccountID // empty: a random one
	Name       string
	OwnerEmail string
}

// CreateAccount makes an account with its default project and its first owner.
// It is for the operator, whichever account he calls from. Repeating the
// operation finds the account again only when ID is given.
func (d *Directory) CreateAccount(ctx context.Context, caller sallyport.Caller, op journal.Operation, p AccountParams) (Account, User, journal.Committed, error) {
	if err := check(caller, authz.AccountCreate); err != nil {
		return Account{}, User{}, journal.Committed{}, err
	}
	random := p.ID == ""
	if !random && (!p.ID.Valid() || p.ID == sallyport.SystemAccount) {
		return Account{}, User{}, journal.Committed{}, sallyport.InvalidField("account_id", "must be 5 to 16 characters of a-z and 2-9")
	}
	op.NewAccount = true
	for attempt := 0; ; attempt++ {
		if random {
			p.ID = sallyport.NewAccountID()
		}
		account, owner, done, err := d.createAccount(ctx, caller, op, p)
		if random && errors.Is(err, sallyport.AlreadyExists) && attempt < 20 {
			continue
		}
		return account, owner, done, err
	}
}

func (d *Directory) createAccount(ctx context.Context, caller sallyport.Caller, op journal.Operation, p AccountParams) (Account, User, journal.Committed, error) {
	type made struct {
		account Account
		owner   User
	}
	caller.Account = p.ID
	read := func(ctx context.Context, q pg.Querier, account sallyport.AccountID, owner string) (made, error) {
		a, err := readAccount(ctx, q, account)
		if err != nil {
			return made{}, err
		}
		u, err := readUser(ctx, q, account, owner)
		return made{a, u}, err
	}
	m, done, err := commit(ctx, d, caller, op, read, func(tx *journal.Tx) (made, error) {
		if err := validText("name", p.Name, 1, 64); err != nil {
			return made{}, err
		}
		if err := insertAccount(ctx, tx, tx.Account(), p.Name, tx.Revision(), tx.Now()); err != nil {
			return made{}, err
		}
		if err := tx.Put(ctx, object.KindAccount, string(tx.Account()), object.Encode(object.Account{Status: object.Active})); err != nil {
			return made{}, err
		}
		tx.Record(journal.Change{Type: "account", ID: string(tx.Account()), After: map[string]string{"name": p.Name, "status": string(object.Active)}})
		project := sallyport.NewID(sallyport.ProjectPrefix)
		if err := insertProject(ctx, tx, tx.Account(), Project{ID: project, Name: "default", Default: true, Stamp: newStamp(tx)}); err != nil {
			return made{}, err
		}
		tx.Record(journal.Change{Type: "project", ID: project, After: map[string]string{"name": "default"}})
		owner, err := d.createUser(ctx, tx, UserParams{Email: p.OwnerEmail, Access: Access{Role: sallyport.RoleOwner}})
		if err != nil {
			return made{}, err
		}
		account, err := readAccount(ctx, tx, tx.Account())
		return made{account, owner}, err
	})
	return m.account, m.owner, done, err
}

func newStamp(tx *journal.Tx) Stamp {
	return Stamp{Revision: tx.Revision(), Created: tx.Now(), Modified: tx.Now()}
}

// Account reads the caller's account.
func (d *Directory) Account(ctx context.Context, caller sallyport.Caller) (Account, error) {
	if err := check(caller, authz.AccountGet); err != nil {
		return Account{}, err
	}
	return readAccount(ctx, d.pool, caller.Account)
}

// SetAccountStatus lets an account reach the data plane (Active) or not
// (Suspended). It is for the operator.
func (d *Directory) SetAccountStatus(ctx context.Context, caller sallyport.Caller, op journal.Operation, status object.Status) (Account, journal.Committed, error) {
	read := func(ctx context.Context, q pg.Querier, account sallyport.AccountID, _ string) (Account, error) {
		return readAccount(ctx, q, account)
	}
	return commit(ctx, d, caller, op, read, func(tx *journal.Tx) (Account, error) {
		if err := check(tx.Caller(), authz.AccountSetStatus); err != nil {
			return Account{}, err
		}
		before, err := readAccount(ctx, tx, tx.Account())
		if err != nil {
			return Account{}, err
		}
		switch {
		case status != object.Active && status != object.Suspended:
			return Account{}, sallyport.InvalidField("status", "must be %s or %s", object.Active, object.Suspended)
		case tx.Account() == sallyport.SystemAccount:
			return Account{}, sallyport.Conflict.Errorf("the account %s belongs to the service itself and stays active", tx.Account())
		case before.Status == status:
			return Account{}, nothingToChange()
		}
		if err := updateAccountStatus(ctx, tx, tx.Account(), status, tx.Revision(), tx.Now()); err != nil {
			return Account{}, err
		}
		tx.Target(string(tx.Account()))
		tx.Record(journal.Change{Type: "account", ID: string(tx.Account()),
			Before: map[string]string{"status": string(before.Status)}, After: map[string]string{"status": string(status)}})
		if err := tx.Put(ctx, object.KindAccount, string(tx.Account()), object.Encode(object.Account{Status: status})); err != nil {
			return Account{}, err
		}
		return readAccount(ctx, tx, tx.Account())
	})
}

// EnsureSystem makes the account of what belongs to no tenant, if it is not there.
func (d *Directory) EnsureSystem(ctx context.Context) error {
	_, err := readAccount(ctx, d.pool, sallyport.SystemAccount)
	if !errors.Is(err, sallyport.NotFound) {
		return err
	}
	op := journal.Operation{ID: "ensure-system", Type: "EnsureSystem", NewAccount: true}
	_, err = d.run(ctx, sallyport.OperatorCaller(sallyport.SystemAccount, "sallyportd"), op, func(tx *journal.Tx) error {
		if err := insertAccount(ctx, tx, tx.Account(), "system", tx.Revision(), tx.Now()); err != nil {
			return err
		}
		tx.Record(journal.Change{Type: "account", ID: string(tx.Account()), After: map[string]string{"name": "system"}})
		return tx.Put(ctx, object.KindAccount, string(tx.Account()), object.Encode(object.Account{Status: object.Active}))
	})
	return err
}
