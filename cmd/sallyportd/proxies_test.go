package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// TestTokensBehindProxies: the client of the token endpoint is who the trusted
// proxies say, and nobody else's word counts. It is told from
// a key that is good from one network alone.
func TestTokensBehindProxies(t *testing.T) {
	t.Parallel()
	database, key := pgtest.URL(t), operatorKey(t)
	pool, err := pg.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	const client, stranger = "203.0.113.7", "198.51.100.7"
	var secret string
	for _, test := range []struct {
		name    string
		proxies []netip.Prefix
		good    bool
	}{
		{"a trusted proxy", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, true},
		{"no proxy", nil, false},
		{"another proxy", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, false},
	} {
		d, err := newDomain(t.Context(), pool, domainConfig{vault: openVault(t, key), trustDomain: devTrustDomain, log: slog.New(slog.DiscardHandler),
			tokens: tokenConfig{issuer: "https://id.example.com", audiences: []string{"cloud"}, mtlsURL: "https://mtls.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		if secret == "" {
			secret = sourceLimitedKey(t, d, netip.MustParsePrefix("203.0.113.0/24"))
		}
		on, end := serveBehind(t, d, test.proxies)
		if status := askedAs(t, on.HTTP, secret, client); (status == http.StatusOK) != test.good {
			t.Errorf("%s says that the client is in the key's network: status %d", test.name, status)
		}
		for _, forwarded := range []string{"", stranger, client + ", " + stranger} {
			if status := askedAs(t, on.HTTP, secret, forwarded); status == http.StatusOK {
				t.Errorf("%s, client %q: a key of another network was taken", test.name, forwarded)
			}
		}
		end()
	}
}

// sourceLimitedKey is one of a service account in an account of its own.
func sourceLimitedKey(t *testing.T, d *domain, source netip.Prefix) string {
	t.Helper()
	made, err := d.createAccount(t.Context(), "", "Acme", "ada@acme.example")
	if err != nil {
		t.Fatal(err)
	}
	operator := sallyport.OperatorCaller(made.account, "test")
	robot, _, err := d.directory.CreateServiceAccount(t.Context(), operator, journal.Operation{Type: "CreateServiceAccount"},
		directory.ServiceAccountParams{Name: "robot", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleRead}})
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := d.keys.Create(t.Context(), operator, journal.Operation{Type: "CreateApiKey"}, apikeys.CreateParams{
		Owner: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: robot.ID}, DisplayName: "robot", Expires: time.Now().Add(time.Hour),
		Limits: sallyport.Limits{Sources: []netip.Prefix{source}}})
	if err != nil {
		t.Fatal(err)
	}
	return key.Token.Reveal()
}

// serveBehind serves the domain on loopback until end is called.
func serveBehind(t *testing.T, d *domain, proxies []netip.Prefix) (on readiness, end func()) {
	t.Helper()
	command := devCommand{serving: serving{Listen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0"}}
	listening, on, err := command.listen(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- d.serve(ctx, listening, serveConfig{proxies: proxies, metrics: newMetrics(), log: slog.New(slog.DiscardHandler),
			ready: func() error { close(ready); return nil }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("serving: %v", err)
	}
	return on, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	}
}

// askedAs is the token endpoint's status for a client behind a proxy on loopback.
func askedAs(t *testing.T, service, secret, forwarded string) int {
	t.Helper()
	for {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, service+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+secret)
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusServiceUnavailable { // the keys are being made
			return response.StatusCode
		}
		time.Sleep(10 * time.Millisecond)
	}
}
