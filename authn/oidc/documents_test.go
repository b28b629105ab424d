package oidc_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/authn/oidc"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

func TestUnknownKeyFlood(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	client := newClient(t, clock)
	if _, err := o.signIn(client, o.provider(), oidc.Options{}); err != nil {
		t.Fatal(err)
	}
	first := func(context.Context, string, string, time.Time) (bool, error) { return true, nil }
	flood := func() {
		var wait sync.WaitGroup
		for n := range 200 {
			token := o.sign(logoutClaims(o, nil), map[string]any{"kid": fmt.Sprint("unknown-", n), "typ": "logout+jwt"})
			wait.Go(func() {
				if _, err := client.Logout(context.Background(), o.provider(), token, first); reasonOf(err) != oidc.BadSignature {
					t.Errorf("got %v", err)
				}
			})
		}
		wait.Wait()
	}
	flood()
	if got := o.keyFetches.Load(); got != 1 {
		t.Errorf("the keys were fetched %d times within the interval, want 1", got)
	}
	mu.Lock()
	now = now.Add(31 * time.Second)
	mu.Unlock()
	flood()
	if got := o.keyFetches.Load(); got != 2 {
		t.Errorf("the keys were fetched %d times after the interval, want 2", got)
	}
	// A new key is found as soon as the interval allows.
	mu.Lock()
	now = now.Add(31 * time.Second)
	mu.Unlock()
	o.key, o.keyID = stranger, "two"
	o.keys = append(o.keys, jose.JSONWebKey{Key: stranger.Public(), KeyID: "two"})
	if _, err := o.signIn(client, o.provider(), oidc.Options{}); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// A provider that is away for a while does not stop sign-ins that need nothing new
// of it, and is not believed for ever.
func TestStaleDocuments(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	now := time.Now()
	client := newClient(t, func() time.Time { return now })
	if _, err := client.Discover(context.Background(), o.provider()); err != nil {
		t.Fatal(err)
	}
	o.document = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	now = now.Add(30 * time.Minute)
	if _, err := client.Discover(context.Background(), o.provider()); err != nil {
		t.Errorf("after half an hour: %v", err)
	}
	now = now.Add(31 * time.Minute)
	if _, err := client.Discover(context.Background(), o.provider()); reasonOf(err) != oidc.Unreachable {
		t.Errorf("after an hour: %v", err)
	}
}

// What the operator did not list is not reached, by whatever name.
func TestPrivateNetworks(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	client := must(oidc.New(oidc.Config{Fetch: fetch.New(fetch.Config{})}))
	for _, issuer := range []string{o.URL, strings.Replace(o.URL, "http:", "https:", 1), "https://localhost", "https://[::1]", "https://169.254.169.254", "https://192.168.1.1", "https://[::ffff:127.0.0.1]"} {
		p := o.provider()
		p.Issuer = issuer
		if _, err := client.Discover(context.Background(), p); reasonOf(err) != oidc.Unreachable {
			t.Errorf("%s: %v", issuer, err)
		}
	}
	if got := o.keyFetches.Load(); got != 0 {
		t.Errorf("the provider was asked %d times", got)
	}
}

// The endpoints of an issuer with TLS must have TLS.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	plain := newOP(t)
	var secure *httptest.Server
	secure = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": secure.URL, "authorization_endpoint": secure.URL + "/authorize", "token_endpoint": plain.URL + "/token", "jwks_uri": secure.URL + "/keys",
		})
	}))
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	client := must(oidc.New(oidc.Config{Fetch: fetch.New(fetch.Config{Allowed: loopback, Roots: roots})}))
	p := plain.provider()
	p.Issuer = secure.URL
	_, err := client.Discover(context.Background(), p)
	if reasonOf(err) != oidc.Unreachable || !strings.Contains(err.Error(), "token_endpoint") {
		t.Errorf("got %v", err)
	}
}
