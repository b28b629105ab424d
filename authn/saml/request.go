package saml

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	"github.com/russellhaering/goxmldsig"

	"github.com/sallyport-iam/sallyport"
)

// maxRelayState is what every provider must give back (bindings §3.4.3).
const maxRelayState = 80

// Asking is what a login asks of the provider.
type Asking struct {
	// RelayState comes back with the response, through the browser: an opaque reference
	// to what the caller keeps, of at most 80 bytes, and never an address.
	RelayState string
	// Fresh asks for a proof now, whatever session the provider has. Expect.MaxAge holds
	// it to that.
	Fresh bool
	// Post asks for the POST binding where the provider takes both.
	Post bool
}

// Request is a login that was begun. The browser goes to URL; if Form is not empty, by
// posting it.
type Request struct {
	ID   string // what the response must answer: Expect.RequestID
	URL  string
	Form url.Values
}

// NewRequest makes a signed AuthnRequest.
func NewRequest(c Connection, asking Asking, now time.Time) (Request, error) {
	if len(c.Keys) == 0 {
		return Request{}, sallyport.Invalid.Errorf("the connection has no key of ours to sign a request with")
	}
	if len(asking.RelayState) > maxRelayState {
		return Request{}, sallyport.Invalid.Errorf("the relay state is longer than %d bytes", maxRelayState)
	}
	if err := c.IdP.Check(); err != nil {
		return Request{}, err
	}
	var id [20]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Request{}, fmt.Errorf("making a request ID: %w", err)
	}
	request := Request{ID: "_" + hex.EncodeToString(id[:]), URL: c.IdP.RedirectURL}
	post := c.IdP.RedirectURL == "" || asking.Post && c.IdP.PostURL != ""
	if post {
		request.URL = c.IdP.PostURL
	}
	message := saml.AuthnRequest{
		ID: request.ID, Version: "2.0", IssueInstant: now.UTC(), Destination: request.URL,
		Issuer:                      &saml.Issuer{Value: c.EntityID},
		AssertionConsumerServiceURL: c.ACS, ProtocolBinding: saml.HTTPPostBinding,
	}
	if c.NameIDFormat != "" {
		create := true
		message.NameIDPolicy = &saml.NameIDPolicy{AllowCreate: &create, Format: &c.NameIDFormat}
	}
	if asking.Fresh {
		message.ForceAuthn = &asking.Fresh
	}
	var err error
	if post {
		request.Form, err = c.form(&message, asking.RelayState)
	} else {
		request.URL, err = c.redirect(&message, asking.RelayState)
	}
	if err != nil {
		return Request{}, fmt.Errorf("making a request to %s: %w", c.IdP.EntityID, err)
	}
	return request, nil
}

// form is the POST binding: the document carries its signature.
func (c Connection) form(message *saml.AuthnRequest, relayState string) (url.Values, error) {
	signer := saml.ServiceProvider{Key: c.Keys[0].Private, Certificate: c.Keys[0].Certificate, SignatureMethod: dsig.RSASHA256SignatureMethod}
	if err := signer.SignAuthnRequest(message); err != nil {
		return nil, err
	}
	data, err := document(message)
	if err != nil {
		return nil, err
	}
	form := url.Values{"SAMLRequest": {base64.StdEncoding.EncodeToString(data)}}
	if relayState != "" {
		form.Set("RelayState", relayState)
	}
	return form, nil
}

// redirect is the redirect binding (bindings §3.4.4.1): what is signed is the query as
// it stands, in this order.
func (c Connection) redirect(message *saml.AuthnRequest, relayState string) (string, error) {
	data, err := document(message)
	if err != nil {
		return "", err
	}
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	query := "SAMLRequest=" + url.QueryEscape(base64.StdEncoding.EncodeToString(deflated.Bytes()))
	if relayState != "" {
		query += "&RelayState=" + url.QueryEscape(relayState)
	}
	query += "&SigAlg=" + url.QueryEscape(dsig.RSASHA256SignatureMethod)
	digest := sha256.Sum256([]byte(query))
	signature, err := rsa.SignPKCS1v15(nil, c.Keys[0].Private, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	query += "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(signature))
	separator := "?"
	if strings.Contains(c.IdP.RedirectURL, "?") {
		separator = "&"
	}
	return c.IdP.RedirectURL + separator + query, nil
}

func document(message *saml.AuthnRequest) ([]byte, error) {
	d := etree.NewDocument()
	d.SetRoot(message.Element())
	return d.WriteToBytes()
}
