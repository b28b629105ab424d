package token_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/token"
)

// Whatever comes to the token endpoint is answered as RFC 6749 has it, and nobody
// but who has a key gets a token.
func FuzzTokenRequest(f *testing.F) {
	w := newWorld(f)
	a, p := w.Tenant(f), newIdP(f)
	key, sa := p.key(f, "1", "ES256"), reader(f, a)
	w.rule(f, a, sa, p)
	secret := a.Key(f, sa, sallyport.Limits{}).Token.Reveal()
	form := "application/x-www-form-urlencoded"
	f.Add("grant_type=client_credentials&client_id="+sa.ID+"&client_secret="+secret, form, "")
	f.Add("grant_type=client_credentials&scope=read+namespace:x&expires_in=60&audience=x", form, "Bearer "+secret)
	f.Add("grant_type=client_credentials", form+"; charset=utf-8", "Basic eDp5")
	f.Add("grant_type="+exchangeGrant+"&account="+string(a.ID)+"&service_account="+sa.ID+"&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token="+
		sign(f, key, "ES256", "1", w.good(p, a, nil)), form, "")
	for _, id := range []string{"sa_%00", "sa_%ff%fe", sa.ID + "%00"} {
		f.Add("grant_type="+exchangeGrant+"&account="+string(a.ID)+"&service_account="+id+"&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token="+
			sign(f, key, "ES256", "1", w.good(p, a, nil)), form, "")
	}
	f.Add("grant_type=client_credentials&client_secret="+secret+"&scope=namespace:%00", form, "")
	f.Add("grant_type=client_credentials&client_secret="+secret+"&scope=namespace:%ff", form, "")
	f.Add("grant_type="+exchangeGrant+"&account=aaaaa%00&service_account="+sa.ID, form, "")
	f.Add("grant_type=client_credentials&client_id=%00&client_secret="+secret, form, "")
	f.Add("grant_type=client_credentials&client_secret=%00", form, "")
	f.Add("%zz&;=", form, "Bearer  ")
	f.Add("{}", "application/json", "Bearer")
	addresses := 0
	f.Fuzz(func(t *testing.T, body, kind, authorization string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/token", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		addresses++
		r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(addresses >> 8), byte(addresses)}), 1).String() // each its own limit
		recorder := httptest.NewRecorder()
		w.handler.ServeHTTP(recorder, r)
		var got answer
		if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
			t.Fatalf("status %d: %v: %s", recorder.Code, err, recorder.Body)
		}
		if recorder.Code >= 500 || (recorder.Code == 200) != (got.Token != "") || (recorder.Code == 200) == (got.Error != "") {
			t.Fatalf("status %d: %s", recorder.Code, recorder.Body)
		}
		known := strings.Contains(body, secret[40:]) || strings.Contains(authorization, secret[40:]) || strings.Contains(body, "subject_token")
		if got.Token != "" && !known {
			t.Fatalf("a token for %q, %q", body, authorization)
		}
		if strings.ContainsAny(got.Description, "\"\\\n") {
			t.Fatalf("the description is %q", got.Description)
		}
	})
}

// A token that names a key which no database holds is nobody's fault but its sender's.
func TestKeyIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t, "ES256")
	for _, kid := range []string{"\x00", "tk_\x00", "a\nb", "\u202e"} {
		_, err := w.authenticate(t, sign(t, key, "ES256", kid, map[string]any{"iss": issuerURL}, "typ", "at+jwt"))
		wantKind(t, kid, err, sallyport.Unauthenticated, "")
	}
}

// Another issuer's token is refused in bounded time, whatever it is.
func FuzzExternalToken(f *testing.F) {
	key := newKey(f, "ES256")
	f.Add(sign(f, key, "ES256", "1", map[string]any{"iss": "https://issuer.example.com", "sub": "x", "aud": []string{"a"}, "nested": map[string]any{"a": []any{1, true, nil}}}))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJFUzI1NiJ9.W1tbW1tbW1tbW1tdXV1dXV1dXV1dXQ.AA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		err := token.ParseExternal(raw)
		if err == nil && (strings.Count(raw, ".") != 2 || len(raw) > 16<<10) {
			t.Fatalf("it was read")
		}
		if err != nil && len(raw) > 60 && strings.Contains(err.Error(), raw[:60]) {
			t.Fatalf("the token is in %v", err)
		}
	})
}

// FuzzKeySet: what is taken of a key set is public and can be written and read again.
func FuzzKeySet(f *testing.F) {
	p := &idp{}
	p.key(f, "1", "ES256") // a small seed: what is large is minimized for long
	f.Add(p.jwks())
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		again, err := token.KeySet(data)
		if err != nil {
			return
		}
		once, err := token.KeySet(again)
		if err != nil || string(once) != string(again) || strings.Contains(string(again), `"d":`) {
			t.Fatalf("%s became %s, %v", again, once, err)
		}
	})
}

// BenchmarkIssue is what a request for a token costs, the database included.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	a, p := w.Tenant(b), newIdP(b)
	key, sa := p.key(b, "1", "ES256"), reader(b, a)
	made := a.Key(b, sa, sallyport.Limits{})
	w.rule(b, a, sa, p)
	subject := sign(b, key, "ES256", "1", w.good(p, a, nil))
	for name, ask := range map[string]func() answer{
		"client credentials": func() answer { return w.credentials(b, made) },
		"exchange":           func() answer { return w.exchange(b, a, sa, subject) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%90 == 0 { // one that has counted nothing yet
					b.StopTimer()
					w.handler = newIssuer(b, w.config).Handler()
					b.StartTimer()
				}
				if got := ask(); got.status != http.StatusOK {
					b.Fatalf("got %+v", got)
				}
			}
		})
	}
}

// BenchmarkAuthenticate is the check of a token that was seen before, with all that
// it hangs on read from the database.
func BenchmarkAuthenticate(b *testing.B) {
	w := newWorld(b)
	a := w.Tenant(b)
	raw := w.credentials(b, a.Key(b, reader(b, a), sallyport.Limits{})).Token
	for b.Loop() {
		if _, err := w.authenticate(b, raw); err != nil {
			b.Fatal(err)
		}
	}
}
