package main

import (
	"context"
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type mtlsCommands struct {
	Enable  mtlsEnable  `cmd:"" help:"Let client certificates in: those that are issued here, and those of the namespace's own CAs."`
	Disable mtlsDisable `cmd:"" help:"Refuse all client certificates; refused while some are in use, unless forced. CAs and filters are kept."`
}

// mtlsChange is a change of what client certificates a namespace lets in.
type mtlsChange struct {
	versioned
	Name  string `arg:"" help:"The namespace's name."`
	Force bool   `help:"Also while certificates are in use that stop working."`
}

type mtlsEnable struct {
	mtlsChange
	CAFile string `name:"ca-file" help:"File with the CAs whose certificates it takes, PEM, in place of those that it has. Empty: those that it has." placeholder:"FILE"`
}

// Run enables mTLS.
func (c *mtlsEnable) Run(ctx context.Context, s *session) error {
	request := &adminv1.SetNamespaceMtlsRequest{Enabled: true, ReplaceClientCa: c.CAFile != ""}
	if c.CAFile != "" {
		var err error
		if request.ClientCa, err = readBounded(c.CAFile); err != nil {
			return err
		}
	}
	return c.set(ctx, s, request, "enabled")
}

type mtlsDisable struct{ mtlsChange }

// Run disables mTLS.
func (c *mtlsDisable) Run(ctx context.Context, s *session) error {
	return c.set(ctx, s, &adminv1.SetNamespaceMtlsRequest{}, "disabled")
}

func (c *mtlsChange) set(ctx context.Context, s *session, request *adminv1.SetNamespaceMtlsRequest, word string) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request.Namespace, request.Force, request.ResourceVersion = client.fullName(c.Name), c.Force, c.or("")
	request.AsyncOperationId = sallyport.NewID(sallyport.OperationPrefix)
	done, err := client.admin.SetNamespaceMtls(ctx, request)
	if err != nil {
		return err
	}
	return s.changed(ctx, client, done, fmt.Sprintf("mTLS %s on %s", word, request.GetNamespace()))
}
