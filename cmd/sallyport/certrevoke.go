package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/credential"
)

type certRevoke struct {
	ID          string `arg:"" optional:"" help:"Id of a certificate that was issued here (cert list)."`
	Cert        string `help:"File with the certificate, whoever issued it." placeholder:"FILE"`
	Fingerprint string `help:"The certificate's SHA-256 fingerprint." placeholder:"HEX"`
	Serial      string `help:"The certificate's serial number, in hexadecimal; with --issuer." placeholder:"HEX"`
	Issuer      string `help:"The issuer: a file with its certificate, or its id (cert inspect)." placeholder:"FILE|ID"`
	IssuerOnly  bool   `help:"Revoke the issuer itself, and all that it has issued and will issue."`
	Reason      string `help:"Why, for the audit log."`
	Wait        span   `help:"How long to wait for authorizers to enforce it." default:"5s" placeholder:"5s"`
}

// Run revokes, and waits for the proof.
func (c *certRevoke) Run(ctx context.Context, s *session) error {
	request, what, err := c.request()
	if err != nil {
		return err
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	done, err := client.admin.Revoke(ctx, request)
	if err != nil {
		return err
	}
	what += beyond(request, done.GetRevocations())
	receipt, err := client.receipt(ctx, request.GetAsyncOperationId(), time.Duration(c.Wait))
	if status.Code(errors.Unwrap(err)) == codes.Unauthenticated && client.pair != nil {
		return s.show(done, func() error {
			s.note("%s revoked. This login's own certificate is too, so log in with another one; `sallyport receipt %s` then shows where that is in force", what, request.GetAsyncOperationId())
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("%s revoked (operation %s), but not where that is in force: %w", what, request.GetAsyncOperationId(), err)
	}
	if err := s.show(receipt, func() error {
		_, err := fmt.Fprintf(s.stdout, "%s revoked: %s\n", what, oneLine(summary(receipt)))
		return err
	}); err != nil {
		return err
	}
	return proved(receipt)
}

// beyond says what was revoked besides what was named. A certificate that is the
// account's own CA is revoked as an issuer.
func beyond(request *adminv1.RevokeRequest, list []*adminv1.Revocation) string {
	switch {
	case len(list) > 1:
		return fmt.Sprintf(" and %d more, renewed from it,", len(list)-1)
	case len(list) == 1 && strings.HasPrefix(revoked(list[0]), "issuer ") && (request.GetFingerprint() != "" || request.GetSerial() != ""):
		return ", a CA of the account, with all certificates that it issued,"
	}
	return ""
}

// request reads which of the ways to name something is used, and names it.
func (c *certRevoke) request() (*adminv1.RevokeRequest, string, error) {
	r := &adminv1.RevokeRequest{Reason: c.Reason, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)}
	ways := 0
	for _, given := range []bool{c.ID != "", c.Cert != "", c.Fingerprint != "", c.Serial != "", c.IssuerOnly} {
		if given {
			ways++
		}
	}
	if ways != 1 || (c.Serial != "" || c.IssuerOnly) != (c.Issuer != "") {
		return nil, "", errors.New("say what to revoke in one way: a certificate's id, --cert FILE, --fingerprint HEX, --serial HEX with --issuer, or --issuer-only with --issuer")
	}
	var err error
	if c.Issuer != "" {
		if r.IssuerId, err = issuerID(c.Issuer); err != nil {
			return nil, "", err
		}
	}
	switch {
	case c.ID != "":
		r.CertificateId = c.ID
		return r, "certificate " + c.ID, nil
	case c.Cert != "":
		data, err := readBounded(c.Cert)
		if err != nil {
			return nil, "", err
		}
		certs, err := certificatesOf(data)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", c.Cert, err)
		}
		r.Fingerprint = credential.Fingerprint(certs[0])
	case c.Fingerprint != "":
		r.Fingerprint = hexText(c.Fingerprint)
	case c.Serial != "":
		r.Serial = strings.TrimLeft(hexText(c.Serial), "0")
		return r, fmt.Sprintf("certificate %s of issuer %s", r.GetSerial(), r.GetIssuerId()), nil
	default:
		return r, "issuer " + r.GetIssuerId(), nil
	}
	return r, "certificate " + r.GetFingerprint(), nil
}

var idOfIssuer = regexp.MustCompile(`^[0-9a-f]{64}$`)

// issuerID reads an issuer's id, or its certificate's.
func issuerID(text string) (string, error) {
	if id := hexText(text); idOfIssuer.MatchString(id) {
		return id, nil
	}
	data, err := readBounded(text)
	if err != nil {
		return "", fmt.Errorf("--issuer is neither an id of 64 hexadecimal digits nor a file: %w", err)
	}
	certs, err := certificatesOf(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", text, err)
	}
	if len(certs) != 1 || !certs[0].IsCA {
		return "", fmt.Errorf("%s is not the certificate of one CA", text)
	}
	return credential.IssuerID(certs[0]), nil
}

// hexText takes away what others write between and before hexadecimal digits.
func hexText(text string) string {
	text = strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(text))
	return strings.TrimPrefix(text, "0x")
}

type certRevocations struct{}

// Run lists all pages.
func (c *certRevocations) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &adminv1.ListRevocationsRequest{}, &adminv1.ListRevocationsResponse{}
	for {
		page, err := client.admin.ListRevocations(ctx, request)
		if err != nil {
			return err
		}
		all.Revocations = append(all.Revocations, page.GetRevocations()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, r := range all.GetRevocations() {
			rows = append(rows, []string{revoked(r), moment(r.GetRevokedTime()), r.GetReason()})
		}
		return s.table("nothing is revoked", []string{"WHAT", "SINCE", "REASON"}, rows)
	})
}

// revoked is what a revocation ended.
func revoked(r *adminv1.Revocation) string {
	switch {
	case r.GetCertificateId() != "":
		return "certificate " + r.GetCertificateId()
	case r.GetFingerprint() != "":
		return "certificate " + r.GetFingerprint()
	case r.GetSerial() != "":
		return fmt.Sprintf("serial %s of %s", r.GetSerial(), r.GetIssuerId())
	}
	return "issuer " + r.GetIssuerId()
}
