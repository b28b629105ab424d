package saml_test

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

const sso = "https://idp.example.com/sso"

func TestParseMetadata(t *testing.T) {
	w := made()
	good := string(w.idp.Metadata(sso))
	keyInfo := `<KeyDescriptor%s><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>%s</X509Certificate></X509Data></KeyInfo></KeyDescriptor><SingleSignOnService`
	add := func(use, certificate string) string {
		return strings.Replace(good, "<SingleSignOnService", fmt.Sprintf(keyInfo, use, certificate), 1)
	}
	second := base64.StdEncoding.EncodeToString(w.stranger.Certificate.Raw)
	for _, test := range []struct {
		name         string
		text         string
		certificates int
		warnings     []saml.WarningKind
		err          string
	}{
		{"good", good, 1, nil, ""},
		{"with remarks", "<?xml version=\"1.0\"?><!-- x --><?x y?>" + good, 1, nil, ""},
		{"two certificates", add(` use="signing"`, second), 2, nil, ""},
		{"one of any use", add("", second), 2, nil, ""},
		{"one in lines", add("", "\n  "+second[:64]+"\n  "+second[64:]+"\n"), 2, nil, ""},
		{"one for encryption", add(` use="encryption"`, second), 1, nil, ""},
		{"the same twice", add("", base64.StdEncoding.EncodeToString(w.idp.Certificate.Raw)), 1, nil, ""},
		{"one that cannot be read", add("", "AAAA"), 1, []saml.WarningKind{saml.CertificateUnreadable}, ""},
		{"one that is not base64", add("", "?"), 1, []saml.WarningKind{saml.CertificateUnreadable}, ""},
		{"plain HTTP", strings.Replace(good, "https://idp.example.com/sso", "http://idp.example.com/sso", 1), 1, []saml.WarningKind{saml.NotEncrypted}, ""},
		{"in a list of one", `<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata">` + good + "</EntitiesDescriptor>", 1, nil, ""},
		{"in a list that is over", `<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" validUntil="2020-01-01T00:00:00Z">` + good + "</EntitiesDescriptor>", 0, nil, "valid until"},
		{"two providers", `<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata">` + good + good + "</EntitiesDescriptor>", 0, nil, "2 identity providers"},
		{"none that can be read", strings.Replace(good, "MII", "AAA", 1), 0, nil, "no signing certificate"},
		{"no provider", strings.ReplaceAll(good, "IDPSSODescriptor", "SPSSODescriptor"), 0, nil, "IDPSSODescriptor"},
		{"a script for an address", strings.Replace(good, sso, "javascript:alert(1)", 1), 0, nil, ""},
		{"an address with a password", strings.Replace(good, sso, "https://a:b@idp.example.com/", 1), 0, nil, "https address"},
		{"no address", strings.Replace(good, "HTTP-Redirect", "SOAP", 1), 0, nil, "single sign-on URL"},
		{"no entity ID", strings.Replace(good, "entityID", "x", 1), 0, nil, "entity ID"},
		{"over", strings.Replace(good, "entityID", `validUntil="2020-01-01T00:00:00Z" entityID`, 1), 0, nil, "valid until"},
		{"over soon", strings.Replace(good, "entityID", `validUntil="`+w.now.Add(time.Hour).Format(time.RFC3339)+`" entityID`, 1), 1, []saml.WarningKind{saml.MetadataEnding}, ""},
		{"a page", "<html></html>", 0, nil, "EntityDescriptor"},
		{"nothing", "", 0, nil, "cannot be read"},
		{"a DOCTYPE", "<!DOCTYPE x>" + good, 0, nil, "DOCTYPE"},
		{"2 MB", good + strings.Repeat(" ", 2<<20), 0, nil, "larger"},
		{"deep", strings.Repeat("<a>", 1000) + strings.Repeat("</a>", 1000), 0, nil, "nested"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, warnings, err := saml.ParseMetadata([]byte(test.text), w.now)
			if test.certificates == 0 {
				if !errors.Is(err, sallyport.Invalid) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var kinds []saml.WarningKind
			for _, warning := range warnings {
				kinds = append(kinds, warning.Kind)
			}
			if len(m.Certificates) != test.certificates || m.EntityID != w.idp.EntityID || m.RedirectURL == "" {
				t.Errorf("got %+v", m)
			}
			if diff := cmp.Diff(test.warnings, kinds); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseCertificates(t *testing.T) {
	w := made()
	text := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	one, two := text(w.idp.Certificate), text(w.stranger.Certificate)
	for name, test := range map[string]struct {
		text string
		want int
	}{
		"one": {one, 1}, "two": {one + "\n" + two, 2}, "twice": {one + one, 1}, "base64": {base64.StdEncoding.EncodeToString(w.idp.Certificate.Raw), 1},
		"nothing": {"", 0}, "words": {"hello", 0}, "a key": {strings.ReplaceAll(one, "CERTIFICATE", "PRIVATE KEY"), 0}, "one and words": {one + "hello", 0},
		"many": {strings.Repeat("x", 1<<20), 0},
	} {
		list, err := saml.ParseCertificates([]byte(test.text))
		if len(list) != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v", name, len(list), err)
		}
	}
}

func TestRefresh(t *testing.T) {
	w := made()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakCertificate, err := samltest.Certificate(weak, w.now.Add(-time.Hour), w.now.Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	active := saml.Metadata{EntityID: "e", RedirectURL: sso, Certificates: []*x509.Certificate{w.idp.Certificate}}
	type change struct {
		Kind    saml.ChangeKind
		TakenUp bool
	}
	for _, test := range []struct {
		name    string
		fetched saml.Metadata
		certs   int
		changes []change
	}{
		{"the same", active, 1, nil},
		{"one more", saml.Metadata{EntityID: "e", RedirectURL: sso, Certificates: []*x509.Certificate{w.idp.Certificate, w.stranger.Certificate}}, 2,
			[]change{{saml.CertificateAdded, true}}},
		{"another in its place", saml.Metadata{EntityID: "e", RedirectURL: sso, Certificates: []*x509.Certificate{w.stranger.Certificate}}, 2,
			[]change{{saml.CertificateAdded, true}, {saml.CertificateRemoved, false}}},
		{"a weak one", saml.Metadata{EntityID: "e", RedirectURL: sso, Certificates: []*x509.Certificate{w.idp.Certificate, weakCertificate}}, 1,
			[]change{{saml.CertificateAdded, false}}},
		{"another entity", saml.Metadata{EntityID: "f", RedirectURL: sso, Certificates: []*x509.Certificate{w.stranger.Certificate}}, 1,
			[]change{{saml.EntityIDChanged, false}, {saml.CertificateAdded, false}, {saml.CertificateRemoved, false}}},
		{"another address", saml.Metadata{EntityID: "e", RedirectURL: sso + "2", PostURL: sso, Certificates: []*x509.Certificate{w.idp.Certificate, w.stranger.Certificate}}, 1,
			[]change{{saml.URLChanged, false}, {saml.URLChanged, false}, {saml.CertificateAdded, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			next, changes := saml.Refresh(active, test.fetched, w.now)
			var got []change
			for _, c := range changes {
				got = append(got, change{c.Kind, c.TakenUp})
			}
			if diff := cmp.Diff(test.changes, got); diff != "" {
				t.Error(diff)
			}
			if len(next.Certificates) != test.certs || next.EntityID != "e" || next.RedirectURL != sso || next.PostURL != "" {
				t.Errorf("got %+v", next)
			}
			if len(active.Certificates) != 1 {
				t.Error("what is active was changed")
			}
		})
	}
}

func TestOwnMetadata(t *testing.T) {
	w := made()
	c := w.c
	c.NameIDFormat = saml.FormatPersistent
	data, err := c.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	root := parse(t, data)
	if root.SelectAttrValue("entityID", "") != entityID || strings.Contains(string(data), "validUntil") || bytes.Contains(data, []byte("PRIVATE")) {
		t.Errorf("it says\n%s", data)
	}
	var got []string
	for _, el := range root.FindElements("//KeyDescriptor") {
		got = append(got, el.SelectAttrValue("use", "")+" "+el.FindElement(".//X509Certificate").Text()[:40])
	}
	var want []string
	for _, key := range c.Keys {
		raw := base64.StdEncoding.EncodeToString(key.Certificate.Raw)[:40]
		want = append(want, "signing "+raw, "encryption "+raw)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	service := root.FindElement("//AssertionConsumerService")
	if service.SelectAttrValue("Location", "") != acs || !strings.HasSuffix(service.SelectAttrValue("Binding", ""), "HTTP-POST") {
		t.Errorf("the ACS is %v", service.Attr)
	}
}

func TestNewRequest(t *testing.T) {
	w := made()
	c := w.c
	c.IdP.RedirectURL, c.IdP.PostURL = sso+"?tenant=x", sso+"/post"
	r, err := saml.NewRequest(c, saml.Asking{RelayState: "a b&c=d", Fresh: true}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if len(r.Form) != 0 || q.Get("tenant") != "x" || q.Get("RelayState") != "a b&c=d" {
		t.Errorf("it goes to %s", r.URL)
	}
	deflated, err := base64.StdEncoding.DecodeString(q.Get("SAMLRequest"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := io.ReadAll(flate.NewReader(bytes.NewReader(deflated)))
	if err != nil {
		t.Fatal(err)
	}
	root := parse(t, document)
	for name, want := range map[string]string{
		"ID": r.ID, "Destination": c.IdP.RedirectURL, "AssertionConsumerServiceURL": acs, "ForceAuthn": "true", "Version": "2.0",
		"ProtocolBinding": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST",
	} {
		if got := root.SelectAttrValue(name, ""); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := root.SelectElement("Issuer").Text(); got != entityID {
		t.Errorf("the issuer is %q", got)
	}
	_, signed, _ := strings.Cut(r.URL, "?tenant=x&")
	signed, _, _ = strings.Cut(signed, "&Signature=")
	signature, err := base64.StdEncoding.DecodeString(q.Get("Signature"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPKCS1v15(&c.Keys[0].Private.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Error("the query's signature:", err)
	}

	posted, err := saml.NewRequest(c, saml.Asking{RelayState: "x", Post: true}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	document, err = base64.StdEncoding.DecodeString(posted.Form.Get("SAMLRequest"))
	if err != nil {
		t.Fatal(err)
	}
	if posted.URL != c.IdP.PostURL || posted.Form.Get("RelayState") != "x" || posted.ID == r.ID || parse(t, document).SelectElement("Signature") == nil {
		t.Errorf("it posts to %s: %s", posted.URL, document)
	}

	if _, err := saml.NewRequest(c, saml.Asking{RelayState: strings.Repeat("x", 81)}, w.now); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("a long relay state: %v", err)
	}
	c.Keys = nil
	if _, err := saml.NewRequest(c, saml.Asking{}, w.now); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("without key: %v", err)
	}
}

func TestKey(t *testing.T) {
	w := made()
	key := w.c.Keys[0]
	data, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := saml.ParseKey(data)
	if err != nil || !again.Private.Equal(key.Private) || !again.Certificate.Equal(key.Certificate) {
		t.Errorf("it is another: %v", err)
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", w.c), fmt.Sprintf("%#v", key), key.LogValue().String()} {
		if strings.Contains(text, key.Private.D.String()) || !strings.Contains(text, "REDACTED") {
			t.Errorf("it prints as %.100s", text)
		}
	}
	other, err := w.c.Keys[1].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, certificate, _ := strings.Cut(string(other), "-----END PRIVATE KEY-----\n")
	private, _, _ := strings.Cut(string(data), "-----BEGIN CERTIFICATE-----")
	for _, bad := range []string{"", private, certificate, private + certificate, string(data[:100])} {
		if _, err := saml.ParseKey([]byte(bad)); !errors.Is(err, sallyport.Invalid) {
			t.Errorf("%.30q is taken", bad)
		}
	}
}
