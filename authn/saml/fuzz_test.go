package saml_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/mattermost/xml-roundtrip-validator"

	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

// FuzzScan: what the first step lets through is read alike by others, survives being
// written and read again, and is bounded.
func FuzzScan(f *testing.F) {
	w := made()
	for mode := range 4 {
		f.Add(w.response(f, w.saying(mode&1 != 0, mode&2 != 0)))
	}
	f.Add(w.metadata)
	for _, text := range []string{`<a/>`, `<?xml version="1.0"?><a xmlns:b="urn:x" b:c="d">e</a>`, `<a::b/>`, `<a b:="c"/>`, `<!DOCTYPE a><a/>`, `<a><![CDATA[b]]></a>`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := saml.Scan(data)
		if err != nil {
			return
		}
		if err := validator.Validate(bytes.NewReader(data)); err != nil {
			t.Errorf("it does not survive a round trip: %v", err)
		}
		if again := write(t, parse(t, data)); saml.Scan(again) != nil {
			t.Errorf("written again it is refused: %s", again)
		}
		depth := 0
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("encoding/xml refuses it: %v", err)
			}
			switch token.(type) {
			case xml.StartElement:
				depth++
			case xml.EndElement:
				depth--
			case xml.Directive, xml.Comment:
				t.Error("a directive or comment got through")
			}
			if depth > 24 {
				t.Error("it is deep")
			}
		}
	})
}

// FuzzValidate: whatever is done to alice's responses, nobody else signs in, and nothing
// panics.
func FuzzValidate(f *testing.F) {
	w := made()
	for mode := range 4 {
		s := w.saying(mode&1 != 0, mode&2 != 0)
		data := w.response(f, s)
		f.Add(data)
		s.DefaultNamespace = true
		f.Add(w.response(f, s))
		s.Encrypt = &samltest.Encryption{To: w.c.Keys[0].Certificate, Data: "aes256-gcm", Key: "rsa-oaep"}
		f.Add(w.response(f, s))
		f.Add([]byte(strings.ReplaceAll(string(data), alice, victim)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := saml.Validate(t.Context(), w.c, base64.StdEncoding.EncodeToString(data), w.expect(), w.now)
		var refusal *saml.Refusal
		switch {
		case err == nil && a.Subject != alice:
			t.Errorf("%q signs in", a.Subject)
		case err == nil:
		case !errors.As(err, &refusal):
			t.Errorf("it is no refusal: %v", err)
		case refusal.Step == saml.StepInternal:
			t.Error(refusal.Detail())
		}
	})
}

// FuzzMetadata: a provider's document of a stranger.
func FuzzMetadata(f *testing.F) {
	w := made()
	f.Add(w.metadata)
	f.Add(w.idp.Metadata(sso))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := saml.ParseMetadata(data, w.now)
		if err != nil {
			return
		}
		if err := m.Check(); err != nil || len(m.Certificates) == 0 {
			t.Errorf("it is taken though %v", err)
		}
		if m.RedirectURL != "" && !strings.HasPrefix(strings.ToLower(m.RedirectURL), "http") {
			t.Errorf("people are sent to %q", m.RedirectURL)
		}
	})
}
