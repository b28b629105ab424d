package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

type certInspect struct {
	File string `arg:"" help:"A certificate, a chain, a bundle of CAs or a certificate request; PEM or DER."`
}

// inspected is a certificate or a request, as inspect shows it.
type inspected struct {
	Kind            string     `json:"kind"` // certificate, CA or request
	Subject         string     `json:"subject"`
	Issuer          string     `json:"issuer,omitempty"`
	Names           []string   `json:"names,omitempty"` // subject alternative names
	ServiceAccount  string     `json:"serviceAccount,omitempty"`
	Account         string     `json:"account,omitempty"`
	Serial          string     `json:"serial,omitempty"`
	IssuerID        string     `json:"issuerId,omitempty"` // of a CA: as which it issues
	Fingerprint     string     `json:"fingerprint,omitempty"`
	FingerprintSHA1 string     `json:"fingerprintSha1,omitempty"`
	NotBefore       *time.Time `json:"notBefore,omitempty"`
	NotAfter        *time.Time `json:"notAfter,omitempty"`
	Key             string     `json:"key"`
	Signature       string     `json:"signature"`
}

// Run shows the file's content.
func (c *certInspect) Run(_ context.Context, s *session) error {
	data, err := readBounded(c.File)
	if err != nil {
		return err
	}
	items, problems, err := inspect(data, s.now())
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if s.json {
		text, err := json.Marshal(struct {
			Items    []inspected `json:"items"`
			Problems []string    `json:"problems"`
		}{items, problems})
		if err != nil {
			return fmt.Errorf("writing JSON: %w", err)
		}
		return s.indented(text)
	}
	for i, item := range items {
		if i > 0 {
			fmt.Fprintln(s.stdout)
		}
		if err := s.inspected(item); err != nil {
			return err
		}
	}
	for _, p := range problems {
		s.note("problem: %s", p)
	}
	return nil
}

func (s *session) inspected(i inspected) error {
	date := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Format(time.RFC3339)
	}
	return s.fields([2]string{"kind", i.Kind}, [2]string{"subject", i.Subject}, [2]string{"issuer", i.Issuer}, [2]string{"names", strings.Join(i.Names, ", ")},
		[2]string{"service account", i.ServiceAccount}, [2]string{"account", i.Account}, [2]string{"serial", i.Serial}, [2]string{"issuer id", i.IssuerID},
		[2]string{"SHA-256", i.Fingerprint}, [2]string{"SHA-1", i.FingerprintSHA1}, [2]string{"from", date(i.NotBefore)}, [2]string{"until", date(i.NotAfter)},
		[2]string{"key", i.Key}, [2]string{"signature", i.Signature})
}

// inspect reads a file, and says what a service would not like of it.
func inspect(data []byte, now time.Time) ([]inspected, []string, error) {
	if request, ok := requestOf(data); ok {
		item := inspected{Kind: "request", Subject: request.Subject.String(), Names: sans(request.DNSNames, request.EmailAddresses, uris(request.URIs)),
			Key: keyName(request.PublicKey), Signature: request.SignatureAlgorithm.String()}
		if _, err := credential.ParseCSR(data); err != nil {
			return []inspected{item}, []string{err.Error()}, nil
		}
		return []inspected{item}, nil, nil
	}
	certs, err := certificatesOf(data)
	if err != nil {
		return nil, nil, err
	}
	items := make([]inspected, len(certs))
	for i, c := range certs {
		items[i] = inspectCertificate(c, certs)
	}
	return items, problemsOf(data, certs, now), nil
}

func inspectCertificate(c *x509.Certificate, file []*x509.Certificate) inspected {
	from, until := c.NotBefore.UTC(), c.NotAfter.UTC()
	item := inspected{Kind: "certificate", Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: credential.SerialText(c.SerialNumber),
		Names:       sans(c.DNSNames, c.EmailAddresses, uris(c.URIs)),
		Fingerprint: credential.Fingerprint(c), FingerprintSHA1: credential.FingerprintSHA1(c), NotBefore: &from, NotAfter: &until,
		Key: keyName(c.PublicKey), Signature: c.SignatureAlgorithm.String()}
	for _, ip := range c.IPAddresses {
		item.Names = append(item.Names, ip.String())
	}
	if c.IsCA {
		item.Kind, item.IssuerID = "CA", credential.IssuerID(c)
		return item
	}
	if _, account, id, ok := spiffe(c); ok {
		item.Account, item.ServiceAccount = string(account), id
	}
	if i := slices.IndexFunc(file, func(ca *x509.Certificate) bool { return ca.IsCA && c.CheckSignatureFrom(ca) == nil }); i >= 0 {
		item.IssuerID = credential.IssuerID(file[i])
	}
	return item
}

// problemsOf judges CAs as a namespace's bundle, and all else as what a client
// presents.
func problemsOf(data []byte, certs []*x509.Certificate, now time.Time) []string {
	if certs[0].IsCA {
		cas, err := credential.ParseClientCAs(data)
		if err != nil {
			return []string{"as a namespace's client CAs: " + err.Error()}
		}
		return credential.ClientCAWarnings(cas, now)
	}
	var problems []string
	if p := credential.NewPresented(certs).Problem; p != "" {
		problems = append(problems, p)
	}
	switch leaf := certs[0]; {
	case now.After(leaf.NotAfter):
		problems = append(problems, "the certificate has expired")
	case now.Before(leaf.NotBefore):
		problems = append(problems, "the certificate is not valid yet")
	}
	return problems
}

// requestOf reads a certificate request, whose signature is not checked.
func requestOf(data []byte) (*x509.CertificateRequest, bool) {
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return nil, false
		}
		data = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(data)
	return request, err == nil
}

// certificatesOf reads the certificates of a file, whatever else it has, in
// their order: at least one.
func certificatesOf(data []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		cert, err := x509.ParseCertificate(data)
		if err != nil {
			return nil, errors.New("is neither PEM nor a certificate in DER form")
		}
		return []*x509.Certificate{cert}, nil
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("has no certificate (-----BEGIN CERTIFICATE-----)")
	}
	return certs, nil
}

func sans(lists ...[]string) []string { return slices.Concat(lists...) }

func uris[U fmt.Stringer](list []U) []string {
	var text []string
	for _, u := range list {
		text = append(text, u.String())
	}
	return text
}

func keyName(public any) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", public), "*")
}
