// Package samltest is an identity provider for tests: one that says what it is told, in
// every form that real ones use and in some that none does. It knows nothing of ours.
package samltest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"text/template"
	"time"

	"github.com/beevik/etree"
	"github.com/russellhaering/goxmldsig"
)

// IdP is an identity provider.
type IdP struct {
	EntityID    string
	Key         crypto.Signer
	Certificate *x509.Certificate
}

// Certificate makes one for the key, signed by itself.
func Certificate(key crypto.Signer, from, to time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(from.Unix()), Subject: pkix.Name{CommonName: "idp"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Saying is what the provider says, and how. Its texts stand in XML as they are.
type Saying struct {
	ACS, Audience, RequestID string
	Now                      time.Time
	NameID, Format           string
	Groups                   []string
	Padding                  string // one more attribute's value, to make it longer
	DefaultNamespace         bool   // elements have no prefixes

	SignResponse, SignAssertion bool
	Method                      string // of signatures; empty: RSA or ECDSA with SHA-256
	Encrypt                     *Encryption

	// EditAssertion and EditResponse change what is said before it is signed.
	EditAssertion, EditResponse func(*etree.Element)

	// Filled in for the template.
	Issuer, ID, ResponseID, Issued, Until string
	A, P                                  string // prefixes, with their colon
	XA, XP                                string // how they are declared
}

const assertionText = `<{{.A}}Assertion xmlns{{.XA}}="urn:oasis:names:tc:SAML:2.0:assertion" ID="{{.ID}}" Version="2.0" IssueInstant="{{.Issued}}">` +
	`<{{.A}}Issuer>{{.Issuer}}</{{.A}}Issuer>` +
	`<{{.A}}Subject><{{.A}}NameID Format="{{.Format}}">{{.NameID}}</{{.A}}NameID>` +
	`<{{.A}}SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><{{.A}}SubjectConfirmationData Recipient="{{.ACS}}" NotOnOrAfter="{{.Until}}"{{with .RequestID}} InResponseTo="{{.}}"{{end}}/></{{.A}}SubjectConfirmation></{{.A}}Subject>` +
	`<{{.A}}Conditions NotBefore="{{.Issued}}" NotOnOrAfter="{{.Until}}"><{{.A}}AudienceRestriction><{{.A}}Audience>{{.Audience}}</{{.A}}Audience></{{.A}}AudienceRestriction></{{.A}}Conditions>` +
	`<{{.A}}AuthnStatement AuthnInstant="{{.Issued}}" SessionIndex="session-1"><{{.A}}AuthnContext><{{.A}}AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</{{.A}}AuthnContextClassRef></{{.A}}AuthnContext></{{.A}}AuthnStatement>` +
	`<{{.A}}AttributeStatement><{{.A}}Attribute Name="email"><{{.A}}AttributeValue>{{.NameID}}</{{.A}}AttributeValue></{{.A}}Attribute>` +
	`{{with .Groups}}<{{$.A}}Attribute Name="groups">{{range .}}<{{$.A}}AttributeValue>{{.}}</{{$.A}}AttributeValue>{{end}}</{{$.A}}Attribute>{{end}}` +
	`{{with .Padding}}<{{$.A}}Attribute Name="padding"><{{$.A}}AttributeValue>{{.}}</{{$.A}}AttributeValue></{{$.A}}Attribute>{{end}}` +
	`</{{.A}}AttributeStatement></{{.A}}Assertion>`

const responseText = `<{{.P}}Response xmlns{{.XP}}="urn:oasis:names:tc:SAML:2.0:protocol" ID="{{.ResponseID}}" Version="2.0" IssueInstant="{{.Issued}}" Destination="{{.ACS}}"{{with .RequestID}} InResponseTo="{{.}}"{{end}}>` +
	`<{{.A}}Issuer xmlns{{.XA}}="urn:oasis:names:tc:SAML:2.0:assertion">{{.Issuer}}</{{.A}}Issuer>` +
	`<{{.P}}Status><{{.P}}StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></{{.P}}Status></{{.P}}Response>`

// Response gives the document.
func (i IdP) Response(s Saying) ([]byte, error) {
	s.Issuer, s.ID, s.ResponseID = i.EntityID, randomID(), randomID()
	s.Issued, s.Until = s.Now.UTC().Format("2006-01-02T15:04:05.000Z"), s.Now.UTC().Add(5*time.Minute).Format(time.RFC3339)
	if !s.DefaultNamespace {
		s.A, s.P, s.XA, s.XP = "saml:", "samlp:", ":saml", ":samlp"
	}
	assertion, err := element(assertionText, s)
	if err != nil {
		return nil, err
	}
	if s.EditAssertion != nil {
		s.EditAssertion(assertion)
	}
	if s.SignAssertion {
		if assertion, err = i.Sign(assertion, s.Method); err != nil {
			return nil, err
		}
	}
	if s.Encrypt != nil {
		plain, err := write(assertion)
		if err != nil {
			return nil, err
		}
		if assertion, err = s.Encrypt.Element(plain); err != nil {
			return nil, err
		}
	}
	response, err := element(responseText, s)
	if err != nil {
		return nil, err
	}
	response.AddChild(assertion)
	if s.EditResponse != nil {
		s.EditResponse(response)
	}
	if s.SignResponse {
		if response, err = i.Sign(response, s.Method); err != nil {
			return nil, err
		}
	}
	return write(response)
}

// Sign gives the element with a signature after its Issuer.
func (i IdP) Sign(el *etree.Element, method string) (*etree.Element, error) {
	signer, err := dsig.NewSigningContext(i.Key, [][]byte{i.Certificate.Raw})
	if err != nil {
		return nil, err
	}
	signer.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	if method == "" {
		method = dsig.RSASHA256SignatureMethod
		if i.Certificate.PublicKeyAlgorithm == x509.ECDSA {
			method = dsig.ECDSASHA256SignatureMethod
		}
	}
	if err := signer.SetSignatureMethod(method); err != nil {
		return nil, err
	}
	signed, err := signer.SignEnveloped(el)
	if err != nil {
		return nil, err
	}
	last := len(signed.Child) - 1 // appended without its parent's knowledge
	signature := signed.Child[last]
	signed.Child = signed.Child[:last]
	signed.InsertChildAt(1, signature)
	return signed, nil
}

// Metadata is the provider's document, with the certificates given besides its own.
func (i IdP) Metadata(ssoURL string, more ...*x509.Certificate) []byte {
	var keys bytes.Buffer
	for _, c := range append([]*x509.Certificate{i.Certificate}, more...) {
		fmt.Fprintf(&keys, `<KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>%s</X509Certificate></X509Data></KeyInfo></KeyDescriptor>`,
			base64.StdEncoding.EncodeToString(c.Raw))
	}
	return fmt.Appendf(nil, `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID=%q><IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">%s`+
		`<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location=%q/></IDPSSODescriptor></EntityDescriptor>`, i.EntityID, keys.String(), ssoURL)
}

func element(text string, s Saying) (*etree.Element, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, err
	}
	d := etree.NewDocument()
	if err := d.ReadFromBytes(b.Bytes()); err != nil {
		return nil, err
	}
	return d.Root(), nil
}

func write(el *etree.Element) ([]byte, error) {
	d := etree.NewDocument()
	d.SetRoot(el.Copy())
	return d.WriteToBytes()
}

func randomID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err) // there is no test without
	}
	return "_" + hex.EncodeToString(id[:])
}
