package token_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

// What an issuer's server does wrong is nobody's way in, and nobody waits long.
func TestHostileIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	private := newKey(t, "ES256")
	leaked, err := jose.JSONWebKey{Key: private, KeyID: "1"}.MarshalJSON()
	check(t, err)
	for name, test := range map[string]struct {
		spoil http.HandlerFunc
		says  string
	}{
		"a redirect": {func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/elsewhere", http.StatusFound) }, "redirects"},
		"10 MB":      {func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, 10<<20)) }, "larger than"},
		"slow": {func(rw http.ResponseWriter, r *http.Request) {
			for n := 0; n < 50 && r.Context().Err() == nil; n++ {
				_, _ = rw.Write([]byte(" "))
				rw.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, "too long"},
		"an error": {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) }, "status 500"},
		"HTML":     {func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>")) }, "not a JSON Web Key Set"},
		"no keys":  {func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{"keys":[]}`)) }, "no public key"},
		"a secret key": {func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
		}, "private or secret"},
		"a private key": {func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"keys":[%s]}`, leaked) }, "private or secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIdP(t)
			key := p.key(t, "1", "ES256")
			p.set(test.spoil)
			sa := reader(t, a)
			rule := w.rule(t, a, sa, p)
			raw := sign(t, key, "ES256", "1", w.good(p, a, nil))
			start := time.Now()
			if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" || strings.Contains(got.Description, "wif_") {
				t.Errorf("got %+v", got)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("it took %s", took)
			}
			result, err := w.issuer.TestRules(t.Context(), a.Owner, sa.ID, raw)
			check(t, err)
			if why := strings.Join(result.Rules[0].Problems, " "); result.Rules[0].Matches || !strings.Contains(why, test.says) {
				t.Errorf("the test of %s says %q; want %q", rule.ID, why, test.says)
			}
		})
	}
	// Discovery that names another issuer: somebody's keys under my name.
	p, victim := newIdP(t), newIdP(t)
	key := p.key(t, "1", "ES256")
	sa := reader(t, a)
	w.rule(t, a, sa, p)
	p.issuer = victim.URL
	if got := w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, map[string]any{"iss": p.URL}))); got.Error != "invalid_grant" {
		t.Errorf("discovery of another issuer: got %+v", got)
	}
}

// A service that may not reach into private networks does not.
func TestPrivateIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	p := newIdP(t)
	key, sa := p.key(t, "1", "ES256"), reader(t, a)
	c := w.config
	c.Fetch = fetch.New(fetch.Config{})
	w.issuer = newIssuer(t, c)
	w.handler = w.issuer.Handler()
	w.rule(t, a, sa, p)
	raw := sign(t, key, "ES256", "1", w.good(p, a, nil))
	if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" {
		t.Errorf("got %+v", got)
	}
	result, err := w.issuer.TestRules(t.Context(), a.Owner, sa.ID, raw)
	check(t, err)
	if why := strings.Join(result.Rules[0].Problems, " "); !strings.Contains(why, "https://") {
		t.Errorf("the test says %q", why)
	}
	if p.fetches.Load() != 0 {
		t.Error("it was reached")
	}
}

// The issuer rotates; tokens with key ids that nobody has do not make us ask it all
// the time; and while it is away its keys are good for an hour.
func TestKeysOfIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	p := newIdP(t)
	first, sa := p.key(t, "1", "ES256"), reader(t, a)
	w.rule(t, a, sa, p)
	exchange := func(key crypto.Signer, kid string) answer {
		return w.exchange(t, a, sa, sign(t, key, "ES256", kid, w.good(p, a, nil)))
	}
	for range 5 {
		if got := exchange(first, "1"); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	for n := range 20 {
		if got := exchange(first, fmt.Sprint("unknown-", n)); got.status == 200 {
			t.Errorf("an unknown key: got %+v", got)
		}
	}
	if n := p.fetches.Load(); n > 1 {
		t.Errorf("unknown keys made us ask %d times", n)
	}
	second := p.key(t, "2", "ES256")
	if got := exchange(second, "2"); got.status == 200 {
		t.Error("a key was known that was not fetched")
	}
	w.Advance(31 * time.Second)
	if got := exchange(second, "2"); got.status != 200 || p.fetches.Load() != 2 {
		t.Errorf("a new key: got %+v, %d fetches", got, p.fetches.Load())
	}
	if got := exchange(first, ""); got.status == 200 {
		t.Errorf("no key id, where there are two keys: got %+v", got)
	}
	p.set(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.Advance(50 * time.Minute)
	if got := exchange(second, "2"); got.status != 200 {
		t.Errorf("the issuer is away: got %+v", got)
	}
	w.Advance(11 * time.Minute)
	if got := exchange(second, "2"); got.status == 200 {
		t.Errorf("the issuer is away for over an hour: got %+v", got)
	}
	p.set(nil)
	w.Advance(31 * time.Second)
	if got := exchange(second, "2"); got.status != 200 {
		t.Errorf("it is back: got %+v", got)
	}
}

// Several keys of one id, as some issuers have them for a while: whichever made it.
func TestKeysOfOneID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	p.key(t, "1", "RS256")
	p.key(t, "1", "ES256")
	key, sa := p.key(t, "1", "ES256"), reader(t, a)
	w.rule(t, a, sa, p)
	if got := w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, nil))); got.status != 200 {
		t.Errorf("got %+v", got)
	}
}

