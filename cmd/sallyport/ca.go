package main

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/cloud-sdk/api/operation/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/credential"
)

type caCommands struct {
	List   caList   `cmd:"" help:"List the CAs whose client certificates a namespace takes."`
	Add    caAdd    `cmd:"" help:"Add CAs to those that a namespace takes."`
	Remove caRemove `cmd:"" help:"Take CAs away; refused while their certificates are in use, unless forced."`
}

type caList struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
}

// Run lists the bundle.
func (c *caList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	found, err := client.admin.ListClientCas(ctx, &adminv1.ListClientCasRequest{Namespace: client.fullName(c.Namespace)})
	if err != nil {
		return err
	}
	return s.show(found, func() error {
		if !found.GetMtlsEnabled() {
			s.note("the namespace takes no client certificates; `sallyport namespace mtls enable %s` lets it", c.Namespace)
		}
		var rows [][]string
		for _, ca := range found.GetClientCas() {
			seen := moment(ca.GetLastSeenTime())
			if seen == "" {
				seen = "never"
			}
			rows = append(rows, []string{ca.GetFingerprint(), ca.GetSubject(), moment(ca.GetNotAfter()), seen, ca.GetWarning()})
		}
		return s.table("no CAs", []string{"FINGERPRINT", "SUBJECT", "ENDS", "LAST SEEN", "WARNING"}, rows)
	})
}

type caAdd struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	File      string `arg:"" help:"The CAs' certificates, PEM."`
}

// Run adds the file's certificates to the end of the bundle.
func (c *caAdd) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	bundle, err := readBounded(c.File)
	if err != nil {
		return err
	}
	done, err := client.admin.AddClientCas(ctx, &adminv1.AddClientCasRequest{Namespace: client.fullName(c.Namespace), Certificates: bundle,
		AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.changed(ctx, client, done, fmt.Sprintf("CAs added to %s", client.fullName(c.Namespace)))
}

type caRemove struct {
	Namespace    string   `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	Fingerprints []string `arg:"" optional:"" name:"fingerprint" help:"Of each CA, SHA-256 or SHA-1 (ca list)."`
	File         string   `help:"The CAs' certificates, PEM, instead of fingerprints." placeholder:"FILE"`
	Force        bool     `help:"Also while certificates that they issued are in use, which stop working."`
}

// Run removes the CAs, if nobody needs them.
func (c *caRemove) Run(ctx context.Context, s *session) error {
	if (len(c.Fingerprints) == 0) == (c.File == "") {
		return errors.New("say which CAs: by their fingerprints (`sallyport ca list`), or with --file")
	}
	var prints []string
	for _, f := range c.Fingerprints {
		prints = append(prints, hexText(f))
	}
	if c.File != "" {
		data, err := readBounded(c.File)
		if err != nil {
			return err
		}
		certs, err := certificatesOf(data)
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		for _, cert := range certs {
			prints = append(prints, credential.Fingerprint(cert))
		}
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	done, err := client.admin.RemoveClientCas(ctx, &adminv1.RemoveClientCasRequest{Namespace: client.fullName(c.Namespace), Fingerprints: prints,
		Force: c.Force, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.changed(ctx, client, done, fmt.Sprintf("CAs removed from %s", client.fullName(c.Namespace)))
}

// change is the answer to a change of a namespace's CAs or filters.
type change interface {
	proto.Message
	GetAsyncOperationId() string
	GetWarnings() []string
}

// changed waits until a change is enforced, or a second old, and tells of it.
func (s *session) changed(ctx context.Context, client *client, done change, what string) error {
	for _, w := range done.GetWarnings() {
		s.note("warning: %s", w)
	}
	if err := client.settle(ctx, &operation.AsyncOperation{Id: done.GetAsyncOperationId()}); err != nil {
		return err
	}
	return s.show(done, func() error {
		_, err := fmt.Fprintf(s.stdout, "%s (operation %s)\n", what, done.GetAsyncOperationId())
		return err
	})
}
