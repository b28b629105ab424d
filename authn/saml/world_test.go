package saml_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

const (
	entityID  = "https://sallyport.test/saml/f45a2/c1"
	acs       = "https://sallyport.test/saml/f45a2/c1/acs"
	requestID = "_request-1"
	alice     = "alice@example.com"
	victim    = "victim@example.com"
)

// world is a provider, one that is not ours but as real, and our connection to the first.
type world struct {
	idp, stranger, elliptic samltest.IdP
	metadata                []byte
	c                       saml.Connection
	now                     time.Time
}

// made keeps the keys, which take a second to make. Nothing in a world is changed.
var made = sync.OnceValue(func() world {
	now := time.Now().UTC()
	idp := func(entityID string) samltest.IdP {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		certificate, err := samltest.Certificate(key, now.Add(-time.Hour), now.Add(365*24*time.Hour))
		if err != nil {
			panic(err)
		}
		return samltest.IdP{EntityID: entityID, Key: key, Certificate: certificate}
	}
	w := world{idp: idp("https://idp.example.com"), now: now}
	w.stranger = idp("https://idp.example.com")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	certificate, err := samltest.Certificate(key, now.Add(-time.Hour), now.Add(365*24*time.Hour))
	if err != nil {
		panic(err)
	}
	w.elliptic = samltest.IdP{EntityID: "https://idp.example.com", Key: key, Certificate: certificate}
	w.metadata = w.idp.Metadata("https://idp.example.com/sso", certificate)
	m, _, err := saml.ParseMetadata(w.metadata, now)
	if err != nil {
		panic(err)
	}
	first, err := saml.NewKey("c1", now)
	if err != nil {
		panic(err)
	}
	second, err := saml.NewKey("c1 next", now)
	if err != nil {
		panic(err)
	}
	w.c = saml.Connection{EntityID: entityID, ACS: acs, IdP: m, Keys: []saml.Key{first, second}}
	return w
})

// saying is alice's login, signed as asked.
func (w world) saying(signResponse, signAssertion bool) samltest.Saying {
	return samltest.Saying{
		ACS: acs, Audience: entityID, RequestID: requestID, Now: w.now, NameID: alice, Format: saml.FormatEmail,
		Groups: []string{"admins", "users"}, SignResponse: signResponse, SignAssertion: signAssertion,
	}
}

func (w world) response(t testing.TB, s samltest.Saying) []byte {
	t.Helper()
	data, err := w.idp.Response(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func once(context.Context, string, time.Time) error { return nil }

func (w world) expect() saml.Expect { return saml.Expect{RequestID: requestID, Use: once} }

func (w world) validate(c saml.Connection, data []byte) (saml.Assertion, error) {
	return saml.Validate(context.Background(), c, base64.StdEncoding.EncodeToString(data), w.expect(), w.now)
}

// mustRefuse checks that it is refused at that step (empty: at any) in less than a
// second, and that strangers read nothing of why.
func (w world) mustRefuse(t *testing.T, c saml.Connection, data []byte, step saml.Step, detail string) {
	t.Helper()
	began := time.Now()
	a, err := w.validate(c, data)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
	checkRefusal(t, a, err, step, detail)
}

func checkRefusal(t *testing.T, a saml.Assertion, err error, step saml.Step, detail string) {
	t.Helper()
	var refusal *saml.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("got %q of %q and the error %v, want a refusal", a.Subject, a.Issuer, err)
	}
	if a.Subject != "" || a.NameID.Value != "" {
		t.Errorf("a refused assertion is of %q", a.Subject)
	}
	if !errors.Is(err, sallyport.Unauthenticated) || strings.Contains(err.Error(), string(refusal.Step)+":") || strings.Contains(err.Error(), "example.com") {
		t.Errorf("strangers read %q", err)
	}
	if refusal.Step == saml.StepInternal {
		t.Errorf("it panics: %s", refusal.Detail())
	}
	if step != "" && refusal.Step != step || !strings.Contains(refusal.Detail(), detail) {
		t.Errorf("refused at %s: %s\nwant %s: …%s…", refusal.Step, refusal.Detail(), step, detail)
	}
}

func parse(t testing.TB, data []byte) *etree.Element {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromBytes(data); err != nil {
		t.Fatal(err)
	}
	return d.Root()
}

func write(t testing.TB, el *etree.Element) []byte {
	t.Helper()
	d := etree.NewDocument()
	d.SetRoot(el.Copy())
	data, err := d.WriteToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
