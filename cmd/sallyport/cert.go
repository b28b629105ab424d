package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/cloud-sdk/api/operation/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type certCommands struct {
	Issue       certIssue       `cmd:"" help:"Make a client certificate for a service account. Its id goes to stdout."`
	Renew       certRenew       `cmd:"" help:"Make a certificate's successor, with another key. Its id goes to stdout."`
	Agent       certAgent       `cmd:"" help:"Keep a key and a certificate fresh in a directory, for workers to read."`
	Revoke      certRevoke      `cmd:"" help:"End a certificate or an issuer for ever, and show where that is in force."`
	List        certList        `cmd:"" help:"List the certificates that were issued, as far as you may see them."`
	Inspect     certInspect     `cmd:"" help:"Show what is in a file of certificates or a certificate request, without asking anybody."`
	Test        certTest        `cmd:"" help:"Say whether a certificate would be let in, and why. Exit status 0: allowed, 2: denied."`
	Seen        certSeen        `cmd:"" help:"List the client certificates that were used on a namespace."`
	Check       certCheck       `cmd:"" help:"Say which certificates in use would stop working with other CAs or filters. Exit status 2: some would."`
	Issuers     certIssuers     `cmd:"" help:"List the account's own CAs, and fetch the roots that they end at."`
	Revocations certRevocations `cmd:"" help:"List what is revoked."`
}

type certIssue struct {
	keySource
	ServiceAccount string `help:"Id of the service account (sa_…) that the certificate is." required:"" placeholder:"ID"`
	Lifetime       span   `help:"How long it lives: 10m to 90d, and never longer than its issuer." default:"24h" placeholder:"24h"`
}

// Run makes the key, if it is to be made here, and asks for the certificate.
func (c *certIssue) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	order, err := c.start()
	if err != nil {
		return err
	}
	defer order.discard()
	made, err := client.admin.IssueCertificate(ctx, &adminv1.IssueCertificateRequest{ServiceAccountId: c.ServiceAccount, Csr: order.csr,
		Lifetime: durationpb.New(time.Duration(c.Lifetime)), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.issued(ctx, client, order, made)
}

// granted is the answer to a request for a certificate.
type granted interface {
	proto.Message
	GetCertificate() *adminv1.Certificate
	GetChain() []byte
	GetAsyncOperationId() string
}

// issued keeps a certificate, tells of it, and waits until authorizers know its
// issuer, which may be new.
func (s *session) issued(ctx context.Context, client *client, order *order, made granted) error {
	c := made.GetCertificate()
	if err := order.finish(made.GetChain()); err != nil {
		return fmt.Errorf("certificate %s was made and is lost; revoke it: %w", c.GetId(), err)
	}
	if err := s.show(made, func() error {
		s.note("certificate of %s in %s, until %s", c.GetServiceAccountId(), order.out.path, moment(c.GetNotAfter()))
		_, err := fmt.Fprintln(s.stdout, c.GetId())
		return err
	}); err != nil {
		return err
	}
	return client.settle(ctx, &operation.AsyncOperation{Id: made.GetAsyncOperationId()})
}

type certRenew struct {
	keySource
	ID       string `arg:"" optional:"" help:"The certificate's id. Empty: the one in --cert, or that is logged in with."`
	Cert     string `help:"File with the old certificate, to renew with itself instead of the login." and:"pair" placeholder:"FILE"`
	Key      string `help:"File with the old certificate's key." and:"pair" placeholder:"FILE"`
	Lifetime *span  `help:"How long it lives. Empty: as long as the old one was made for." placeholder:"24h"`
}

// Run asks for the successor, as the certificate itself or by its id.
func (c *certRenew) Run(ctx context.Context, s *session) error {
	p, err := loadProfile(s.profile)
	if err != nil {
		return err
	}
	if c.Cert != "" {
		p = p.with(c.Cert, c.Key)
	}
	switch {
	case c.Cert != "" && c.ID != "":
		return errors.New("give the certificate's id, or --cert and --key")
	case p.Certificate == "" && c.ID == "":
		return errors.New("say which certificate: its id (`sallyport cert list`), or --cert and --key")
	}
	client, err := dial(p, s.timeout)
	if err != nil {
		return err
	}
	defer client.close()
	order, err := c.start()
	if err != nil {
		return err
	}
	defer order.discard()
	request := &adminv1.RenewCertificateRequest{CertificateId: c.ID, Csr: order.csr, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)}
	if c.Lifetime != nil {
		request.Lifetime = durationpb.New(time.Duration(*c.Lifetime))
	}
	made, err := client.admin.RenewCertificate(ctx, request)
	if err != nil {
		return err
	}
	return s.issued(ctx, client, order, made)
}

type certList struct {
	ServiceAccount string `help:"Only this service account's." placeholder:"ID"`
}

// Run lists all pages.
func (c *certList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &adminv1.ListCertificatesRequest{ServiceAccountId: c.ServiceAccount}, &adminv1.ListCertificatesResponse{}
	for {
		page, err := client.admin.ListCertificates(ctx, request)
		if err != nil {
			return err
		}
		all.Certificates = append(all.Certificates, page.GetCertificates()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, c := range all.GetCertificates() {
			used := moment(c.GetLastUsedTime())
			if used == "" {
				used = "never"
			}
			rows = append(rows, []string{c.GetId(), c.GetServiceAccountId(), enumName(c.GetState().String(), "STATE_"),
				moment(c.GetNotAfter()), used, c.GetFingerprint()})
		}
		return s.table("no certificates", []string{"ID", "SERVICE ACCOUNT", "STATE", "ENDS", "LAST USED", "FINGERPRINT"}, rows)
	})
}

type certIssuers struct {
	Out string `help:"New file for the operator's roots, PEM: what others check the account's certificates with." placeholder:"FILE"`
}

// Run lists the account's CAs.
func (c *certIssuers) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	found, err := client.admin.ListIssuers(ctx, &adminv1.ListIssuersRequest{})
	if err != nil {
		return err
	}
	if c.Out != "" {
		file, err := startFile(c.Out)
		if err != nil {
			return err
		}
		defer file.discard()
		if err := file.finish(string(found.GetRoots())); err != nil {
			return err
		}
	}
	return s.show(found, func() error {
		var rows [][]string
		for _, i := range found.GetIssuers() {
			rows = append(rows, []string{i.GetId(), issuerState(i), moment(i.GetNotAfter()), i.GetCrlUrl()})
		}
		return s.table("no issuers: the first certificate makes one", []string{"ID", "STATE", "ENDS", "CRL"}, rows)
	})
}

func issuerState(i *adminv1.Issuer) string {
	switch {
	case i.GetRevokedTime() != nil:
		return "revoked"
	case i.GetProblem() != "":
		return i.GetProblem()
	case i.GetCurrent():
		return "current"
	}
	return "retired"
}
