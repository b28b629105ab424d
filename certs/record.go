package certs

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"
)

// recorded is a certificate as the audit record has it.
type recorded struct {
	ServiceAccount string     `json:"service_account"`
	Issuer         string     `json:"issuer"`
	Serial         string     `json:"serial"`
	NotBefore      time.Time  `json:"not_before"`
	NotAfter       time.Time  `json:"not_after"`
	Key            string     `json:"key,omitempty"` // "ECDSA P-256"
	First          string     `json:"first"`
	RenewedFrom    string     `json:"renewed_from,omitempty"`
	Revoked        *time.Time `json:"revoked,omitempty"`
	Reason         string     `json:"reason,omitempty"`
}

// newRecorded takes the key from cert, which may be nil.
func newRecorded(c Certificate, cert *x509.Certificate) recorded {
	r := recorded{ServiceAccount: c.ServiceAccount, Issuer: c.Issuer, Serial: c.Serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		First: c.First, RenewedFrom: c.RenewedFrom, Revoked: orNull(c.Revoked), Reason: c.Reason}
	if cert != nil {
		r.Key = keyText(cert.PublicKey)
	}
	return r
}

func keyText(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return ""
}

// recordedRevocation is a revocation as the audit record has it.
type recordedRevocation struct {
	Issuer      string `json:"issuer,omitempty"`
	Serial      string `json:"serial,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

func (r Revocation) recorded() recordedRevocation {
	return recordedRevocation{r.Issuer, r.Serial, r.Fingerprint, r.CertificateID, r.Reason}
}
