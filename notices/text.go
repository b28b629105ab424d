package notices

import (
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/mail"
)

const (
	maxShown   = 50  // certificates in a mail
	maxSubject = 120 // characters of a certificate's subject
)

// fullName is the namespace as clients know it.
func fullName(name string, account sallyport.AccountID) string { return name + "." + string(account) }

func reason(account sallyport.AccountID) string {
	return fmt.Sprintf("You get this mail as an owner or admin of account %s, or as an admin of the namespace. It was sent automatically.", account)
}

func (t topic) content(list []Expiring, now time.Time) mail.Content {
	name := fullName(t.name, t.account)
	c := mail.Content{Columns: []string{"Subject", "Expires", "SHA-256"}, Reason: reason(t.account)}
	switch t.kind {
	case CA:
		c.Subject = fmt.Sprintf("%s of namespace %s %s within %d days", amount(len(list), "client CA certificate"), name, verb(len(list), "expires", "expire"), t.days)
		c.Paragraphs = []string{
			fmt.Sprintf("Namespace %s accepts clients by certificates of the CAs below. When a CA certificate expires, all clients that connect with certificates of it are turned away at once.", name),
			"Before that: add the CA's new certificate to the namespace beside the old one, give the clients certificates of the new one, and remove the old one when nobody uses it any more.",
		}
		c.After = []string{"Which clients would stop or start working with a new set of CA certificates, and adding it:"}
		c.Commands = []string{
			fmt.Sprintf("sallyport cert check --namespace %s --with new-bundle.pem", name),
			fmt.Sprintf("sallyport ca add --namespace %s new-ca.pem", name),
		}
	case Leaf:
		c.Subject = fmt.Sprintf("%s in use on namespace %s %s within %d days", amount(len(list), "client certificate"), name, verb(len(list), "expires", "expire"), t.days)
		c.Paragraphs = []string{
			fmt.Sprintf("Clients called namespace %s with the certificates below. A client whose certificate expires is turned away at once.", name),
			"Give these clients new certificates before that. If a client has one already and the old certificate is not used any more, there is nothing to do.",
		}
		c.After = []string{"Which client certificates the namespace has seen, and when last:"}
		c.Commands = []string{fmt.Sprintf("sallyport cert seen --namespace %s", name)}
	}
	for _, e := range list[:min(len(list), maxShown)] {
		c.Rows = append(c.Rows, []string{mail.Untrusted(e.Subject, maxSubject), expires(e.NotAfter, now), e.Fingerprint})
	}
	if more := len(list) - maxShown; more > 0 {
		c.After = append([]string{fmt.Sprintf("And %d more.", more)}, c.After...)
	}
	return c
}

func (t Taken) content(now time.Time) mail.Content {
	name := fullName(t.Name, t.Account)
	count := amount(t.Count, "client certificate")
	if t.AtLeast {
		count = "more than " + count
	}
	become := "not accepted any more"
	switch {
	case t.Less == t.Count:
		become = "accepted for reading only"
	case t.Less > 0:
		become += fmt.Sprintf(", or for reading only (%d of them)", t.Less)
	}
	effect := fmt.Sprintf("With that, %s that clients used lately %s %s.", count, verb(t.Count, "is", "are"), become)
	if t.Count == 0 {
		effect = "Clients used too many certificates lately for all to be looked at; some of them may not be accepted any more."
	}
	c := mail.Content{
		Subject: fmt.Sprintf("A change of namespace %s turns away clients that used it", name),
		Paragraphs: []string{
			fmt.Sprintf("At %s %s changed namespace %s: %s.", now.UTC().Format("2006-01-02 15:04 UTC"), t.Caller, name, strings.TrimSuffix(mail.Untrusted(t.What, 300), ".")),
			effect + " If that was not meant, put back what was taken away.",
		},
		Columns: []string{"SHA-256"},
		After:   []string{"Which client certificates the namespace has seen, when last, and why some are refused:"},
		Commands: []string{
			fmt.Sprintf("sallyport cert seen --namespace %s", name),
		},
		Reason:    reason(t.Account),
		Principal: t.Caller,
	}
	for _, f := range t.Fingerprints {
		c.Rows = append(c.Rows, []string{f})
	}
	return c
}

func amount(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// expires says when, and how long that is from now: full days, or hours.
func expires(at, now time.Time) string {
	left := at.Sub(now)
	text := amount(int(left.Hours()/24), "day")
	if left < 48*time.Hour {
		text = amount(int(left.Hours()), "hour")
	}
	return fmt.Sprintf("%s (in %s)", at.UTC().Format("2006-01-02 15:04 UTC"), text)
}
