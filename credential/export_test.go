package credential

import "crypto/x509"

// NewPresentedServer is NewPresented but for the extended key usage: that of a
// server, which most published cases have.
func NewPresentedServer(certs []*x509.Certificate) *Presented {
	return newPresented(certs, x509.ExtKeyUsageServerAuth)
}
