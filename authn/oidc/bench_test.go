package oidc_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

// BenchmarkIDToken is the checking of an ID token alone, with the provider's documents
// at hand; beside it the bare signature is the yardstick.
func BenchmarkIDToken(b *testing.B) {
	for _, test := range []struct {
		algorithm jose.SignatureAlgorithm
		key       any
		public    any
	}{{jose.RS256, keyRSA, keyRSA.Public()}, {jose.ES256, keyES256, keyES256.Public()}, {jose.EdDSA, keyEdDSA, keyEdDSA.Public()}} {
		o := newOP(b)
		o.algorithm, o.key = test.algorithm, test.key
		o.keys = []jose.JSONWebKey{{Key: test.public, KeyID: "one"}}
		client := newClient(b, nil)
		var signed string
		o.idToken = func(s string) string { signed = s; return s }
		kept, err := o.begin(client, o.provider(), oidc.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := client.Finish(context.Background(), o.provider(), kept, oidc.Callback{State: kept.State(), Code: theCode}); err != nil {
			b.Fatal(err)
		}
		b.Run(string(test.algorithm), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.CheckIDToken(context.Background(), o.provider(), kept, signed, "access"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(test.algorithm)+"-bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parsed, err := jose.ParseSigned(signed, []jose.SignatureAlgorithm{test.algorithm})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := parsed.Verify(test.public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLogout is a logout token, from its text to what it ends.
func BenchmarkLogout(b *testing.B) {
	o := newOP(b)
	client := newClient(b, nil)
	token := o.sign(logoutClaims(o, nil), nil)
	first := func(context.Context, string, string, time.Time) (bool, error) { return true, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Logout(context.Background(), o.provider(), token, first); err != nil {
			b.Fatal(err)
		}
	}
}
