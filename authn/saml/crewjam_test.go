package saml_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/russellhaering/goxmldsig"

	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

// TestCrewjam compares what we take with what crewjam/saml alone takes. Where it takes
// more, the reason says why we do not; where we take more, why we do.
func TestCrewjam(t *testing.T) {
	w := made()
	later := func(name string) func(*etree.Element) {
		return func(el *etree.Element) { el.CreateAttr(name, w.now.Add(time.Hour).Format(time.RFC3339)) }
	}
	drop := func(path string) func(*etree.Element) {
		return func(a *etree.Element) { el := a.FindElement(path); el.Parent().RemoveChild(el) }
	}
	own := w.c.Keys[0].Certificate
	gcm := &samltest.Encryption{To: own, Data: "aes256-gcm", Key: "rsa-oaep-mgf1p"}
	for _, test := range []struct {
		name         string
		edit         func(*samltest.Saying)
		change       func(string) string
		ours, theirs bool
		why          string
	}{
		{"a good one", func(*samltest.Saying) {}, nil, true, true, ""},
		{"without audience", func(s *samltest.Saying) { s.EditAssertion = drop("//AudienceRestriction") }, nil, false, true, "it may be meant for another service"},
		{"without confirmation", func(s *samltest.Saying) { s.EditAssertion = drop("//SubjectConfirmation") }, nil, false, true, "nobody says that who brings it is who it is about"},
		{"holder of key", func(s *samltest.Saying) {
			s.EditAssertion = func(a *etree.Element) {
				a.FindElement("//SubjectConfirmation").CreateAttr("Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key")
			}
		}, nil, false, true, "no proof of the key is asked for"},
		{"without statement of authentication", func(s *samltest.Saying) { s.EditAssertion = drop("//AuthnStatement") }, nil, false, true, "nobody proved anything"},
		{"issued in an hour", func(s *samltest.Saying) { s.EditAssertion = later("IssueInstant") }, nil, false, true, "it would live as long as its maker likes"},
		{"authenticated in an hour", func(s *samltest.Saying) {
			s.EditAssertion = func(a *etree.Element) { later("AuthnInstant")(a.FindElement("//AuthnStatement")) }
		}, nil, false, true, "the same"},
		{"RSA with SHA-1", func(s *samltest.Saying) { s.Method = dsig.RSASHA1SignatureMethod }, nil, false, true, "collisions are for sale"},
		{"unknown condition", func(s *samltest.Saying) {
			s.EditAssertion = func(a *etree.Element) { a.FindElement("//Conditions").CreateElement("saml:Condition") }
		}, nil, false, true, "core §2.5.1: it is not valid"},
		{"two assertions, both signed over", func(s *samltest.Saying) {
			s.EditResponse = func(r *etree.Element) {
				second := r.SelectElement("Assertion").Copy()
				second.CreateAttr("ID", "_second")
				r.AddChild(second)
			}
		}, nil, false, true, "there is no first one"},
		{"a transient NameID", func(s *samltest.Saying) { s.Format = saml.FormatTransient }, nil, false, true, "it is another name at each login"},
		{"a name for another service", func(s *samltest.Saying) {
			s.EditAssertion = func(a *etree.Element) { a.FindElement("//NameID").CreateAttr("SPNameQualifier", "other") }
		}, nil, false, true, "it is another's name"},
		{"a comment in the NameID", func(*samltest.Saying) {}, func(x string) string {
			return strings.ReplaceAll(x, ">"+alice+"</saml:NameID>", "><!-- x -->"+alice+"</saml:NameID>")
		}, false, true, "readers differ about what is around it"},
		{"space around the base64 of a good one", func(*samltest.Saying) {}, func(x string) string { return x + "\n" }, true, true, ""},
		{"no conditions", func(s *samltest.Saying) { s.EditAssertion = drop("//Conditions") }, nil, false, false, "theirs panics"},
		{"no subject", func(s *samltest.Saying) { s.EditAssertion = drop("./Subject") }, nil, false, false, "theirs panics"},
		{"no confirmation data", func(s *samltest.Saying) { s.EditAssertion = drop("//SubjectConfirmationData") }, nil, false, false, "theirs panics"},
		{"the victim's name", func(*samltest.Saying) {}, func(x string) string { return strings.ReplaceAll(x, alice, victim) }, false, false, ""},
		{"another request", func(s *samltest.Saying) { s.RequestID = "_other" }, nil, false, false, ""},
		{"another audience", func(s *samltest.Saying) { s.Audience = "https://other.example.com" }, nil, false, false, ""},
		{"encrypted by AES-256-GCM", func(s *samltest.Saying) { s.Encrypt = gcm }, nil, true, false, "theirs has no AES-256-GCM"},
		{"encrypted by AES-256-CBC in a signed response", func(s *samltest.Saying) {
			s.Encrypt = &samltest.Encryption{To: own, Data: "aes256-cbc", Key: "rsa-oaep-mgf1p"}
		}, nil, true, true, ""},
		{"encrypted to our second key", func(s *samltest.Saying) {
			s.Encrypt = &samltest.Encryption{To: w.c.Keys[1].Certificate, Data: "aes256-cbc", Key: "rsa-oaep-mgf1p"}
		}, nil, true, false, "theirs has one key"},
		{"encrypted with RSA 1.5", func(s *samltest.Saying) {
			s.Encrypt = &samltest.Encryption{To: own, Data: "aes256-cbc", Key: "rsa-1_5"}
		}, nil, false, true, "its errors tell what was decrypted"},
		{"encrypted by 3DES", func(s *samltest.Saying) {
			s.Encrypt = &samltest.Encryption{To: own, Data: "tripledes-cbc", Key: "rsa-oaep-mgf1p"}
		}, nil, false, false, "its blocks repeat; theirs means to take it and cannot"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := w.saying(true, false)
			test.edit(&s)
			data := w.response(t, s)
			if test.change != nil {
				data = []byte(test.change(string(data)))
			}
			_, err := w.validate(w.c, data)
			name, theirErr := w.crewjam().NameID(data, requestID)
			if (err == nil) != test.ours || (theirErr == nil) != test.theirs {
				t.Errorf("ours: %s\ntheirs: %q, %v", detail(err), name, theirErr)
			}
			if test.ours != test.theirs && test.why == "" {
				t.Error("a difference needs a reason")
			}
		})
	}
}

