package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os/user"
	"sort"
	"time"

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
func (d database) withDomain(ctx context.Context, do func(*domain) error) error {
	pool, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pg.CheckSchema(ctx, pool); err != nil {
		return err
	}
	domain, err := newDomain(ctx, pool, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := do(domain); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `select pg_notify($1, '')`, journal.Channel) // authorizers need not wait for the next poll
	return err
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

func (d *domain) createAuthorizer(ctx context.Context, name, cell string) (credential.Secret, error) {
	operator := sallyport.OperatorCaller(sallyport.SystemAccount, operatorName())
	authorizer, _, err := d.directory.CreateAuthorizer(ctx, operator, journal.Operation{Type: "CreateAuthorizer"}, name, cell)
	if err != nil {
		return "", err
	}
	return d.operatorKey(ctx, operator, sallyport.Principal{Kind: sallyport.ServiceAccount, ID: authorizer.ID}, "authorizer")
}

func (d *domain) operatorKey(ctx context.Context, operator sallyport.Caller, owner sallyport.Principal, name string) (credential.Secret, error) {
	made, _, err := d.keys.Create(ctx, operator, journal.Operation{Type: "CreateApiKey"},
		apikeys.CreateParams{Owner: owner, DisplayName: name, Expires: time.Now().Add(keyLife)})
	return made.Token, err
}

type accountCommands struct {
	Create   accountCreate   `cmd:"" help:"Make an account and print its owner's first API key."`
	NewEpoch accountNewEpoch `cmd:"" help:"After a restore: say that what the database now holds of an account is right. Until then authorizers that knew more keep the stricter of both."`
	Status   accountStatus   `cmd:"" help:"Suspend an account (its data plane is refused) or make it active again."`
}

type accountCreate struct {
	database
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

type accountNewEpoch struct {
	database
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
	database
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

type authorizerCmds struct {
	Create authorizerCreate `cmd:"" help:"Make an authorizer of a cell and print its API key."`
}

type authorizerCreate struct {
	database
	Name string `help:"A name for the authorizer: the cluster it is for, for example." required:""`
	Cell string `help:"The cell whose accounts it may follow." required:""`
	Out  string `help:"File to write the key to, instead of printing it." placeholder:"FILE"`
}

// Run makes the authorizer.
func (c *authorizerCreate) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		key, err := d.createAuthorizer(ctx, c.Name, c.Cell)
		if err != nil {
			return err
		}
		if c.Out != "" {
			return writePrivate(c.Out, key.Reveal()+"\n")
		}
		fmt.Fprintln(out.stdout, key.Reveal())
		return nil
	})
}

type verifyCommand struct {
	database
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

func (d *domain) verify(ctx context.Context, account sallyport.AccountID) error {
	if _, err := d.journal.VerifyAccount(ctx, account); err != nil {
		return err
	}
	batch, err := d.journal.Snapshot(ctx, account)
	if err != nil {
		return err
	}
	rebuilt, err := d.directory.Objects(ctx, d.pool, account)
	if err != nil {
		return err
	}
	keys, err := d.keys.Objects(ctx, d.pool, account)
	if err != nil {
		return err
	}
	return sameObjects(batch.Objects, append(rebuilt, keys...))
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
