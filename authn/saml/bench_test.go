package saml_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

// eight is a response of 8 KB.
func (w world) eight(b *testing.B, s samltest.Saying) []byte {
	b.Helper()
	s.Padding = strings.Repeat("x", 8<<10-len(w.response(b, s)))
	return w.response(b, s)
}

// BenchmarkValidate is a response of 8 KB, beside what crewjam/saml needs for it.
func BenchmarkValidate(b *testing.B) {
	w := made()
	for name, s := range map[string]samltest.Saying{"response signed": w.saying(true, false), "assertion signed": w.saying(false, true), "both signed": w.saying(true, true)} {
		data := w.eight(b, s)
		raw := base64.StdEncoding.EncodeToString(data)
		b.Run(name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := saml.Validate(b.Context(), w.c, raw, w.expect(), w.now); err != nil {
					b.Fatal(detail(err))
				}
			}
		})
		b.Run(name+"/crewjam", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.crewjam().NameID(data, requestID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse is what a stranger's response costs before it is refused.
func BenchmarkRefuse(b *testing.B) {
	w := made()
	stranger := w
	stranger.idp = w.stranger
	for name, data := range map[string][]byte{
		"a stranger's":     stranger.eight(b, w.saying(true, true)),
		"256 KB of levels": []byte(strings.Repeat("<a>", 80<<10)),
	} {
		raw := base64.StdEncoding.EncodeToString(data)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := saml.Validate(b.Context(), w.c, raw, w.expect(), w.now); err == nil {
					b.Fatal("it is taken")
				}
			}
		})
	}
}