func (w world) crewjam() samltest.Provider {
	return samltest.Provider{EntityID: entityID, ACS: acs, Key: w.c.Keys[0].Private, Certificate: w.c.Keys[0].Certificate, IdPMetadata: w.metadata}
}

// testdata is crewjam/saml's own.
func testdata(t *testing.T, name string) []byte {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/crewjam/saml").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// testKey is one of the service provider of the vectors, which is shorter than ours may be.
func testKey(t *testing.T, key, certificate string) saml.Key {
	t.Helper()
	block, _ := pem.Decode(testdata(t, key))
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(testdata(t, certificate))
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return saml.Key{Private: private, Certificate: parsed}
}

// TestVectors are crewjam/saml's: responses of real providers, and its permutations of
// signature wrapping. Those that are refused though they were real say why.
func TestVectors(t *testing.T) {
	const (
		oneLogin = "TestSPCanHandleOneloginResponse"
		signed   = "TestServiceProviderCanHandleSignedAssertionsResponse"
	)
	type vector struct {
		metadata, entityID, acs, requestID, now string
	}
	world := func(name string) vector {
		const site = "https://preview.docrocket-ross.test.octolabs.io/saml/"
		return vector{name, site + "metadata", site + "acs", "id-3992f74e652d89c3cf1efd6c7e472abaac9bc917", "2017-04-21T13:12:51Z"}
	}
	atOneLogin := vector{oneLogin, "https://29ee6d2e.ngrok.io/saml/metadata", "https://29ee6d2e.ngrok.io/saml/acs", "id-d40c15c104b52691eccf0a2a5c8a15595be75423", "2016-01-05T17:53:12Z"}
	atSigned := vector{signed, "http://sp.example.com/demo1/metadata.php", "http://sp.example.com/demo1/index.php?acs", "ONELOGIN_4fee3b046395c4e751011e97f8900b5273d56685", "2014-07-17T01:02:59Z"}
	atGoogle := vector{"TestSPRejectsInjectedComment", "https://29ee6d2e.ngrok.io/saml/metadata", "https://29ee6d2e.ngrok.io/saml/acs", "id-fd419a5ab0472645427f8e07d87a3a5dd0b2e9a6", "2016-01-05T16:55:39Z"}
	okta := func(name, requestID, now string) vector {
		return vector{name, "http://localhost:8000/saml/metadata", "http://localhost:8000/saml/acs", requestID, now}
	}
	const bothSigned, onlyAssertion, onlyResponse = "TestSPCanHandleOktaResponseEncryptedAssertionBothSigned", "TestSPCanHandleOktaResponseEncryptedSignedAssertion", "TestSPCanHandleOktaSignedResponseEncryptedAssertion"
	const realAssertion, realKeyInfo = "TestSPRealWorldAssertionSignedNotResponse", "TestSPRealWorldKeyInfoHasRSAPublicKeyNotX509Cert"
	sp, sp2017 := testKey(t, "sp_key.pem", "sp_cert.pem"), testKey(t, "key_2017.pem", "cert_2017.pem")
	for _, test := range []struct {
		response string
		v        vector
		subject  string // empty: it is refused
		step     saml.Step
		detail   string
	}{
		{oneLogin + "_response", atOneLogin, "ross@kndr.org", "", ""},
		{signed + "_response", atSigned, "test@example.com", "", ""},
		{"TestSPRejectsInjectedComment_response", atGoogle, "ross@octolabs.io", "", ""},
		{"TestXswPermutationOneIsRejected_response", atOneLogin, "", "", ""},
		{"TestXswPermutationTwoIsRejected_response", atOneLogin, "", "", ""},
		{"TestXswPermutationThreeIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationFourIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationFiveIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationSixIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationSevenIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationEightIsRejected_response", atSigned, "", "", ""},
		{"TestXswPermutationNineIsRejected_response", atSigned, "", "", ""},
		{bothSigned + "_response", okta(bothSigned, "id-953d4cab69ff475c5901d12e585b0bb15a7b85fe", "2020-03-03T19:40:54Z"), "testuser@testrsc.com", "", ""},
		{onlyAssertion + "_response", okta(onlyAssertion, "id-6d976cdde8e76df5df0a8ff58148fc0b7ec6796d", "2020-03-03T19:31:55Z"), "", saml.StepDecryption, "CBC"},
		{onlyResponse + "_response", okta(onlyResponse, "id-a7364d1e4432aa9085a7a8bd824ea2fa8fa8f684", "2020-03-03T19:24:28Z"), "testuser@testrsc.com", "", ""},
		{realAssertion + "_response", world(realAssertion), "rkinder@secureworks.com", "", ""},
		{realKeyInfo + "_response", world(realKeyInfo), "rkinder@secureworks.com", "", ""},
		{"TestSPCanHandlePlaintextResponse_response", vector{"TestSPCanHandlePlaintextResponse", atGoogle.entityID, atGoogle.acs, atGoogle.requestID, atGoogle.now}, "ross@octolabs.io", "", ""},
		{"SP_SamlResponse", vector{"SP", "https://15661444.ngrok.io/saml2/metadata", "https://15661444.ngrok.io/saml2/acs", "id-9e61753d64e928af5a7a341a97f420c9", "2015-12-01T01:57:09Z"}, "", saml.StepDecryption, "CBC"},
	} {
		t.Run(test.response, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.v.now)
			if err != nil {
				t.Fatal(err)
			}
			suffix := "_IDPMetadata"
			if strings.Contains(test.v.metadata, "RealWorld") {
				suffix = "_idp_metadata"
			}
			m, _, err := saml.ParseMetadata(testdata(t, test.v.metadata+suffix), now)
			if err != nil {
				t.Fatal(err)
			}
			c := saml.Connection{EntityID: test.v.entityID, ACS: test.v.acs, IdP: m, Keys: []saml.Key{sp, sp2017}, AllowLegacy: true}
			if test.v == atSigned { // whose NameIDs are transient
				c.SubjectAttribute = "mail"
			}
			expect := saml.Expect{RequestID: test.v.requestID, Use: once}
			raw := string(testdata(t, test.response))
			if strings.HasPrefix(raw, "<") {
				raw = base64.StdEncoding.EncodeToString([]byte(raw))
			}
			a, err := saml.Validate(t.Context(), c, raw, expect, now)
			if test.subject == "" {
				checkRefusal(t, a, err, test.step, test.detail)
				t.Log(detail(err))
				return
			}
			if err != nil || a.Subject != test.subject {
				t.Errorf("got %q and %s", a.Subject, detail(err))
			}
		})
	}
}
