package cloudapi

import (
	"context"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/certs"
)

const (
	maxCSR    = 16 << 10
	maxReason = 200
	// A serial number has at most 20 octets, and a fingerprint or an issuer's id
	// is a SHA-256.
	maxSerial = 40
)

var lowerHex = regexp.MustCompile(`^[0-9a-f]+$`)

// checkHash refuses what is no SHA-256 in lower-case hexadecimal.
func checkHash(field, text string) error {
	if len(text) != 64 || !lowerHex.MatchString(text) {
		return sallyport.InvalidField(field, "must be a SHA-256 in lower-case hexadecimal: 64 of 0-9a-f")
	}
	return nil
}

// IssueCertificate makes a certificate of the managed CA.
func (a *Admin) IssueCertificate(ctx context.Context, r *adminv1.IssueCertificateRequest) (*adminv1.IssueCertificateResponse, error) {
	c := begin(ctx)
	if err := checkID("service_account_id", r.GetServiceAccountId()); err != nil {
		return nil, err
	}
	params := certs.IssueParams{ServiceAccount: r.GetServiceAccountId(), CSR: r.GetCsr()}
	var err error
	if params.Lifetime, err = lifetimeOf(r.GetLifetime()); err != nil {
		return nil, err
	}
	if err := checkCSR(r.GetCsr()); err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	made, done, err := a.certs.Issue(ctx, c.caller, op, params)
	if err != nil {
		return nil, err
	}
	return &adminv1.IssueCertificateResponse{Certificate: a.certificate(made.Certificate), Chain: made.Chain, AsyncOperationId: done.OperationID}, nil
}

// RenewCertificate makes a certificate's successor.
func (a *Admin) RenewCertificate(ctx context.Context, r *adminv1.RenewCertificateRequest) (*adminv1.RenewCertificateResponse, error) {
	c := begin(ctx)
	params := certs.RenewParams{ID: r.GetCertificateId(), CSR: r.GetCsr()}
	if r.GetCertificateId() != "" {
		if err := checkID("certificate_id", r.GetCertificateId()); err != nil {
			return nil, err
		}
	}
	var err error
	if params.Lifetime, err = lifetimeOf(r.GetLifetime()); err != nil {
		return nil, err
	}
	if err := checkCSR(r.GetCsr()); err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	made, done, err := a.certs.Renew(ctx, c.caller, op, params)
	if err != nil {
		return nil, err
	}
	return &adminv1.RenewCertificateResponse{Certificate: a.certificate(made.Certificate), Chain: made.Chain, AsyncOperationId: done.OperationID}, nil
}

// lifetimeOf reads a lifetime; zero is none. Its bounds are the domain's.
func lifetimeOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.AsDuration() <= 0 {
		return 0, sallyport.InvalidField("lifetime", "must be a duration above zero, such as 86400s")
	}
	return d.AsDuration(), nil
}

func checkCSR(csr []byte) error {
	switch {
	case len(csr) == 0:
		return sallyport.InvalidField("csr", "is required: a PKCS #10 certificate request, as `openssl req -new` makes it")
	case len(csr) > maxCSR:
		return sallyport.InvalidField("csr", "has %d bytes; at most %d are possible", len(csr), maxCSR)
	}
	return nil
}

// GetCertificate reads a certificate that was issued.
func (a *Admin) GetCertificate(ctx context.Context, r *adminv1.GetCertificateRequest) (*adminv1.GetCertificateResponse, error) {
	found, err := read(ctx, begin(ctx), "certificate_id", r.GetCertificateId(), a.certs.Get)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetCertificateResponse{Certificate: a.certificate(found.Certificate), Chain: found.Chain}, nil
}

// ListCertificates lists the certificates that the caller may read.
func (a *Admin) ListCertificates(ctx context.Context, r *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	c := begin(ctx)
	if r.GetServiceAccountId() != "" {
		if err := checkID("service_account_id", r.GetServiceAccountId()); err != nil {
			return nil, err
		}
	}
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.Certificate, string, error) {
		list, next, err := a.certs.List(ctx, c.caller, r.GetServiceAccountId(), p)
		return each(list, a.certificate), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListCertificatesResponse{Certificates: list, NextPageToken: next}, nil
}

