package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// Kind is which rules a provider's word goes by.
type Kind string

// The kinds.
const (
	OpenID    Kind = "openid"    // any OpenID provider, of an account
	Google    Kind = "google"    // Google: its e-mails count where Google hosts the mailbox
	Microsoft Kind = "microsoft" // Microsoft Entra ID, of one tenant or of many: who is meant is tenant and object id
	GitHub    Kind = "github"    // GitHub's OAuth, which is not OpenID Connect
)

// Method is how we prove to a provider at its token endpoint who we are (OpenID
// Connect Core 1.0 §9).
type Method string

// The methods.
const (
	SecretBasic   Method = "client_secret_basic"
	SecretPost    Method = "client_secret_post"
	PrivateKeyJWT Method = "private_key_jwt"
	NoMethod      Method = "none" // a public client: PKCE alone
)

// algorithms are those that a token may be signed with: never "none", and no HMAC,
// whose key would be a text that anyone can know who knows the public one.
var algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

// Provider is one connection: a provider, and who we are to it.
type Provider struct {
	Kind Kind
	// Issuer is the provider's identifier, character by character as it writes it
	// itself. Microsoft's for many tenants ends in /organizations/v2.0 or
	// /common/v2.0. GitHub's is https://github.com, or that of an Enterprise Server.
	Issuer   string
	ClientID string
	Method   Method            // "": by what there is of Secret and Key, and what the provider announces
	Secret   credential.Secret // for SecretBasic and SecretPost
	Key      *Key              // for PrivateKeyJWT
	// RedirectURI is where the provider sends the browser back to. Each connection
	// has one of its own: what comes there can be of no other (RFC 9700 §4.4.2).
	RedirectURI string
	Scopes      []string // beside openid; nil: email and profile. GitHub: none is configurable
	Algorithms  []string // that an ID token may be signed with; nil: RS256, PS256, ES256, ES384, EdDSA, as announced
	Claims      Mapping  // only for OpenID
	Tenants     []string // Microsoft: ids of the tenants that may sign in; nil: all that the issuer stands for
	Domains     []string // Google: Workspace domains (hd) that may sign in; nil: all, and accounts without one
}

// Key signs for PrivateKeyJWT: with ES256 or RS256, as its type is.
type Key struct {
	ID      string        // kid, under which the provider has the public key
	Private crypto.Signer // *ecdsa.PrivateKey of P-256, or *rsa.PrivateKey of 2048 bits or more
}

// Mapping says which claims hold what. Empty names stand for the usual claims.
type Mapping struct {
	Subject  string // "": sub. A claim that is never given to another person
	External string // what SCIM calls externalId or userName; "": sub
	Email    string // "": email, whose email_verified counts; any other's e-mail is never verified
	Name     string // "": name
	Groups   string // "": groups
}

// reusable are claims that a provider gives to another person once the first has
// left; who is bound to one would be followed by a stranger.
var reusable = []string{"email", "preferred_username", "upn", "unique_name", "name", "nickname", "given_name", "family_name"}

