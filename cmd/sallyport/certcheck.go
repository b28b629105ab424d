package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type certTest struct {
	Namespace string `help:"The namespace that the certificate is for." required:"" placeholder:"NAMESPACE"`
	Cert      string `help:"File with the certificate and what the client sends beside it, PEM. Its key is not needed." required:"" placeholder:"FILE"`
	Method    string `help:"The gRPC method, as of explain." default:"PollWorkflowTaskQueue" placeholder:"METHOD"`
}

// Run asks what an authorizer that holds the newest state would decide.
func (c *certTest) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request := &adminv1.ExplainRequest{Namespace: client.fullName(c.Namespace)}
	if request.Method, err = fullMethod(c.Method); err != nil {
		return err
	}
	if request.Certificate, err = certificatesAlone(c.Cert); err != nil {
		return err
	}
	return s.explain(ctx, client, request)
}

// certificatesAlone reads a file's certificates and leaves the rest of it here:
// a private key beside them goes nowhere.
func certificatesAlone(path string) ([]byte, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	certs, err := certificatesOf(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	chain := make([][]byte, len(certs))
	for i, cert := range certs {
		chain[i] = cert.Raw
	}
	return chainPEM(chain), nil
}

type certSeen struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	Since     *span  `help:"Only those seen within this time. Empty: all that are kept." placeholder:"7d"`
}

// Run lists all pages.
func (c *certSeen) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &adminv1.ListSeenCertificatesRequest{Namespace: client.fullName(c.Namespace)}, &adminv1.ListSeenCertificatesResponse{}
	if c.Since != nil {
		request.Since = timestamppb.New(s.now().Add(-time.Duration(*c.Since)))
	}
	for {
		page, err := client.admin.ListSeenCertificates(ctx, request)
		if err != nil {
			return err
		}
		all.Certificates = append(all.Certificates, page.GetCertificates()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error { return s.seen("no certificates were seen", all.GetCertificates()) })
}

func (s *session) seen(none string, list []*adminv1.SeenCertificate) error {
	var rows [][]string
	for _, c := range list {
		outcome := "let in"
		switch {
		case c.GetRefused() != "":
			outcome = "refused: " + c.GetRefused()
		case c.GetManaged():
			outcome = "let in, issued here"
		}
		rows = append(rows, []string{c.GetFingerprint(), c.GetSubject(), c.GetIssuer(), moment(c.GetNotAfter()), moment(c.GetLastSeenTime()), outcome})
	}
	return s.table(none, []string{"FINGERPRINT", "SUBJECT", "ISSUER", "ENDS", "LAST SEEN", "OUTCOME"}, rows)
}

type certCheck struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	With      string `help:"File with the new bundle of CAs, PEM. Empty: as it is." placeholder:"FILE"`
	Filters   string `help:"File with the new filters, JSON as filter list prints them and tcld reads them. Empty: as they are." placeholder:"FILE"`
	Since     span   `help:"Of the certificates seen within this time." default:"7d" placeholder:"7d"`
}

// Run compares what was seen with what would be.
func (c *certCheck) Run(ctx context.Context, s *session) error {
	if c.With == "" && c.Filters == "" {
		return errors.New("say what is to change: --with and the new bundle, --filters and the new filters, or both")
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request := &adminv1.CheckClientCasRequest{Namespace: client.fullName(c.Namespace), Since: timestamppb.New(s.now().Add(-time.Duration(c.Since)))}
	if c.With != "" {
		if request.Bundle, err = readBounded(c.With); err != nil {
			return err
		}
		if len(request.GetBundle()) == 0 {
			return fmt.Errorf("%s is empty", c.With)
		}
	}
	if c.Filters != "" {
		request.ReplaceFilters = true
		if request.Filters, err = readFilters(c.Filters); err != nil {
			return err
		}
	}
	result, err := client.admin.CheckClientCas(ctx, request)
	if err != nil {
		return err
	}
	if err := s.show(result, func() error { return s.checked(result) }); err != nil {
		return err
	}
	if len(result.GetWouldStop()) > 0 {
		return exitDenied
	}
	return nil
}

func (s *session) checked(r *adminv1.CheckClientCasResponse) error {
	for _, w := range r.GetWarnings() {
		s.note("warning: %s", w)
	}
	if r.GetIncomplete() {
		s.note("warning: more certificates were seen than can be checked at once; give a shorter --since")
	}
	if _, err := fmt.Fprintf(s.stdout, "of %d certificates seen, %d would stop working and %d would start to\n", r.GetChecked(), len(r.GetWouldStop()), len(r.GetWouldStart())); err != nil {
		return err
	}
	for _, part := range []struct {
		heading string
		list    []*adminv1.SeenCertificate
	}{{"would stop:", r.GetWouldStop()}, {"would start:", r.GetWouldStart()}} {
		if len(part.list) == 0 {
			continue
		}
		fmt.Fprintln(s.stdout, part.heading)
		if err := s.seen("", part.list); err != nil {
			return err
		}
	}
	return nil
}
