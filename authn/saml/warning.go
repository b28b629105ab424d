package saml

import (
	"crypto/x509"
	"strings"
	"time"
)

// The expiry policy. What makes a provider's key trusted is that an admin took up the
// metadata that holds it, and an end that was overlooked should not shut a company out
// overnight: a certificate verifies until two weeks after its end, with warnings
// from a month before it. Its beginning may be a day away, for clocks and zones.
const (
	warnBefore = 30 * 24 * time.Hour
	graceAfter = 14 * 24 * time.Hour
	earlyBy    = 24 * time.Hour
)

// WarningKind says what a warning is about.
type WarningKind string

const (
	CertificateUnreadable WarningKind = "certificate unreadable" // and left out
	CertificateEnding     WarningKind = "certificate ending"     // within a month
	CertificateEnded      WarningKind = "certificate ended"      // it verifies until two weeks after, and not later
	CertificateWeak       WarningKind = "certificate weak"       // it verifies only where legacy algorithms are allowed
	MetadataEnding        WarningKind = "metadata ending"        // within a week
	NotEncrypted          WarningKind = "not encrypted"          // a plain HTTP address
)

// Warning is something that a connection's admins should see to.
type Warning struct {
	Kind        WarningKind
	Detail      string
	Certificate *x509.Certificate // that it is about; nil: none
	At          time.Time         // when it ends or ended; zero: it does not
}

// Warnings are those of the provider's metadata at that time, for the connection's page
// and for alarms before it is too late.
func (m Metadata) Warnings(now time.Time) []Warning {
	warnings := certificateWarnings(m.Certificates, now)
	if !m.ValidUntil.IsZero() && now.Add(7*24*time.Hour).After(m.ValidUntil) {
		warnings = append(warnings, Warning{Kind: MetadataEnding, Detail: "the identity provider's metadata is valid until " + m.ValidUntil.Format(time.RFC3339), At: m.ValidUntil})
	}
	for _, address := range []string{m.RedirectURL, m.PostURL} {
		if strings.HasPrefix(strings.ToLower(address), "http:") {
			warnings = append(warnings, Warning{Kind: NotEncrypted, Detail: "people are sent to " + quote(address) + ", which is not encrypted"})
		}
	}
	return warnings
}

func certificateWarnings(list []*x509.Certificate, now time.Time) []Warning {
	var warnings []Warning
	for _, c := range list {
		name := "the identity provider's signing certificate " + Fingerprint(c)[:16]
		if !strong(c) {
			warnings = append(warnings, Warning{Kind: CertificateWeak, Detail: name + " has a weak key: let it make a new one of 2048 bits or more", Certificate: c})
		}
		end := c.NotAfter.UTC()
		switch {
		case now.After(end):
			warnings = append(warnings, Warning{Kind: CertificateEnded, Certificate: c, At: end,
				Detail: name + " ended at " + end.Format(time.RFC3339) + " and is refused from " + end.Add(graceAfter).Format(time.RFC3339) + " on: take up a new one"})
		case now.Add(warnBefore).After(end):
			warnings = append(warnings, Warning{Kind: CertificateEnding, Certificate: c, At: end,
				Detail: name + " ends at " + end.Format(time.RFC3339) + ": take up its successor"})
		}
	}
	return warnings
}

// usable is goxmldsig's check of a certificate's time, by the policy above.
func usable(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore.Add(-earlyBy)) && !now.After(c.NotAfter.Add(graceAfter))
}
