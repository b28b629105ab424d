package saml_test

import (
	"testing"

	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

func TestEncrypted(t *testing.T) {
	w := made()
	own := w.c.Keys[0].Certificate
	for _, test := range []struct {
		name                string
		response, assertion bool
		e                   samltest.Encryption
		taken               bool
		detail              string
	}{
		{"AES-128-GCM", false, true, samltest.Encryption{Data: "aes128-gcm", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-192-GCM", false, true, samltest.Encryption{Data: "aes192-gcm", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-256-GCM", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-256-GCM, only the response signed", true, false, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-256-GCM, both signed", true, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep"}, true, ""},
		{"AES-256-GCM, nothing signed", false, false, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep"}, false, "neither"},
		{"OAEP with SHA-256, mask of SHA-1", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep-mgf1p", SHA256: true}, true, ""},
		{"OAEP with SHA-256", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep", SHA256: true}, true, ""},
		{"the key beside the data", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep", Sibling: true}, true, ""},
		{"our next key", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep", To: w.c.Keys[1].Certificate}, true, ""},
		{"a key that is not ours", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep", To: w.idp.Certificate}, false, "with our keys"},
		{"AES-128-CBC, response signed", true, false, samltest.Encryption{Data: "aes128-cbc", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-256-CBC, both signed", true, true, samltest.Encryption{Data: "aes256-cbc", Key: "rsa-oaep-mgf1p"}, true, ""},
		{"AES-256-CBC, only the assertion signed", false, true, samltest.Encryption{Data: "aes256-cbc", Key: "rsa-oaep-mgf1p"}, false, "CBC"},
		{"3DES", true, true, samltest.Encryption{Data: "tripledes-cbc", Key: "rsa-oaep-mgf1p"}, false, "tripledes"},
		{"RSA 1.5", true, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-1_5"}, false, "rsa-1_5"},
		{"a changed ciphertext", false, true, samltest.Encryption{Data: "aes256-gcm", Key: "rsa-oaep", Garble: flip}, false, "with our keys"},
		{"a changed ciphertext under a signature", true, true, samltest.Encryption{Data: "aes256-cbc", Key: "rsa-oaep", Garble: flip}, false, ""},
		{"a ciphertext of GCM of no length", false, true, samltest.Encryption{Data: "aes128-gcm", Key: "rsa-oaep", Garble: none}, false, "with our keys"},
		{"a ciphertext of GCM of four bytes", false, true, samltest.Encryption{Data: "aes128-gcm", Key: "rsa-oaep", Garble: four}, false, "with our keys"},
		{"a ciphertext of CBC of four bytes", true, true, samltest.Encryption{Data: "aes128-cbc", Key: "rsa-oaep", Garble: four}, false, "with our keys"},
		{"a ciphertext of CBC of one block", true, true, samltest.Encryption{Data: "aes128-cbc", Key: "rsa-oaep", Garble: block}, false, "with our keys"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := w.saying(test.response, test.assertion)
			s.Encrypt = &test.e
			if s.Encrypt.To == nil {
				s.Encrypt.To = own
			}
			data := w.response(t, s)
			if !test.taken {
				w.mustRefuse(t, w.c, data, "", test.detail)
				return
			}
			a, err := w.validate(w.c, data)
			if err != nil {
				t.Fatal(detail(err))
			}
			if a.Subject != alice || !a.Encrypted || !a.DecryptedBy.Equal(s.Encrypt.To) {
				t.Errorf("got %q, encrypted %v", a.Subject, a.Encrypted)
			}
			c := w.c
			c.Keys = nil
			w.mustRefuse(t, c, data, saml.StepDecryption, "with our keys")
		})
	}
}

func flip(data []byte) []byte {
	data[len(data)-20] ^= 1
	return data
}

func none([]byte) []byte       { return nil }
func four(data []byte) []byte  { return data[:4] }
func block(data []byte) []byte { return data[:16] }

// TestEncryptedStranger: anybody can encrypt to us, also something that is hostile only
// when it is open.
func TestEncryptedStranger(t *testing.T) {
	w := made()
	e := &samltest.Encryption{To: w.c.Keys[0].Certificate, Data: "aes256-gcm", Key: "rsa-oaep"}
	stranger := w
	stranger.idp = w.stranger
	s := w.saying(false, true)
	s.Encrypt = e
	w.mustRefuse(t, w.c, stranger.response(t, s), saml.StepSignature, "by none of")
	for name, test := range map[string]struct {
		plain string
		step  saml.Step
	}{
		"nothing": {"", saml.StepDecryption}, "no XML": {"\x00\x01", saml.StepDecryption},
		"a DOCTYPE":       {`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>`, saml.StepDecryption},
		"a response":      {string(w.response(t, w.saying(true, true))), saml.StepStructure},
		"another element": {"<x/>", saml.StepStructure},
		"within another":  {`<x xmlns="urn:x">` + string(w.response(t, w.saying(true, true))) + "</x>", saml.StepStructure},
	} {
		encrypted, err := e.Element([]byte(test.plain))
		if err != nil {
			t.Fatal(err)
		}
		root := parse(t, w.response(t, w.saying(false, false)))
		root.RemoveChild(root.SelectElement("Assertion"))
		root.AddChild(encrypted)
		t.Run(name, func(t *testing.T) { w.mustRefuse(t, w.c, write(t, root), test.step, "") })
	}
	// One that is signed by the provider, beside one that is not.
	s = w.saying(false, true)
	s.Encrypt = e
	root := parse(t, w.response(t, s))
	forged := parse(t, stranger.response(t, w.saying(false, true))).SelectElement("Assertion")
	root.AddChild(evil(t, qualified(forged), "_evil"))
	w.mustRefuse(t, w.c, write(t, root), saml.StepStructure, "more than one")
}
