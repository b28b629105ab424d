package credential

import (
	"crypto/x509"
	"time"
)

// VerifyServer is Verify for customers' CAs but for the extended key usage: that
// of a server, which most published cases have.
func (p *Presented) VerifyServer(a *Anchors, now time.Time) Verified {
	r := CustomerCA.rules()
	r.usage = x509.ExtKeyUsageServerAuth
	return p.verify(a, r, now)
}
