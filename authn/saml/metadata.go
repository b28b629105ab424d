package saml

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/crewjam/saml"

	"github.com/sallyport-iam/sallyport"
)

const maxCertificates = 10

// Metadata is what is known of an identity provider: from its document, or from the
// fields that an admin filled in.
type Metadata struct {
	EntityID    string
	RedirectURL string // where a browser is sent to sign in; empty: it does not take this binding
	PostURL     string // where a form is posted to sign in; empty likewise
	// Certificates are those whose keys may sign, with or without an end in common.
	Certificates []*x509.Certificate
	ValidUntil   time.Time // of the document; zero: it does not say
}

// ParseMetadata reads an identity provider's document, of at most 1 MiB, that holds one
// identity provider. A certificate that cannot be read is left out, with a warning; a
// document without any that can is refused, since nothing could be verified then
// (Keycloak's CVE-2026-16443 turned verification off instead). The document's own
// signature is not looked at: an admin decides whether to believe it, by activating it.
func ParseMetadata(data []byte, now time.Time) (Metadata, []Warning, error) {
	bad := func(format string, args ...any) (Metadata, []Warning, error) {
		return Metadata{}, nil, sallyport.InvalidField("metadata", format, args...)
	}
	if err := scan(data, metadataLimits, true); err != nil {
		return bad("the metadata cannot be read: %v", err)
	}
	entity, err := identityProvider(data)
	if err != nil {
		return bad("%v", err)
	}
	if until := entity.ValidUntil; !until.IsZero() && !now.Before(until) {
		return bad("the metadata was valid until %s: get it anew from the identity provider", until.UTC().Format(time.RFC3339))
	}
	m := Metadata{EntityID: entity.EntityID, ValidUntil: entity.ValidUntil.UTC()}
	if entity.ValidUntil.IsZero() {
		m.ValidUntil = time.Time{}
	}
	var warnings []Warning
	for _, descriptor := range entity.IDPSSODescriptors {
		for _, service := range descriptor.SingleSignOnServices {
			switch {
			case service.Binding == saml.HTTPRedirectBinding && m.RedirectURL == "":
				m.RedirectURL = service.Location
			case service.Binding == saml.HTTPPostBinding && m.PostURL == "":
				m.PostURL = service.Location
			}
		}
		for _, key := range descriptor.KeyDescriptors {
			if key.Use != "" && key.Use != "signing" {
				continue
			}
			for _, encoded := range key.KeyInfo.X509Data.X509Certificates {
				c, err := readCertificate(encoded.Data)
				if err != nil {
					warnings = append(warnings, Warning{Kind: CertificateUnreadable, Detail: err.Error()})
				} else if !contains(m.Certificates, c) {
					m.Certificates = append(m.Certificates, c)
				}
			}
		}
	}
	if err := m.Check(); err != nil {
		return Metadata{}, nil, err
	}
	return m, append(warnings, m.Warnings(now)...), nil
}

// identityProvider finds the one entity that is one.
func identityProvider(data []byte) (*saml.EntityDescriptor, error) {
	var one saml.EntityDescriptor
	err := xml.Unmarshal(data, &one)
	if err == nil {
		if len(one.IDPSSODescriptors) == 0 {
			return nil, fmt.Errorf("the metadata is not of an identity provider: it has no IDPSSODescriptor")
		}
		return &one, nil
	}
	var several saml.EntitiesDescriptor
	if xml.Unmarshal(data, &several) != nil {
		return nil, fmt.Errorf("the metadata is no SAML EntityDescriptor: %s", quote(err.Error()))
	}
	providers := slices.DeleteFunc(several.EntityDescriptors, func(e saml.EntityDescriptor) bool { return len(e.IDPSSODescriptors) == 0 })
	if len(providers) != 1 {
		return nil, fmt.Errorf("the metadata is of %d identity providers: give that of the one", len(providers))
	}
	entity := &providers[0]
	if until := several.ValidUntil; until != nil && (entity.ValidUntil.IsZero() || until.Before(entity.ValidUntil)) {
		entity.ValidUntil = *until
	}
	return entity, nil
}

// Check fails with Invalid for metadata that no login could be made with, or that
// would send browsers where none should go.
func (m Metadata) Check() error {
	if m.EntityID == "" || len(m.EntityID) > 1024 {
		return sallyport.InvalidField("entity_id", "the identity provider's entity ID is missing or longer than 1024 bytes")
	}
	if m.RedirectURL == "" && m.PostURL == "" {
		return sallyport.InvalidField("sign_on_url", "the identity provider has no single sign-on URL for HTTP-Redirect or HTTP-POST")
	}
	for _, address := range []string{m.RedirectURL, m.PostURL} {
		if address == "" {
			continue
		}
		u, err := url.Parse(address)
		// javascript: and data: would run in our page (CVE-2023-45683).
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" || len(address) > 2048 {
			return sallyport.InvalidField("sign_on_url", "the single sign-on URL %s is not an https address", quote(address))
		}
	}
	if len(m.Certificates) == 0 {
		return sallyport.InvalidField("certificates", "the identity provider has no signing certificate that can be read: nothing that it sends could be verified")
	}
	if len(m.Certificates) > maxCertificates {
		return sallyport.InvalidField("certificates", "the identity provider has more than %d signing certificates: leave out those that have ended", maxCertificates)
	}
	return nil
}

// ParseCertificates reads the certificates that an admin pasted: PEM, or the base64 of
// one. One that cannot be read is an error here, unlike in a document that others wrote.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	bad := sallyport.InvalidField("certificates", "paste the signing certificates as PEM, at most %d of them", maxCertificates)
	if len(data) > 256<<10 {
		return nil, bad
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		c, err := readCertificate(string(data))
		if err != nil {
			return nil, bad
		}
		return []*x509.Certificate{c}, nil
	}
	var list []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, bad
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, bad
		}
		if !contains(list, c) {
			list = append(list, c)
		}
	}
	if len(list) == 0 || len(list) > maxCertificates {
		return nil, bad
	}
	return list, nil
}

func readCertificate(encoded string) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(stripSpace(encoded))
	if err != nil {
		return nil, fmt.Errorf("a certificate is not base64")
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("a certificate cannot be read: %s", quote(err.Error()))
	}
	return c, nil
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}
