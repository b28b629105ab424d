package saml

import (
	"slices"
	"time"
)

// ChangeKind says what is different in metadata that was fetched anew.
type ChangeKind string

const (
	EntityIDChanged    ChangeKind = "entity ID changed"
	URLChanged         ChangeKind = "URL changed"
	CertificateAdded   ChangeKind = "certificate added"
	CertificateRemoved ChangeKind = "certificate removed"
)

// Change is one difference. A certificate is given by its fingerprint.
type Change struct {
	Kind     ChangeKind
	From, To string
	// TakenUp: it is in the metadata that Refresh gives. Otherwise it waits for an admin.
	TakenUp bool
}

// Refresh compares the metadata that a connection uses with what was fetched anew.
// Certificates that are new are taken up by themselves, since a provider that rotates
// publishes the next one beside the old, unless anything says that this is another
// provider: a changed entity ID or URL waits for an admin, and everything that came
// with it. So does what would be the end of a certificate, as a document that lost one
// by mistake must not end anybody's logins; and a new one that is weak, has not begun
// or is one too many.
func Refresh(active, fetched Metadata, now time.Time) (Metadata, []Change) {
	next := active
	next.Certificates = slices.Clone(active.Certificates)
	var changes []Change
	if active.EntityID != fetched.EntityID {
		changes = append(changes, Change{Kind: EntityIDChanged, From: active.EntityID, To: fetched.EntityID})
	}
	for _, u := range [][2]string{{active.RedirectURL, fetched.RedirectURL}, {active.PostURL, fetched.PostURL}} {
		if u[0] != u[1] {
			changes = append(changes, Change{Kind: URLChanged, From: u[0], To: u[1]})
		}
	}
	same := len(changes) == 0
	for _, c := range fetched.Certificates {
		if contains(active.Certificates, c) {
			continue
		}
		take := same && strong(c) && usable(c, now) && !now.After(c.NotAfter) && len(next.Certificates) < maxCertificates
		if take {
			next.Certificates = append(next.Certificates, c)
		}
		changes = append(changes, Change{Kind: CertificateAdded, To: Fingerprint(c), TakenUp: take})
	}
	for _, c := range active.Certificates {
		if !contains(fetched.Certificates, c) {
			changes = append(changes, Change{Kind: CertificateRemoved, From: Fingerprint(c)})
		}
	}
	if same {
		next.ValidUntil = fetched.ValidUntil
	}
	return next, changes
}