// An issuer whose keys must come over https does not send us elsewhere for them.
func TestDowngrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, plain := w.Tenant(t), newIdP(t)
	key, sa := plain.key(t, "1", "ES256"), reader(t, a)
	secure := httptest.NewTLSServer(plain.Config.Handler) // whose jwks_uri is plain's
	t.Cleanup(secure.Close)
	plain.issuer = secure.URL
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	c := w.config
	c.Fetch = fetch.New(fetch.Config{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots})
	w.issuer = newIssuer(t, c)
	w.handler = w.issuer.Handler()
	w.rule(t, a, sa, plain)
	raw := sign(t, key, "ES256", "1", w.good(plain, a, nil))
	if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" || plain.fetches.Load() != 0 {
		t.Errorf("got %+v, %d fetches", got, plain.fetches.Load())
	}
	result, err := w.issuer.TestRules(t.Context(), a.Owner, sa.ID, raw)
	check(t, err)
	if why := strings.Join(result.Rules[0].Problems, " "); !strings.Contains(why, "jwks_uri") {
		t.Errorf("the test says %q", why)
	}
}

// rsaKeys is a key set of n RSA keys of one id that nobody has the private key of.
func rsaKeys(n, bits, exponent int) []byte {
	p := &idp{}
	for k := range n {
		modulus := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		modulus.Add(modulus, big.NewInt(int64(2*k+1)))
		p.keys = append(p.keys, jose.JSONWebKey{Key: &rsa.PublicKey{N: modulus, E: exponent}, KeyID: "1", Algorithm: "RS256", Use: "sig"})
	}
	return p.jwks()
}

// Keys that take long to check with are not used, however an issuer publishes them,
// and of many keys of one id a token is checked with two, by all rules together.
func TestCostlyKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	sa := reader(t, a)
	p.set(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(rsaKeys(40, 8192, 65537)) })
	for range 10 {
		w.rule(t, a, sa, p)
	}
	raw := sign(t, newKey(t, "RS256"), "RS256", "1", w.good(p, a, nil))
	start := time.Now()
	if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	result, err := w.issuer.TestRules(t.Context(), a.Owner, sa.ID, raw)
	check(t, err)
	if why := strings.Join(result.Rules[0].Problems, " "); !strings.Contains(why, "no public key") {
		t.Errorf("the test says %q", why)
	}
	many, other := newIdP(t), reader(t, a)
	many.key(t, "1", "ES256")
	many.key(t, "1", "ES256")
	third := many.key(t, "1", "ES256")
	w.rule(t, a, other, many)
	w.rule(t, a, other, many)
	if got := w.exchange(t, a, other, sign(t, third, "ES256", "1", w.good(many, a, nil))); got.Error != "invalid_grant" {
		t.Errorf("the third key of an id: got %+v", got)
	}
}

// Wycheproof's JWS vectors on what checks other issuers' signatures: those of
// algorithms that are taken come out as they should, all others not at all.
func TestWycheproof(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		var vectors struct {
			Groups []struct {
				Comment string          `json:"comment"`
				Public  json.RawMessage `json:"public"`
				Private json.RawMessage `json:"private"`
				Tests   []struct {
					ID      int             `json:"tcId"`
					Comment string          `json:"comment"`
					JWS     json.RawMessage `json:"jws"`
					Result  string          `json:"result"`
					Flags   []string        `json:"flags"`
				} `json:"tests"`
			} `json:"testGroups"`
		}
		check(t, json.Unmarshal(wycheproof(t, file), &vectors))
		accepted, refused := 0, 0
		for _, g := range vectors.Groups {
			keys := g.Public
			if keys == nil {
				keys = g.Private
			}
			var set struct {
				Keys []json.RawMessage `json:"keys"`
			}
			if json.Unmarshal(keys, &set); set.Keys == nil {
				keys = []byte(`{"keys":[` + string(keys) + `]}`)
			}
			for _, v := range g.Tests {
				var jws string
				if json.Unmarshal(v.JWS, &jws) != nil {
					continue // the JSON serialization, which is taken nowhere
				}
				got := token.CheckJWS(jws, keys)
				if got {
					accepted++
				} else {
					refused++
				}
				if got && v.Result == "invalid" && v.Comment != "rejectsKeyWithRocaVulnerability" { // whose keys are weak is the issuer's to know
					t.Errorf("%s %d (%s, %s): it was taken", file, v.ID, g.Comment, v.Comment)
				}
				taken := (g.Comment == "es256" || g.Comment == "rs256" || g.Comment == "SpecialCaseEs256") && file == "json_web_signature_test.json"
				if !got && v.Result == "valid" && taken && v.Comment != "emptyPayload" { // a JWT has claims
					t.Errorf("%s %d (%s, %s): it was refused", file, v.ID, g.Comment, v.Comment)
				}
			}
		}
		t.Logf("%s: %d accepted, %d refused", file, accepted, refused)
	}
}

// wycheproof reads one of C2SP's files of test vectors.
func wycheproof(t *testing.T, file string) []byte {
	t.Helper()
	directory := os.Getenv("SALLYPORT_TESTDATA")
	needed := directory != ""
	if !needed {
		directory = filepath.Join("..", "..", "..", "shared", "testdata")
	}
	text, err := os.ReadFile(filepath.Join(directory, "jose", file))
	if err != nil && !needed {
		t.Skipf("Wycheproof's vectors are not here (set SALLYPORT_TESTDATA to where jose/%s is): %v", file, err)
	}
	check(t, err)
	return text
}
