package main

import (
	"context"
	"fmt"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"

	"github.com/sallyport-iam/sallyport"
)

type mtlsCommands struct {
	Enable  mtlsEnable  `cmd:"" help:"Let client certificates in: those that are issued here, and those of the namespace's own CAs."`
	Disable mtlsDisable `cmd:"" help:"Refuse all client certificates. CAs and filters are kept."`
}

type mtlsEnable struct {
	versioned
	Name   string `arg:"" help:"The namespace's name."`
	CAFile string `name:"ca-file" help:"File with the CAs whose certificates it takes, PEM, in place of those that it has. Empty: those that it has." placeholder:"FILE"`
}

// Run enables mTLS.
func (c *mtlsEnable) Run(ctx context.Context, s *session) error {
	var bundle []byte
	if c.CAFile != "" {
		var err error
		if bundle, err = readBounded(c.CAFile); err != nil {
			return err
		}
	}
	return s.setMTLS(ctx, c.Name, c.versioned, "enabled", func(m *namespace.MtlsAuthSpec) {
		m.Enabled = true
		if bundle != nil {
			m.AcceptedClientCa = bundle
		}
	})
}

type mtlsDisable struct {
	versioned
	Name string `arg:"" help:"The namespace's name."`
}

// Run disables mTLS.
func (c *mtlsDisable) Run(ctx context.Context, s *session) error {
	return s.setMTLS(ctx, c.Name, c.versioned, "disabled", func(m *namespace.MtlsAuthSpec) { m.Enabled = false })
}

func (s *session) setMTLS(ctx context.Context, short string, v versioned, word string, set func(*namespace.MtlsAuthSpec)) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	name := client.fullName(short)
	seen, err := client.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: name})
	if err != nil {
		return err
	}
	spec := seen.GetNamespace().GetSpec()
	if spec.MtlsAuth == nil {
		spec.MtlsAuth = &namespace.MtlsAuthSpec{}
	}
	set(spec.GetMtlsAuth())
	done, err := client.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: name, Spec: spec,
		ResourceVersion: v.or(seen.GetNamespace().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	if err := client.settle(ctx, done.GetAsyncOperation()); err != nil {
		return err
	}
	return s.show(done, func() error {
		_, err := fmt.Fprintf(s.stdout, "mTLS %s on %s (operation %s)\n", word, name, done.GetAsyncOperation().GetId())
		return err
	})
}