func (a *Admin) certificate(c certs.Certificate) *adminv1.Certificate {
	return &adminv1.Certificate{
		Id: c.ID, ServiceAccountId: c.ServiceAccount,
		State:  adminv1.Certificate_State(adminv1.Certificate_State_value["STATE_"+strings.ToUpper(string(c.State(a.now())))]),
		Serial: c.Serial, IssuerId: c.Issuer, Fingerprint: c.Fingerprint, SpiffeId: c.SPIFFEID,
		NotBefore: timestamp(c.NotBefore), NotAfter: timestamp(c.NotAfter), CreatedTime: timestamp(c.Created),
		FirstId: c.First, RenewableUntil: timestamp(c.RenewableUntil), RenewedFrom: c.RenewedFrom,
		RevokedTime: timestamp(c.Revoked), RevocationReason: c.Reason, LastUsedTime: timestamp(c.LastUsed),
	}
}

// ListIssuers lists the account's CAs and the roots that they end at.
func (a *Admin) ListIssuers(ctx context.Context, _ *adminv1.ListIssuersRequest) (*adminv1.ListIssuersResponse, error) {
	c := begin(ctx)
	list, roots, err := a.certs.Issuers(ctx, c.caller)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListIssuersResponse{Roots: roots, Issuers: each(list, func(i certs.Issuer) *adminv1.Issuer {
		return &adminv1.Issuer{Id: i.ID, Certificate: i.Chain, NotBefore: timestamp(i.NotBefore), NotAfter: timestamp(i.NotAfter),
			Current: i.Current, RevokedTime: timestamp(i.Revoked), CrlUrl: i.CRL, Problem: i.Problem}
	})}, nil
}

// Revoke ends a certificate or an issuer.
func (a *Admin) Revoke(ctx context.Context, r *adminv1.RevokeRequest) (*adminv1.RevokeResponse, error) {
	c := begin(ctx)
	if err := checkRevoke(r); err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	ended, done, err := a.certs.Revoke(ctx, c.caller, op, certs.RevokeParams{CertificateID: r.GetCertificateId(), Fingerprint: r.GetFingerprint(),
		Serial: r.GetSerial(), Issuer: r.GetIssuerId(), Reason: r.GetReason()})
	if err != nil {
		return nil, err
	}
	return &adminv1.RevokeResponse{Revocations: each(ended, revocation), AsyncOperationId: done.OperationID}, nil
}

// checkRevoke: one thing is named, and in one way.
func checkRevoke(r *adminv1.RevokeRequest) error {
	ways := 0
	for _, given := range []bool{r.GetCertificateId() != "", r.GetFingerprint() != "", r.GetIssuerId() != ""} {
		if given {
			ways++
		}
	}
	switch {
	case r.GetSerial() != "" && r.GetIssuerId() == "":
		return sallyport.InvalidField("issuer_id", "is required with serial: a serial number is its issuer's")
	case ways != 1:
		return sallyport.InvalidField("certificate_id", "exactly one of certificate_id, fingerprint, serial with issuer_id, and issuer_id alone is required")
	case utf8.RuneCountInString(r.GetReason()) > maxReason:
		return sallyport.InvalidField("reason", "has more than %d characters", maxReason)
	}
	if r.GetCertificateId() != "" {
		return checkID("certificate_id", r.GetCertificateId())
	}
	if r.GetFingerprint() != "" {
		return checkHash("fingerprint", r.GetFingerprint())
	}
	if s := r.GetSerial(); s != "" && (len(s) > maxSerial || !lowerHex.MatchString(s) || s[0] == '0') {
		return sallyport.InvalidField("serial", "must be a positive number in lower-case hexadecimal without leading zeros, of at most %d digits", maxSerial)
	}
	return checkHash("issuer_id", r.GetIssuerId())
}

func revocation(r certs.Revocation) *adminv1.Revocation {
	return &adminv1.Revocation{Fingerprint: r.Fingerprint, Serial: r.Serial, IssuerId: r.Issuer, CertificateId: r.CertificateID,
		Reason: r.Reason, RevokedTime: timestamp(r.Revoked)}
}

// ListRevocations lists what is revoked in the account.
func (a *Admin) ListRevocations(ctx context.Context, r *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	c := begin(ctx)
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.Revocation, string, error) {
		list, next, err := a.certs.Revocations(ctx, c.caller, p)
		return each(list, revocation), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListRevocationsResponse{Revocations: list, NextPageToken: next}, nil
}
