package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

// issuing makes the keys, as the service does when it starts.
func issuing(t *testing.T, url, key string) {
	t.Helper()
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	d, err := newDomain(t.Context(), pool, domainConfig{vault: openVault(t, key), trustDomain: devTrustDomain, log: slog.New(slog.DiscardHandler),
		tokens: tokenConfig{issuer: "https://id.example.com", audiences: []string{"cloud"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.tokens.Run(ctx) }()
	for {
		keys, err := d.tokens.Keys(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) > 0 {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestTokenKeyCommands(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), operatorKey(t)
	command := func(args ...string) (string, error) { return command(t, on(url, key, args...)...) }
	for _, args := range [][]string{{"token-key", "list"}, {"token-key", "rotate"}, {"token-key", "revoke", "x"}} {
		if _, err := command(args...); !errors.Is(err, sallyport.NotFound) || !strings.Contains(err.Error(), "--issuer-url") {
			t.Errorf("%v before there are keys: %v, want NotFound", args, err)
		}
	}
	issuing(t, url, key)
	list := func() map[string][]string {
		t.Helper()
		out, err := command("token-key", "list")
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string][]string{}
		for _, line := range regexp.MustCompile(`(?m)^(\S+)  (\S+)  since \S+  https://id\.example\.com$`).FindAllStringSubmatch(out, -1) {
			keys[line[2]] = append(keys[line[2]], line[1])
		}
		return keys
	}
	made := list()
	if len(made["active"]) != 1 || len(made["next"]) != 1 {
		t.Fatalf("keys = %v, want one that is active and the next one", made)
	}
	if out, err := command("token-key", "rotate"); err != nil || !strings.HasPrefix(out, made["next"][0]+"  active  ") {
		t.Errorf("rotate: %q, %v; want the next one active", out, err)
	}
	rotated := list()
	if len(rotated["retiring"]) != 1 || rotated["retiring"][0] != made["active"][0] || len(rotated["next"]) != 1 {
		t.Errorf("after the rotation: %v", rotated)
	}
	if out, err := command("token-key", "revoke", rotated["active"][0]); err != nil || !strings.Contains(out, "  revoked  ") || !strings.Contains(out, ": committed; no authorizer is registered") {
		t.Errorf("revoke: %q, %v", out, err)
	}
	revoked := list()
	if len(revoked["active"]) != 1 || revoked["active"][0] != rotated["next"][0] || len(revoked["revoked"]) != 1 {
		t.Errorf("after the revocation: %v, want the next one active", revoked)
	}
	if _, err := command("token-key", "revoke", rotated["active"][0]); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("revoking again: %v, want Conflict", err)
	}
	if _, err := command("token-key", "revoke", "none"); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("revoking a key that is none: %v, want NotFound", err)
	}
	if out, err := command("verify"); err != nil || !strings.Contains(out, "1 accounts verified") {
		t.Errorf("verify: %q, %v", out, err)
	}
}

// TestReceiptOfRevocation: who revokes a key sees where that is in force, at once
// and later.
func TestReceiptOfRevocation(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), operatorKey(t)
	issuing(t, url, key)
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sql := func(query string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	sql(`insert into feed_authorizers
		(instance, principal_id, cells, version, registered_at, previous, connected_at, lease_until, fresh_at, max_staleness_ms)
		select name, 'sa_' || name, '{use1}', '', now(), '{}', now(), now() + lease, now(), 3600000
		from (values ('quick', interval '1 hour'), ('slow', interval '1 hour'), ('gone', interval '0')) as a (name, lease)`)
	out, err := command(t, on(url, key, "token-key", "list")...)
	if err != nil {
		t.Fatal(err)
	}
	active := regexp.MustCompile(`(?m)^(\S+)  active `).FindStringSubmatch(out)
	if active == nil {
		t.Fatalf("no active key:\n%s", out)
	}
	out, err = command(t, on(url, key, "token-key", "revoke", active[1], "--wait=100ms")...)
	if !errors.Is(err, exitUnproved) || end(err, io.Discard) != 3 {
		t.Errorf("nobody has answered: %v, want exit status 3", err)
	}
	for _, want := range []string{": enforced on 0/3 authorizers\n", "sa_quick  quick  missing: ", "sa_slow  slow  missing: ", "sa_gone  gone  lapsed: it is not connected, and may serve the old state until 20"} {
		if !strings.Contains(out, want) {
			t.Errorf("the receipt is\n%swant %q", out, want)
		}
	}
	operation := regexp.MustCompile(`operation (op_\w+): `).FindStringSubmatch(out)
	if operation == nil {
		t.Fatal("no operation was printed")
	}
	receipt := func() (string, error) { return command(t, on(url, key, "receipt", operation[1])...) }
	acked := `insert into feed_acks (account_id, instance, revision, hash, dropped, diverged, acked_at)
		select account_id, name, revision, hash, false, false, at + interval '2 ms'
		from entries, unnest(array[%s]) name where account_id = '00000' order by revision desc limit %d`
	sql(fmt.Sprintf(acked, "'quick'", 1))
	if out, err := receipt(); !errors.Is(err, exitUnproved) || !strings.Contains(out, "1/3") || !strings.Contains(out, "sa_quick  quick  enforced: after 2.0 ms\n") {
		t.Errorf("when one has answered: %v\n%s", err, out)
	}
	sql(fmt.Sprintf(acked, "'slow', 'gone'", 2))
	if out, err := receipt(); err != nil || !strings.Contains(out, "enforced on") || strings.Contains(out, "missing") {
		t.Errorf("when all have answered: %v\n%s", err, out)
	}
	for name, args := range map[string][]string{"an operation that is none": {"receipt", "op_x"}, "another account": {"receipt", operation[1], "--account=acme2"}} {
		if _, err := command(t, on(url, key, args...)...); !errors.Is(err, sallyport.NotFound) {
			t.Errorf("%s: %v, want NotFound", name, err)
		}
	}
	if status := end(sallyport.NotFound.Errorf("x"), io.Discard); status != 1 {
		t.Errorf("exit status %d of an error, want 1", status)
	}
}

func TestTokenFlags(t *testing.T) {
	t.Parallel()
	good := tokenFlags{IssuerURL: "https://id.example.com"}
	config, err := good.forOthers()
	if err != nil || len(config.audiences) != 1 || config.audiences[0] != good.IssuerURL {
		t.Errorf("%+v, %v; want the issuer's URL as the audience", config, err)
	}
	if none, err := (tokenFlags{}).forOthers(); err != nil || none.issuer != "" || none.audiences != nil {
		t.Errorf("%+v, %v; want no tokens", none, err)
	}
	for name, c := range map[string]struct {
		flags tokenFlags
		want  string
	}{
		"an issuer without TLS":        {tokenFlags{IssuerURL: "http://id.example.com"}, "--issuer-url"},
		"an issuer with a path":        {tokenFlags{IssuerURL: "https://id.example.com/"}, "--issuer-url"},
		"an issuer that is no URL":     {tokenFlags{IssuerURL: "id.example.com"}, "--issuer-url"},
		"an audience without issuer":   {tokenFlags{TokenAudience: []string{"cloud"}}, "--issuer-url"},
		"a listener without an URL":    {tokenFlags{IssuerURL: good.IssuerURL, MTLSListen: "127.0.0.1:0"}, "--mtls-url"},
		"an mTLS URL without listener": {tokenFlags{IssuerURL: good.IssuerURL, MTLSURL: "https://mtls.example.com"}, "--mtls-listen"},
		"a network that is none":       {tokenFlags{IssuerURL: good.IssuerURL, AllowNetwork: []string{"10.0.0.1"}}, "--allow-network"},
		"a host as a network":          {tokenFlags{IssuerURL: good.IssuerURL, AllowNetwork: []string{"10.0.0.1/8"}}, "--allow-network"},
	} {
		if _, err := c.flags.forOthers(); !errors.Is(err, sallyport.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want Invalid with %s", name, err, c.want)
		}
	}
}

// discovered is what dev's issuer says of itself.
func discovered(t *testing.T, on readiness) (tokenEndpoint string) {
	t.Helper()
	var document struct {
		Issuer        string            `json:"issuer"`
		TokenEndpoint string            `json:"token_endpoint"`
		JWKS          string            `json:"jwks_uri"`
		Aliases       map[string]string `json:"mtls_endpoint_aliases"`
	}
	if err := json.Unmarshal([]byte(fetched(t, on.HTTP+"/.well-known/openid-configuration")), &document); err != nil {
		t.Fatal(err)
	}
	if document.Issuer != on.HTTP || !strings.HasPrefix(document.Aliases["token_endpoint"], on.MTLS) || on.MTLS == "" {
		t.Errorf("discovery = %+v", document)
	}
	return document.TokenEndpoint
}
