package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// operatorName is kept in the journal with what the operator does.
func operatorName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "operator"
}

// withDomain gives a command the domain on its database.
func (k keyed) withDomain(ctx context.Context, do func(*domain) error) error {
	return k.withConfig(ctx, domainConfig{trustDomain: devTrustDomain}, do) // which only certificates have
}

// withConfig is withDomain for what needs more of the service's configuration.
func (k keyed) withConfig(ctx context.Context, config domainConfig, do func(*domain) error) error {
	pool, err := k.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if config.vault, err = k.vault(); err != nil {
		return err
	}
	config.log = slog.New(slog.DiscardHandler)
	if err := pg.CheckSchema(ctx, pool); err != nil {
		return err
	}
	domain, err := newDomain(ctx, pool, config)
	if err != nil {
		return err
	}
	if err := do(domain); err != nil {
		return err
	}
	return domain.journal.Notify(ctx) // authorizers need not wait for the next poll
}

// keyLife is how long the keys live that the operator's commands make.
const keyLife = 365 * 24 * time.Hour

type madeAccount struct {
	account sallyport.AccountID
	owner   string
	key     credential.Secret
}

func (d *domain) createAccount(ctx context.Context, id sallyport.AccountID, name, email string) (madeAccount, error) {
	operator := sallyport.OperatorCaller(id, operatorName())
	account, owner, _, err := d.directory.CreateAccount(ctx, operator, journal.Operation{Type: "CreateAccount"},
		directory.AccountParams{ID: id, Name: name, OwnerEmail: email})
	if err != nil {
		return madeAccount{}, err
	}
	operator.Account = account.ID
	made, err := d.operatorKey(ctx, operator, sallyport.Principal{Kind: sallyport.User, ID: owner.ID}, "first key of the owner")
	return madeAccount{account.ID, owner.ID, made}, err
}

func (d *domain) operatorKey(ctx context.Context, operator sallyport.Caller, owner sallyport.Principal, name string) (credential.Secret, error) {
	made, _, err := d.keys.Create(ctx, operator, journal.Operation{Type: "CreateApiKey"},
		apikeys.CreateParams{Owner: owner, DisplayName: name, Expires: time.Now().Add(keyLife)})
	return made.Token, err
}

type accountCommands struct {
	Create   accountCreate   `cmd:"" help:"Make an account and print its owner's first API key."`
	OwnerKey accountOwnerKey `cmd:"" help:"Make a key for an owner who has none left, and print it."`
	NewEpoch accountNewEpoch `cmd:"" help:"After a restore: say that what the database now holds of an account is right. Until then authorizers that knew more keep the stricter of both."`
	Status   accountStatus   `cmd:"" help:"Suspend an account (its data plane is refused) or make it active again."`
	Denials  accountDenials  `cmd:"" help:"List refused attempts to change something."`
	Erase    accountErase    `cmd:"" help:"Make a deleted user's personal data in the journal unreadable, for ever."`
}

type accountCreate struct {
	keyed
	Name       string `help:"The organisation's name." required:""`
	OwnerEmail string `help:"E-mail address of the first owner." required:"" placeholder:"ADDRESS"`
	ID         string `help:"The account's id. Empty: a random one." placeholder:"ID"`
}

// Run makes the account.
func (c *accountCreate) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		made, err := d.createAccount(ctx, sallyport.AccountID(c.ID), c.Name, c.OwnerEmail)
		if err != nil {
			return err
		}
		fmt.Fprintf(out.stdout, "account:  %s\nowner:    %s\nAPI key:  %s\n\nThe key is shown this once and ends in a year.\n", made.account, made.owner, made.key.Reveal())
		return nil
	})
}

type accountOwnerKey struct {
	keyed
	Account string `arg:"" help:"The account's id."`
	User    string `help:"The owner's id. Needed when there are several." placeholder:"ID"`
}

// Run makes a key for an owner: the way back when the last key was lost.
func (c *accountOwnerKey) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		operator := sallyport.OperatorCaller(sallyport.AccountID(c.Account), operatorName())
		owners, err := d.owners(ctx, operator)
		if err != nil {
			return err
		}
		if c.User != "" {
			owners = slices.DeleteFunc(owners, func(u directory.User) bool { return u.ID != c.User })
		}
		switch {
		case len(owners) == 0:
			return sallyport.NotFound.Errorf("there is no such active owner in the account")
		case len(owners) > 1:
			var list strings.Builder
			for _, u := range owners {
				fmt.Fprintf(&list, "\n  %s  %s", u.ID, u.Email)
			}
			return sallyport.Invalid.Errorf("the account has several owners; choose one with --user:%s", list.String())
		}
		key, err := d.operatorKey(ctx, operator, sallyport.Principal{Kind: sallyport.User, ID: owners[0].ID}, "made by the operator")
		if err != nil {
			return err
		}
		fmt.Fprintf(out.stdout, "owner:    %s\nAPI key:  %s\n\nThe key is shown this once and ends in a year.\n", owners[0].ID, key.Reveal())
		return nil
	})
}

func (d *domain) owners(ctx context.Context, operator sallyport.Caller) ([]directory.User, error) {
	var owners []directory.User
	for page := (sallyport.Page{Size: 1000}); ; {
		users, next, err := d.directory.Users(ctx, operator, directory.UserFilter{}, page)
		if err != nil {
			return nil, err
		}
		for _, u := range users {
			if u.Access.Role == sallyport.RoleOwner && u.Status == object.Active {
				owners = append(owners, u)
			}
		}
		if page.Token = next; next == "" {
			return owners, nil
		}
	}
}

type accountDenials struct {
	keyed
	Account string `arg:"" help:"The account's id."`
	Days    int    `help:"Of how many days." default:"1"`
}

