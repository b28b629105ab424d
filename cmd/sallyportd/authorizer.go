package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

type authorizerCmds struct {
	Create authorizerCreate `cmd:"" help:"Make an authorizer of a cell and print its API key."`
	List   authorizerList   `cmd:"" help:"List the authorizers and their keys."`
	Rotate authorizerRotate `cmd:"" help:"Make the successor of an authorizer's key; the old one ends after an overlap."`
	Delete authorizerDelete `cmd:"" help:"End an authorizer and its keys: its streams are cut, and it denies when its copy is too old."`
}

func systemOperator() sallyport.Caller {
	return sallyport.OperatorCaller(sallyport.SystemAccount, operatorName())
}

func (d *domain) createAuthorizer(ctx context.Context, name, cell string) (credential.Secret, error) {
	authorizer, _, err := d.directory.CreateAuthorizer(ctx, systemOperator(), journal.Operation{Type: "CreateAuthorizer"}, name, cell)
	if err != nil {
		return "", err
	}
	return d.operatorKey(ctx, systemOperator(), principalOf(authorizer), "authorizer")
}

func principalOf(a directory.ServiceAccount) sallyport.Principal {
	return sallyport.Principal{Kind: sallyport.ServiceAccount, ID: a.ID}
}

func (d *domain) authorizers(ctx context.Context) ([]directory.ServiceAccount, error) {
	var all []directory.ServiceAccount
	for page := (sallyport.Page{Size: 1000}); ; {
		list, next, err := d.directory.ServiceAccounts(ctx, systemOperator(), page)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
		if page.Token = next; next == "" {
			return all, nil
		}
	}
}

// authorizer finds one by its name or id.
func (d *domain) authorizer(ctx context.Context, nameOrID string) (directory.ServiceAccount, error) {
	all, err := d.authorizers(ctx)
	if err != nil {
		return directory.ServiceAccount{}, err
	}
	for _, a := range all {
		if a.ID == nameOrID || a.Name == nameOrID {
			return a, nil
		}
	}
	return directory.ServiceAccount{}, sallyport.NotFound.Errorf("there is no authorizer %s; see: sallyportd authorizer list", nameOrID)
}

func (d *domain) keysOf(ctx context.Context, a directory.ServiceAccount) ([]apikeys.Key, error) {
	keys, _, err := d.keys.List(ctx, systemOperator(), apikeys.Filter{Owner: a.ID, OwnerKind: sallyport.ServiceAccount}, sallyport.Page{Size: 1000})
	return keys, err
}

// keyOut says where a key goes.
type keyOut struct {
	Out string `help:"File to write the key to, instead of printing it." placeholder:"FILE"`
}

// deliver opens the file before the key is made, so that no key is lost.
func (k keyOut) deliver(stdout io.Writer, create func() (credential.Secret, error)) error {
	if k.Out == "" {
		key, err := create()
		if err == nil {
			fmt.Fprintln(stdout, key.Reveal())
		}
		return err
	}
	file, err := startPrivate(k.Out)
	if err != nil {
		return err
	}
	key, err := create()
	if err != nil {
		file.discard()
		return err
	}
	return file.finish(key.Reveal() + "\n")
}

type authorizerCreate struct {
	keyed
	keyOut
	Name string `help:"A name for the authorizer: the cluster it is for, for example." required:""`
	Cell string `help:"The cell whose accounts it may follow." required:""`
}

// Run makes the authorizer.
func (c *authorizerCreate) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		return c.deliver(out.stdout, func() (credential.Secret, error) { return d.createAuthorizer(ctx, c.Name, c.Cell) })
	})
}

type authorizerList struct{ keyed }

// Run lists the authorizers, a line a key.
func (c *authorizerList) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		all, err := d.authorizers(ctx)
		if err != nil {
			return err
		}
		for _, a := range all {
			keys, err := d.keysOf(ctx, a)
			if err != nil {
				return err
			}
			fmt.Fprintf(out.stdout, "%s  %s\n", a.ID, a.Name)
			for _, k := range keys {
				fmt.Fprintf(out.stdout, "    key %s  %s until %s\n", k.ID, k.State(time.Now()), k.Expires.Format(time.DateOnly))
			}
		}
		return nil
	})
}

type authorizerRotate struct {
	keyed
	keyOut
	Authorizer string        `arg:"" help:"Its name or id."`
	Overlap    time.Duration `help:"How long the old key still works." default:"24h"`
}

// Run makes the successor of the active key that lives longest, or a new key if
// none is active.
func (c *authorizerRotate) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		a, err := d.authorizer(ctx, c.Authorizer)
		if err != nil {
			return err
		}
		keys, err := d.keysOf(ctx, a)
		if err != nil {
			return err
		}
		var newest apikeys.Key
		for _, k := range keys {
			if k.State(time.Now()) == apikeys.Active && k.Expires.After(newest.Expires) {
				newest = k
			}
		}
		return c.deliver(out.stdout, func() (credential.Secret, error) {
			if newest.ID == "" {
				return d.operatorKey(ctx, systemOperator(), principalOf(a), "authorizer")
			}
			made, _, err := d.keys.Rotate(ctx, systemOperator(), journal.Operation{Type: "RotateApiKey"}, newest.ID,
				apikeys.RotateParams{Overlap: c.Overlap, Expires: time.Now().Add(keyLife)})
			return made.Token, err
		})
	})
}

type authorizerDelete struct {
	keyed
	Authorizer string `arg:"" help:"Its name or id."`
}

// Run ends the authorizer.
func (c *authorizerDelete) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		a, err := d.authorizer(ctx, c.Authorizer)
		if err != nil {
			return err
		}
		if _, err := d.directory.DeleteServiceAccount(ctx, systemOperator(), journal.Operation{Type: "DeleteAuthorizer"}, a.ID, 0); err != nil {
			return err
		}
		fmt.Fprintf(out.stdout, "%s (%s): deleted with its keys\n", a.ID, strings.TrimSpace(a.Name))
		return nil
	})
}
