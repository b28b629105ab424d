package credential

import (
	"crypto/x509"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// ClientCAWarnings says which CAs have expired or will within 15 days.
func ClientCAWarnings(cas []*x509.Certificate, now time.Time) []string { return nil }

// ParseChain reads what a client would present.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	return nil, sallyport.Unavailable.Errorf("not yet")
}

// ParseCSR reads a certificate request.
func ParseCSR(data []byte) (*x509.CertificateRequest, error) {
	return nil, sallyport.Unavailable.Errorf("not yet")
}

// AllowedKey says why a managed certificate cannot have this public key.
func AllowedKey(pub any) error { return sallyport.Unavailable.Errorf("not yet") }

// SPIFFEID names a service account as an URI.
func SPIFFEID(trustDomain string, account sallyport.AccountID, serviceAccount string) string {
	return "spiffe://" + trustDomain + "/account/" + string(account) + "/service-account/" + serviceAccount
}

// ParseSPIFFEID is the inverse of SPIFFEID; ok only for its exact form.
func ParseSPIFFEID(uri string) (trustDomain string, account sallyport.AccountID, serviceAccount string, ok bool) {
	return "", "", "", false
}

// Filter matches client certificates.
type Filter struct {
	CommonName             string `json:"common_name,omitempty"`
	Organization           string `json:"organization,omitempty"`
	OrganizationalUnit     string `json:"organizational_unit,omitempty"`
	SubjectAlternativeName string `json:"subject_alternative_name,omitempty"`
}

// Check reports what is wrong with the filter.
func (f Filter) Check() error { return sallyport.Unavailable.Errorf("not yet") }

// CheckFilters checks a namespace's list of filters.
func CheckFilters(list []Filter) error { return sallyport.Unavailable.Errorf("not yet") }

// ID names a filter by its content.
func (f Filter) ID() string { return "" }

// Match reports whether the leaf matches. It does not allocate.
func (f Filter) Match(p *Presented) bool { return false }

// Presented is what a client presented.
type Presented struct {
	Certificates []*x509.Certificate // leaf first
	Fingerprint  string              // the leaf's
	Serial       string              // the leaf's, as SerialText gives it
	Problem      string              // why it is refused whatever the CAs and the time; "" if it is not

	// What the leaf's only URI says, where it has the form of SPIFFEID: a hint
	// for where to look, until a chain to a managed CA of that account proves it.
	TrustDomain    string
	Account        sallyport.AccountID
	ServiceAccount string
}

// NewPresented computes all that every call needs.
func NewPresented(certs []*x509.Certificate) *Presented { return &Presented{Certificates: certs} }

// Anchors are the CA certificates that chains may end at.
type Anchors struct{}

// NewAnchors prepares CA certificates.
func NewAnchors(cas []*x509.Certificate) *Anchors { return &Anchors{} }

// Profile says by which rules a chain is judged.
type Profile uint8

const (
	// CustomerCA is a namespace's own CAs.
	CustomerCA Profile = iota
	// ManagedCA is an account's own CAs under the operator's root.
	ManagedCA
)

// Chain is one way from the leaf to an anchor.
type Chain struct {
	Certificates        []*x509.Certificate // leaf to anchor
	IssuerIDs           []string            // of Certificates[1:]: the leaf's issuer first
	Anchor              string              // fingerprint of the CA it ends at
	NotBefore, NotAfter time.Time           // when all of it is valid
}

// Verified is the outcome of Verify.
type Verified struct {
	Chains              []Chain   // the one that is valid longest first; none if there is a Problem
	NotBefore, NotAfter time.Time // those of the first chain; with a Problem of time, those of the certificate concerned
	Problem             string    // readable; "" = good
}

// Verify looks for the chains from the leaf to the anchors.
func (p *Presented) Verify(a *Anchors, profile Profile, now time.Time) Verified {
	return Verified{Problem: "not yet"}
}
