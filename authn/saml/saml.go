// Package saml signs people in through their company's identity provider, as a SAML
// 2.0 service provider. It keeps nothing and shows nothing: it makes requests, reads
// metadata and says whether a response is one to believe.
//
// A response goes through one file a step, and no step looks at what an earlier one
// did not pass: parse.go (the bytes), structure.go (what may be where), signature.go
// (who said it), decrypt.go, response.go (was it said to us, now, because we asked),
// assertion.go and statements.go (about whom, and what). What a step reads is what
// the signature step gave back, never what came in.
//
// crewjam/saml gives the metadata's and the request's types, goxmldsig checks the
// signatures. Neither is asked whether a response is good.
package saml

import (
	"context"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// The XML namespaces that mean something here.
const (
	nsProtocol   = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion  = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsSignature  = "http://www.w3.org/2000/09/xmldsig#"
	nsEncryption = "http://www.w3.org/2001/04/xmlenc#"
	nsXMLEnc11   = "http://www.w3.org/2009/xmlenc11#"
	nsExcC14N    = "http://www.w3.org/2001/10/xml-exc-c14n#"
)

const (
	defaultSkew = 90 * time.Second
	maxSkew     = 5 * time.Minute
	// maxDelay is how old a response may be when it arrives: it is made when the
	// person has signed in, and brought by a redirect.
	maxDelay = 5 * time.Minute
)

// Connection is an account's agreement with one identity provider: who we are to it,
// and who it is to us. Every connection has an entity ID and an ACS of its own, so
// that what one account's provider says can never be taken for another's.
type Connection struct {
	EntityID string // ours, which is the only audience taken
	ACS      string // ours: where its responses are posted, the only recipient taken
	IdP      Metadata
	// Keys are ours, at most four: the first signs requests, any decrypts. Empty: no
	// requests can be made, and nothing can be decrypted.
	Keys []Key

	// AllowUnsolicited takes responses that no request of ours asked for, which
	// anybody who has one can bring to anybody's browser.
	AllowUnsolicited bool
	// AllowLegacy takes SHA-1 signatures and RSA keys under 2048 bits.
	AllowLegacy bool
	// SubjectAttribute is the attribute whose one value names the person, for
	// providers whose NameID is another at each login. Empty: the NameID.
	SubjectAttribute string
	// NameIDFormat is asked for in requests. Empty: whatever the provider is set to send.
	NameIDFormat string
	// Skew is how far the provider's clock may be off; zero: 90 seconds. At most 5
	// minutes.
	Skew time.Duration
}

// Expect is what the caller knows about the login that a response belongs to.
type Expect struct {
	// RequestID is the ID of the request that was made for this login. Empty: none
	// was, and the connection must allow that.
	RequestID string
	// MaxAge is how long ago the person may have proved who he is, where a fresh
	// proof was asked for. Zero: any time.
	MaxAge time.Duration
	// Use takes note that the connection's assertion of this ID was used, until a time
	// after which it would be refused anyway. It must fail with AlreadyExists when that
	// was noted before, in one step with noting it. It is called last, once.
	Use func(ctx context.Context, assertionID string, until time.Time) error
}

// Assertion is what an identity provider said about a person, all of it read from
// bytes that a verified signature covers.
type Assertion struct {
	ID     string
	Issuer string
	// Subject is the name by which the connection knows the person, the same at each
	// login: the NameID, or the value of the connection's SubjectAttribute.
	Subject    string
	NameID     NameID
	Attributes Attributes

	IssuedAt            time.Time
	AuthnInstant        time.Time // when the person proved who he is
	AuthnContext        string    // how, as the provider calls it; may be empty
	SessionIndex        string    // the provider's; may be empty
	SessionNotOnOrAfter time.Time // when the session must end; zero: the provider does not say

	Unsolicited bool
	Encrypted   bool
	// Signed is what carried a signature that was verified: the response, the
	// assertion or both.
	Signed []string
	// SignedBy is the provider's certificate that verified it, DecryptedBy ours (nil:
	// it was not encrypted): who still uses which one.
	SignedBy    *x509.Certificate
	DecryptedBy *x509.Certificate
	// Warnings are for the connection's admins.
	Warnings []Warning
}

// Validate reads the SAMLResponse of a form post, base64 as it came, and says what it
// asserts. The error is a *Refusal, or what Expect.Use failed with.
func Validate(ctx context.Context, c Connection, rawResponse string, e Expect, now time.Time) (assertion Assertion, err error) {
	defer func() {
		// Whatever a library makes of a hostile document ends this login only.
		if p := recover(); p != nil {
			assertion, err = Assertion{}, refuse(StepInternal, "panic: %v", p)
		}
	}()
	if err := c.check(e); err != nil {
		return Assertion{}, err
	}
	now = now.UTC()
	v := &validation{c: c, e: e, now: now, skew: c.skew()}
	assertion, until, err := v.run(rawResponse)
	if err != nil {
		return Assertion{}, err
	}
	if err := e.Use(ctx, assertion.ID, until); err != nil {
		if sallyport.KindOf(err) == sallyport.AlreadyExists {
			// A response that was seen on its way is worth nothing once it was used.
			return Assertion{}, refuse(StepReplay, "the assertion %s was used before", quote(assertion.ID))
		}
		return Assertion{}, err
	}
	return assertion, nil
}

// check fails for a connection that would leave something unchecked.
func (c Connection) check(e Expect) error {
	switch {
	case c.EntityID == "" || c.ACS == "":
		return sallyport.Invalid.Errorf("the connection has no entity ID or no ACS URL of ours")
	case c.IdP.EntityID == "":
		return sallyport.Invalid.Errorf("the connection has no entity ID of the identity provider: give its metadata")
	case len(c.IdP.Certificates) == 0:
		return sallyport.Invalid.Errorf("the connection has no signing certificate of the identity provider: give its metadata")
	case len(c.IdP.Certificates) > maxCertificates || len(c.Keys) > maxKeys:
		return sallyport.Invalid.Errorf("the connection has more than %d certificates of the identity provider or %d keys of ours", maxCertificates, maxKeys)
	case c.Skew < 0 || c.Skew > maxSkew:
		return sallyport.Invalid.Errorf("the connection's clock skew is not between 0 and %s", maxSkew)
	case e.Use == nil:
		return sallyport.Invalid.Errorf("an assertion cannot be taken without noting its use")
	case e.RequestID == "" && !c.AllowUnsolicited:
		return refuse(StepResponse, "no login of ours was begun, and the connection does not take logins begun at the identity provider")
	}
	if u, err := url.Parse(c.ACS); err != nil || u.Host == "" {
		return sallyport.Invalid.Errorf("the connection's ACS URL is none")
	}
	return nil
}

func (c Connection) skew() time.Duration {
	if c.Skew == 0 {
		return defaultSkew
	}
	return c.Skew
}

// validation is one response on its way through the steps.
type validation struct {
	c    Connection
	e    Expect
	now  time.Time
	skew time.Duration

	encrypted   bool
	signed      []string
	signedBy    *x509.Certificate
	decryptedBy *x509.Certificate
}

// run takes the steps in their order. until is when the assertion would be refused
// for its age.
func (v *validation) run(raw string) (_ Assertion, until time.Time, _ error) {
	data, err := decodeBase64(raw)
	if err != nil {
		return Assertion{}, until, err
	}
	root, err := parseResponse(data)
	if err != nil {
		return Assertion{}, until, err
	}
	if err := checkStructure(root, "Response"); err != nil {
		return Assertion{}, until, err
	}
	root, responseSigned, err := v.verify(root)
	if err != nil {
		return Assertion{}, until, err
	}
	if err := v.checkResponse(root, responseSigned); err != nil {
		return Assertion{}, until, err
	}
	element, err := v.assertionOf(root, responseSigned)
	if err != nil {
		return Assertion{}, until, err
	}
	assertion, until, err := v.readAssertion(element)
	if err != nil {
		return Assertion{}, until, err
	}
	assertion.Warnings = certificateWarnings([]*x509.Certificate{v.signedBy}, v.now)
	return assertion, until, nil
}
