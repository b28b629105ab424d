package oidc

import (
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	maxEmail     = 254
	maxName      = 200 // bytes
	maxGroups    = 1000
	maxGroupName = 256 // bytes
	maxAMR       = 20
)

// Identity is who signed in, as the provider says. (Issuer, Subject) is one person
// for ever; all else may change.
type Identity struct {
	Issuer   string // of the token: Microsoft's has the tenant's id in it. GitHub's is that of the connection
	Subject  string // Microsoft: the ids of tenant and object, with a slash between; GitHub: the number of the user
	External string // what SCIM may call externalId or userName; "": nothing
	Email    string // as the provider writes it; "": none, or not one
	// EmailVerified: the provider says that the person has this mailbox, and is one
	// that may say so. An account's own provider may, for domains that the account has
	// proved, which is the caller's to check.
	EmailVerified bool
	Name          string // fit to be shown; may be empty
	Groups        Groups
	Tenant        string // Microsoft: the tenant's id; Google: the Workspace domain (hd); else ""

	// What a back-channel logout will name.
	Sub       string // sub of the ID token; "": there was none
	SessionID string // sid; "": none

	AuthTime time.Time // when the person signed in at the provider, UTC; zero: it does not say
	ACR      string    // how well the person was recognized, in the provider's words
	AMR      []string  // and by what (RFC 8176)
}

// Groups is what the provider says of the person's groups. Without a statement
// nothing may be changed: "no statement" is not "no groups".
type Groups struct {
	Stated bool
	Names  []string // none if not Stated; no name twice
	Why    string   // why there is no statement, for the audit log; "" if Stated
}

// names are the claims' names, with the usual ones where none is set.
func (m Mapping) names() Mapping {
	for field, usual := range map[*string]string{&m.Subject: "sub", &m.External: "sub", &m.Email: "email", &m.Name: "name", &m.Groups: "groups"} {
		if *field == "" {
			*field = usual
		}
	}
	return m
}

// login makes the identity of checked claims: those of the ID token, and for what it
// does not say those of the userinfo endpoint.
func (p Provider) login(token, more claims) (Login, error) {
	names := p.Claims.names()
	received := claims{}
	maps.Copy(received, more)
	maps.Copy(received, token)
	i := Identity{
		Issuer: token.text("iss"), External: short(received.text(names.External)), Name: clean(received.text(names.Name), maxName),
		Groups: groups(received, names.Groups), Sub: token.text("sub"), SessionID: short(token.text("sid")), ACR: clean(token.text("acr"), maxText),
	}
	i.AuthTime, _ = token.time("auth_time")
	if amr, ok := token.texts("amr"); ok && len(amr) <= maxAMR {
		for _, a := range amr {
			i.AMR = append(i.AMR, clean(a, maxText))
		}
	}
	var err error
	switch p.Kind {
	case Google:
		i.Subject = i.Sub
		err = p.google(&i, token)
	case Microsoft:
		err = microsoft(&i, token)
	default:
		// Only what is signed says who it is; only the source of an e-mail says that it is verified.
		if i.Subject = token.text(names.Subject); i.Subject == "" || len(i.Subject) > maxSubject || strings.ContainsFunc(i.Subject, control) {
			err = refuse(WrongSubject, "the ID token has no %s, or one of more than %d bytes", show(names.Subject), maxSubject)
		}
		source := token
		if !token.has(names.Email) {
			source = more
		}
		i.Email = email(source.text(names.Email))
		i.EmailVerified = i.Email != "" && names.Email == "email" && source.yes("email_verified")
	}
	if err != nil {
		return Login{}, err
	}
	return Login{Identity: i, Received: received}, nil
}

// google takes Google's word for a mailbox only where Google hosts it: for gmail.com,
// and for Workspace domains, which the token names in hd. Of other addresses it knows
// only that they were confirmed once.
func (p Provider) google(i *Identity, token claims) error {
	i.Tenant = strings.ToLower(short(token.text("hd")))
	if p.Domains != nil && !slices.Contains(p.Domains, i.Tenant) {
		return refuse(NotAllowed, "the Workspace domain %s is not one of those that may sign in", show(token["hd"]))
	}
	i.Email = email(token.text("email"))
	hosted := i.Tenant != "" || strings.HasSuffix(strings.ToLower(i.Email), "@gmail.com")
	i.EmailVerified = i.Email != "" && hosted && token.yes("email_verified")
	return nil
}

// microsoft names a person by tenant and object, which no other claim does for good.
// The e-mail is whatever the tenant's administrator wrote, and counts only with
// xms_edov: the tenant has proved the address's domain.
func microsoft(i *Identity, token claims) error {
	tenant, object := token.text("tid"), token.text("oid") // the tenant has been checked
	if !tenantID.MatchString(object) {
		return refuse(WrongSubject, "the ID token has no oid; is profile among the scopes?")
	}
	i.Tenant, i.External = tenant, object
	i.Subject = tenant + "/" + object
	i.Email = email(token.text("email"))
	i.EmailVerified = i.Email != "" && token.yes("xms_edov")
	return nil
}

// groups reads the claim of groups. Entra leaves it out where there are too many, and
// says so in _claim_names or hasgroups.
func groups(got claims, name string) Groups {
	elsewhere, _ := got["_claim_names"].(map[string]any)
	_, overflow := elsewhere[name]
	if overflow || !got.has(name) && got.yes("hasgroups") {
		return Groups{Why: "there are too many groups for the token; have the provider send only those assigned to this application, or use SCIM"}
	}
	if _, there := got[name]; !there {
		return Groups{Why: "the provider sent no " + show(name)}
	}
	list, ok := got.texts(name)
	if !ok {
		return Groups{Why: show(name) + " is not a list of texts"}
	}
	if len(list) > maxGroups {
		return Groups{Why: "there are more groups than are taken from a token; use SCIM"}
	}
	stated := Groups{Stated: true, Names: []string{}}
	for _, g := range list {
		if g == "" || len(g) > maxGroupName || strings.ContainsFunc(g, control) {
			return Groups{Why: show(name) + " has something that is not the name of a group"}
		}
		if !slices.Contains(stated.Names, g) {
			stated.Names = append(stated.Names, g)
		}
	}
	return stated
}

// email gives the text if it is one address and nothing else, "" otherwise. Whose
// form it must have is for the directory to say.
func email(text string) string {
	local, domain, ok := strings.Cut(text, "@")
	if !ok || local == "" || domain == "" || len(text) > maxEmail || strings.ContainsAny(text, " \t<>\"(),:;\\[]") ||
		strings.Contains(domain, "@") || clean(text, maxEmail) != text {
		return ""
	}
	return text
}

// short gives the text if it is fit to be an id, "" otherwise.
func short(text string) string {
	if len(text) > maxText || strings.ContainsFunc(text, control) {
		return ""
	}
	return text
}