var (
	tenantID  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	scopeForm = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]{1,200}$`) // RFC 6749 §3.3
)

// Check says what is wrong with the settings: Invalid, with the field's name.
func (p Provider) Check() error {
	for _, check := range []func(Provider) error{Provider.checkIssuer, Provider.checkClient, Provider.checkLists, Provider.checkClaims} {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

func (p Provider) checkIssuer() error {
	if !slices.Contains([]Kind{OpenID, Google, Microsoft, GitHub}, p.Kind) {
		return sallyport.InvalidField("kind", "must be openid, google, microsoft or github")
	}
	u, err := url.Parse(p.Issuer)
	if err != nil || !usable(u) || u.RawQuery != "" || u.ForceQuery || strings.Contains(p.Issuer, "#") || len(p.Issuer) > maxText {
		return sallyport.InvalidField("issuer", "must be a URL such as https://login.example.com, without ? and #")
	}
	switch {
	case p.Kind == Microsoft && microsoftTenant(p.Issuer) == "":
		return sallyport.InvalidField("issuer", "must end in the tenant's id and /v2.0, or in /organizations/v2.0 or /common/v2.0 for many tenants")
	case p.Kind == GitHub && u.Path != "":
		return sallyport.InvalidField("issuer", "must be https://github.com, or the same of a GitHub Enterprise Server")
	}
	return nil
}

func (p Provider) checkClient() error {
	if p.ClientID == "" || len(p.ClientID) > maxText || strings.ContainsFunc(p.ClientID, control) {
		return sallyport.InvalidField("client_id", "is required: the provider gives it when this service is registered there")
	}
	u, err := url.Parse(p.RedirectURI)
	if err != nil || !usable(u) || strings.Contains(p.RedirectURI, "#") || len(p.RedirectURI) > maxURL {
		return sallyport.InvalidField("redirect_uri", "must be a URL of this service")
	}
	switch p.Method {
	case "":
	case SecretBasic, SecretPost:
		if p.Secret == "" {
			return sallyport.InvalidField("client_secret", "is required for %s", p.Method)
		}
	case PrivateKeyJWT:
		if p.Key == nil {
			return sallyport.InvalidField("method", "needs a key to sign with")
		}
	case NoMethod:
		if p.Secret != "" || p.Key != nil {
			return sallyport.InvalidField("method", "none goes with neither a secret nor a key")
		}
	default:
		return sallyport.InvalidField("method", "must be client_secret_basic, client_secret_post, private_key_jwt or none")
	}
	if p.Key != nil && p.Key.algorithm() == "" {
		return sallyport.InvalidField("method", "needs a key of P-256, or of RSA with 2048 bits or more, and its id")
	}
	if p.Kind == GitHub && (p.Secret == "" || p.Method != "" && p.Method != SecretPost) {
		return sallyport.InvalidField("client_secret", "is required, and is what GitHub takes")
	}
	return nil
}

func (p Provider) checkLists() error {
	if len(p.Scopes) > 20 || slices.ContainsFunc(p.Scopes, func(s string) bool { return !scopeForm.MatchString(s) }) {
		return sallyport.InvalidField("scopes", "must be at most 20 texts without blanks")
	}
	if p.Kind == GitHub && p.Scopes != nil {
		return sallyport.InvalidField("scopes", "are not configurable for GitHub")
	}
	for _, a := range p.Algorithms {
		if !slices.Contains(algorithms, a) {
			return sallyport.InvalidField("algorithms", "must be of %s", strings.Join(algorithms, ", "))
		}
	}
	if p.Kind != Microsoft && p.Tenants != nil || len(p.Tenants) > 100 || slices.ContainsFunc(p.Tenants, func(t string) bool { return !tenantID.MatchString(t) }) {
		return sallyport.InvalidField("tenants", "must be ids of Microsoft tenants, at most 100, in small letters")
	}
	if p.Kind != Google && p.Domains != nil || len(p.Domains) > 100 || slices.ContainsFunc(p.Domains, func(d string) bool { return d == "" || d != strings.ToLower(d) }) {
		return sallyport.InvalidField("domains", "must be domains of Google Workspace, at most 100, in small letters")
	}
	return nil
}

func (p Provider) checkClaims() error {
	m := p.Claims
	if p.Kind != OpenID && m != (Mapping{}) {
		return sallyport.InvalidField("claims", "are not configurable for %s", p.Kind)
	}
	for _, name := range []string{m.Subject, m.External, m.Email, m.Name, m.Groups} {
		if len(name) > 200 || strings.ContainsFunc(name, control) {
			return sallyport.InvalidField("claims", "must be names of claims")
		}
	}
	if slices.Contains(reusable, strings.ToLower(m.Subject)) {
		return sallyport.InvalidField("claims.subject", "must not be %s: it may belong to another person one day; leave it empty, or name one that never changes", m.Subject)
	}
	return nil
}

// usable reports whether the URL can be one of a provider or of ours. Which hosts,
// and whether plain HTTP, is for the fetch client to say.
func usable(u *url.URL) bool {
	return (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.Opaque == ""
}

func control(r rune) bool { return r < 0x20 || r == 0x7f }

// algorithm is what the key signs with, "" if it is not good for it.
func (k *Key) algorithm() string {
	if k.ID == "" {
		return ""
	}
	switch private := k.Private.(type) {
	case *ecdsa.PrivateKey:
		if private.Curve == elliptic.P256() {
			return "ES256"
		}
	case *rsa.PrivateKey:
		if private.N.BitLen() >= minRSA {
			return "RS256"
		}
	}
	return ""
}

// Reauthenticates reports whether the provider can be asked to make the person sign
// in anew, and says so in a way that can be checked. Google and GitHub do not.
func (p Provider) Reauthenticates() bool { return p.Kind == OpenID || p.Kind == Microsoft }