// Run lists denials, newest first.
func (c *accountDenials) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		list, err := d.journal.Denials(ctx, sallyport.AccountID(c.Account), time.Now().AddDate(0, 0, -c.Days), 1000)
		if err != nil {
			return err
		}
		for _, n := range list {
			fmt.Fprintf(out.stdout, "%s  %4d  %s  %s  %s\n", n.Minute.Format(time.RFC3339), n.Count, n.Caller, n.Type, n.Reason)
		}
		return nil
	})
}

type accountErase struct {
	keyed
	Account string `arg:"" help:"The account's id."`
	User    string `arg:"" help:"The deleted user's id."`
}

// Run destroys the person's key. The user must have been deleted before:
// what is not in the journal is in the users' table.
func (c *accountErase) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		operator := sallyport.OperatorCaller(sallyport.AccountID(c.Account), operatorName())
		_, err := d.directory.User(ctx, operator, c.User)
		if err == nil {
			return sallyport.Conflict.Errorf("the user %s is still there; delete it first", c.User)
		}
		if !errors.Is(err, sallyport.NotFound) {
			return err
		}
		if err := d.journal.Erase(ctx, operator, operator.Account, c.User); err != nil {
			return err
		}
		fmt.Fprintf(out.stdout, "%s: erased; backups from before still have the key\n", c.User)
		return nil
	})
}

type accountNewEpoch struct {
	keyed
	Account string `arg:"" help:"The account's id, or 'all'."`
	Reason  string `help:"Why; kept in the journal." required:""`
}

// Run begins new epochs.
func (c *accountNewEpoch) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		accounts := []sallyport.AccountID{sallyport.AccountID(c.Account)}
		if c.Account == "all" {
			accounts = accounts[:0]
			heads, _, err := d.journal.Heads(ctx)
			if err != nil {
				return err
			}
			for _, h := range heads {
				accounts = append(accounts, h.Account)
			}
		}
		for _, account := range accounts {
			done, err := d.journal.NewEpoch(ctx, sallyport.OperatorCaller(account, operatorName()), account, c.Reason)
			if err != nil {
				return fmt.Errorf("account %s: %w", account, err)
			}
			fmt.Fprintf(out.stdout, "%s: epoch %d\n", account, done.Head.Epoch)
		}
		return nil
	})
}

type accountStatus struct {
	keyed
	Account string `arg:"" help:"The account's id."`
	Status  string `arg:"" help:"active or suspended." enum:"active,suspended"`
}

// Run changes the account's status.
func (c *accountStatus) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		operator := sallyport.OperatorCaller(sallyport.AccountID(c.Account), operatorName())
		_, done, err := d.directory.SetAccountStatus(ctx, operator, journal.Operation{Type: "SetAccountStatus", Request: []byte(c.Status)}, object.Status(c.Status))
		if err != nil {
			return err
		}
		fmt.Fprintf(out.stdout, "%s: %s (operation %s)\n", c.Account, c.Status, done.OperationID)
		return nil
	})
}

type verifyCommand struct {
	keyed
	Account string `help:"Only this account. Empty: all." placeholder:"ID"`
}

// Run checks each account: the chain, the objects' digest, and the objects
// rebuilt from the domain's tables.
func (c *verifyCommand) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		heads, _, err := d.journal.Heads(ctx)
		if err != nil {
			return err
		}
		checked, bad := 0, 0
		for _, h := range heads {
			if c.Account != "" && string(h.Account) != c.Account {
				continue
			}
			checked++
			if err := d.verify(ctx, h.Account); err != nil {
				bad++
				fmt.Fprintf(out.stdout, "%s: %v\n", h.Account, err)
			}
		}
		if checked == 0 {
			return sallyport.NotFound.Errorf("there is no account %s", c.Account)
		}
		if bad > 0 {
			return sallyport.Conflict.Errorf("%d of %d accounts are not as their journals say; compare with a backup before you change anything", bad, checked)
		}
		fmt.Fprintf(out.stdout, "%d accounts verified\n", checked)
		return nil
	})
}

// verify reads what it compares at one moment, while others write.
func (d *domain) verify(ctx context.Context, account sallyport.AccountID) error {
	if _, err := d.journal.VerifyAccount(ctx, account); err != nil {
		return err
	}
	return pg.Snapshot(ctx, d.pool, func(tx pgx.Tx) error {
		batch, err := journal.ReadSnapshot(ctx, tx, account)
		if err != nil {
			return err
		}
		var rebuilt []object.Object
		for _, objects := range []func(context.Context, pg.Querier, sallyport.AccountID) ([]object.Object, error){
			d.directory.Objects, d.keys.Objects, d.certs.Objects, d.clientCAs.Objects, d.tokens.Objects,
		} {
			some, err := objects(ctx, tx, account)
			if err != nil {
				return err
			}
			rebuilt = append(rebuilt, some...)
		}
		return sameObjects(batch.Objects, rebuilt)
	})
}

func sameObjects(replicated, rebuilt []object.Object) error {
	sort.Slice(rebuilt, func(i, j int) bool {
		if rebuilt[i].Kind != rebuilt[j].Kind {
			return rebuilt[i].Kind < rebuilt[j].Kind
		}
		return rebuilt[i].ID < rebuilt[j].ID
	})
	if len(replicated) != len(rebuilt) {
		return fmt.Errorf("%d objects are replicated and the tables give %d", len(replicated), len(rebuilt))
	}
	for i, o := range replicated {
		if r := rebuilt[i]; o.Kind != r.Kind || o.ID != r.ID || !bytes.Equal(o.Data, r.Data) {
			return fmt.Errorf("%s %s differs from the tables' %s %s", o.Kind, o.ID, r.Kind, r.ID)
		}
	}
	return nil
}
