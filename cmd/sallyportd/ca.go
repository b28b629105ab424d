package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

type operatorKeyCommands struct {
	Create operatorKeyCreate `cmd:"" help:"Make the operator's key. Keep a copy apart from the database's backups: without it they open nothing, and beside it everything."`
	Rotate operatorKeyRotate `cmd:"" help:"Make a new operator's key in the file; what the older ones encrypted still opens. Give the file to all copies of the service and start them again."`
}

type operatorKeyCreate struct {
	File string `arg:"" help:"The file, which must not exist."`
}

// Run makes the key.
func (c *operatorKeyCreate) Run(out env) error {
	if err := vault.Create(c.File); err != nil {
		return err
	}
	fmt.Fprintf(out.stdout, "%s: made\n", c.File)
	return nil
}

type operatorKeyRotate struct {
	File string `arg:"" help:"The file."`
}

// Run makes a new key beside the old ones.
func (c *operatorKeyRotate) Run(out env) error {
	if err := vault.Rotate(c.File); err != nil {
		return err
	}
	fmt.Fprintf(out.stdout, "%s: rotated\n", c.File)
	return nil
}

type caCommands struct {
	Init   caInit   `cmd:"" help:"Make the root of the managed CA, or a request for an intermediate that another CA signs."`
	Import caImport `cmd:"" help:"Take the certificate of an intermediate that another CA signed."`
	List   caList   `cmd:"" help:"List the operator's CAs, newest first."`
	Rotate caRotate `cmd:"" help:"Make a new root beside the old one. Accounts follow at their next issue; what was issued stays good."`
	Retire caRetire `cmd:"" help:"Let a root make no new intermediates."`
}

// rootFlags say what root to make.
type rootFlags struct {
	Name    string `help:"The organisation's name, which the certificate shows." required:""`
	Years   int    `help:"How long it lasts." default:"10"`
	KeyType string `help:"Its key: p256 or p384." enum:"p256,p384" default:"p384"`
}

func (f rootFlags) params() certs.RootParams {
	return certs.RootParams{Name: f.Name, Years: f.Years, KeyType: f.KeyType}
}

type caInit struct {
	keyed
	rootFlags
	CSR string `name:"csr" help:"Make a key and write its certificate request here, for another CA to sign: a CA certificate that allows one more level below it." placeholder:"FILE"`
}

// Run makes a root or a request.
func (c *caInit) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		if c.CSR == "" {
			root, err := d.certs.InitRoot(ctx, systemOperator(), c.params())
			if err != nil {
				return err
			}
			return printRoot(out.stdout, root)
		}
		file, err := os.OpenFile(c.CSR, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600) // before a key is made for it
		if err != nil {
			return fmt.Errorf("writing the request: %w", err)
		}
		csr, err := d.certs.RequestIntermediate(ctx, systemOperator(), c.params())
		if err == nil {
			_, err = file.Write(csr)
		}
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(c.CSR)
			return err
		}
		fmt.Fprintf(out.stdout, "%s: have it signed within 90 days, and then: sallyportd ca import CHAIN\n", c.CSR)
		return nil
	})
}

type caImport struct {
	keyed
	Chain       string `arg:"" help:"PEM file with the certificate, and those above it up to the root."`
	TrustDomain string `help:"The --trust-domain of the service, which the chain must allow." default:"dev.sallyport.invalid" placeholder:"HOST"`
}

// Run imports the certificate. The key was made by ca init --csr.
func (c *caImport) Run(ctx context.Context, out env) error {
	if err := checkTrustDomain(c.TrustDomain); err != nil {
		return err
	}
	chain, err := os.ReadFile(c.Chain)
	if err != nil {
		return fmt.Errorf("reading the chain: %w", err)
	}
	return c.withConfig(ctx, domainConfig{trustDomain: c.TrustDomain}, func(d *domain) error {
		root, err := d.certs.ImportIntermediate(ctx, systemOperator(), chain)
		if err != nil {
			return err
		}
		return printRoot(out.stdout, root)
	})
}

type caList struct {
	keyed
	PEM bool `name:"pem" help:"Print the certificates too."`
}

// Run lists the operator's CAs.
func (c *caList) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		list, err := d.certs.ListRoots(ctx)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return sallyport.NotFound.Errorf("there is no root yet; make one with: sallyportd ca init")
		}
		for _, root := range list {
			if err := printRoot(out.stdout, root); err != nil {
				return err
			}
			if c.PEM {
				fmt.Fprintf(out.stdout, "%s", root.Chain)
			}
		}
		return nil
	})
}

type caRotate struct {
	keyed
	rootFlags
}

// Run makes the successor.
func (c *caRotate) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		root, err := d.certs.RotateRoot(ctx, systemOperator(), c.params())
		if err != nil {
			return err
		}
		return printRoot(out.stdout, root)
	})
}

type caRetire struct {
	keyed
	ID string `arg:"" help:"The root's id."`
}

// Run retires the root.
func (c *caRetire) Run(ctx context.Context, out env) error {
	return c.withDomain(ctx, func(d *domain) error {
		root, err := d.certs.RetireRoot(ctx, systemOperator(), c.ID)
		if err != nil {
			return err
		}
		return printRoot(out.stdout, root)
	})
}

// printRoot prints a CA on one line: its id, what it is good for, its end, how
// many accounts' CAs are under it, and its name.
func printRoot(w io.Writer, r certs.Root) error {
	state := "other" // another one makes new intermediates
	switch {
	case r.Chain == nil && r.Retired.IsZero():
		state = "unsigned"
	case !r.Retired.IsZero():
		state = "retired"
	case r.Current:
		state = "current"
	}
	if r.Problem != "" && r.Chain != nil {
		state += " (" + r.Problem + ")"
	}
	_, err := fmt.Fprintf(w, "%s  %s  until %s  issuers %d  %s\n", r.ID, state, r.NotAfter.Format(time.DateOnly), r.Issuers, r.Subject)
	return err
}
