package directory

import (
	"net/mail"
	"strings"

	"github.com/sallyport-iam/sallyport"
)

// emailKey is how e-mail addresses are compared. They are ASCII, so that no two
// letters of other alphabets fold into one of this.
func emailKey(email string) string { return strings.ToLower(email) }

// validEmail checks the form of an address; nobody knows yet that it is read.
func validEmail(field, email string) error {
	if email == "" {
		return sallyport.InvalidField(field, "is required")
	}
	a, err := mail.ParseAddress(email)
	local, domain, _ := strings.Cut(email, "@")
	switch {
	case len(email) > 254 || len(local) > 64:
		return sallyport.InvalidField(field, "is too long; an e-mail address has at most 254 characters, 64 before the @")
	case strings.ContainsFunc(email, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>[]\`, r) }),
		err != nil, a != nil && (a.Address != email || a.Name != ""), domain == "", strings.Contains(domain, "@"):
		return sallyport.InvalidField(field, "is not an e-mail address; give it as name@example.com, in ASCII")
	}
	return nil
}
