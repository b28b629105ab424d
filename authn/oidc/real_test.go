package oidc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

// startNode starts a provider of testdata and gives its issuer. It ends with the test.
func startNode(t *testing.T, script string, settings any) string {
	t.Helper()
	packages := must(filepath.Abs("../../.cache/openid"))
	if _, err := os.Stat(packages); err != nil {
		t.Skip("SKIPPED: the real OpenID providers are not installed; make openid installs them where npm is")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: there is no node for the real OpenID providers")
	}
	command := exec.Command(node, filepath.Join("testdata", script))
	command.Env = append(os.Environ(), "NODE_PACKAGES="+packages, "SETTINGS="+string(must(json.Marshal(settings))))
	return startProvider(t, command)
}

// startProvider starts a program that says which issuer it is, and that ends with its
// standard input.
func startProvider(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	input := must(command.StdinPipe())
	output := must(command.StdoutPipe())
	var problems strings.Builder
	command.Stderr = &problems
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		command.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", command, problems.String())
		}
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	issuer, ok := strings.CutPrefix(strings.TrimSpace(line), "issuer ")
	if err != nil || !ok {
		t.Fatalf("%s said %q: %v", command, line, err)
	}
	return issuer
}

// person drives a provider's pages without a browser.
type person struct {
	t    *testing.T
	http *http.Client
	name string
}

func newPerson(t *testing.T, name string) *person {
	return &person{t, &http.Client{
		Jar: must(cookiejar.New(nil)), Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, name}
}

var (
	action = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
	cancel = regexp.MustCompile(`<a href="([^"]*)">\[ Cancel \]`)
	xsrf   = regexp.MustCompile(`name="xsrf" value="([^"]*)"`)
)

// visit follows the pages from the address until the browser is sent to the redirect
// URI, and gives the query that it is sent there with.
func (u *person) visit(address, redirectURI string, refuse bool) string {
	u.t.Helper()
	response := must(u.http.Get(address))
	for range 20 {
		body := string(must(io.ReadAll(response.Body)))
		response.Body.Close()
		if to := response.Header.Get("Location"); to != "" {
			next := must(response.Request.URL.Parse(to))
			if strings.HasPrefix(next.String(), redirectURI+"?") {
				return next.RawQuery
			}
			response = must(u.http.Get(next.String()))
			continue
		}
		form := action.FindStringSubmatch(body)
		if form == nil {
			u.t.Fatalf("%s answers %s: %s", response.Request.URL, response.Status, body)
		}
		if refuse {
			response = must(u.http.Get(must(response.Request.URL.Parse(html.UnescapeString(cancel.FindStringSubmatch(body)[1]))).String()))
			continue
		}
		values := url.Values{"login": {u.name}, "username": {u.name}, "password": {"verysecure"}}
		for _, field := range hidden.FindAllStringSubmatch(body, -1) {
			values.Set(field[1], html.UnescapeString(field[2]))
		}
		response = must(u.http.PostForm(must(response.Request.URL.Parse(html.UnescapeString(form[1]))).String(), values))
	}
	u.t.Fatal("the provider's pages have no end")
	return ""
}

func TestCertifiedProvider(t *testing.T) {
	t.Parallel()
	logouts := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { logouts <- r.PostFormValue("logout_token") }))
	t.Cleanup(receiver.Close)
	const redirectURI = "http://127.0.0.1:1/sso/c1/callback"
	base := map[string]any{
		"client_secret": "s3cret/+%:&", "redirect_uris": []string{redirectURI}, "application_type": "native", "response_types": []string{"code"}, "grant_types": []string{"authorization_code"},
		"backchannel_logout_uri": receiver.URL, "backchannel_logout_session_required": true, "post_logout_redirect_uris": []string{},
	}
	public := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keyES256.Public(), KeyID: "k1", Use: "sig", Algorithm: "ES256"}}}
	var clients []map[string]any
	for id, over := range map[string]map[string]any{
		"basic": {"token_endpoint_auth_method": "client_secret_basic", "id_token_signed_response_alg": "RS256"},
		"post":  {"token_endpoint_auth_method": "client_secret_post", "id_token_signed_response_alg": "PS256"},
		"jwt":   {"token_endpoint_auth_method": "private_key_jwt", "id_token_signed_response_alg": "ES256", "jwks": public, "client_secret": nil},
		"none":  {"token_endpoint_auth_method": "none", "id_token_signed_response_alg": "EdDSA", "client_secret": nil},
	} {
		clients = append(clients, merge(merge(base, over), map[string]any{"client_id": id}))
	}
	issuer := startNode(t, "provider.mjs", map[string]any{"clients": clients})
	provider := func(id string, method oidc.Method) oidc.Provider {
		p := oidc.Provider{Kind: oidc.OpenID, Issuer: issuer, ClientID: id, Method: method, RedirectURI: redirectURI, Scopes: []string{"email", "profile", "groups"}}
		if method == oidc.SecretBasic || method == oidc.SecretPost {
			p.Secret = "s3cret/+%:&"
		}
		return p
	}
	client := newClient(t, nil)
	signIn := func(t *testing.T, u *person, p oidc.Provider, o oidc.Options) (oidc.Login, string, oidc.Pending, error) {
		t.Helper()
		address, kept, err := client.Begin(context.Background(), p, o)
		if err != nil {
			t.Fatal(err)
		}
		query := u.visit(address, redirectURI, false)
		back, err := oidc.ParseCallback(query)
		if err != nil {
			t.Fatal(err)
		}
		login, err := client.Finish(context.Background(), p, kept, back)
		return login, query, kept, err
	}
	jwtProvider := provider("jwt", oidc.PrivateKeyJWT)
	jwtProvider.Key = &oidc.Key{ID: "k1", Private: keyES256}
	for _, p := range []oidc.Provider{provider("basic", oidc.SecretBasic), provider("post", oidc.SecretPost), jwtProvider, provider("none", oidc.NoMethod)} {
		t.Run(p.ClientID, func(t *testing.T) {
			login, query, kept, err := signIn(t, newPerson(t, "ada"), p, oidc.Options{Hint: "ada"})
			if err != nil {
				t.Fatal(err)
			}
			want := oidc.Identity{Issuer: issuer, Subject: "ada", External: "ada", Email: "ada@example.com", EmailVerified: true, Name: "The ada",
				Groups: oidc.Groups{Stated: true, Names: []string{"engineers", "owners"}}, Sub: "ada"}
			if diff := cmp.Diff(want, login.Identity, ignoreTimes, cmpopts.IgnoreFields(oidc.Identity{}, "SessionID", "ACR")); diff != "" {
				t.Errorf("the identity (-want +got):\n%s", diff)
			}
			again, err := client.Finish(context.Background(), p, kept, must(oidc.ParseCallback(query)))
			checkRefused(t, again, err, oidc.BadExchange) // the code is good for once
			if strings.Contains(query, "iss=") != true {
				t.Errorf("the provider did not name itself: %s", query)
			}
		})
	}
	t.Run("anew", func(t *testing.T) {
		u := newPerson(t, "ada")
		p := provider("basic", oidc.SecretBasic)
		for range 2 {
			login, _, _, err := signIn(t, u, p, oidc.Options{Fresh: time.Minute})
			if err != nil || time.Since(login.Identity.AuthTime) > 30*time.Second {
				t.Errorf("signed in at %s: %v", login.Identity.AuthTime, err)
			}
		}
	})
	t.Run("refused by the person", func(t *testing.T) {
		p := provider("basic", oidc.SecretBasic)
		address, kept, err := client.Begin(context.Background(), p, oidc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		back := must(oidc.ParseCallback(newPerson(t, "ada").visit(address, redirectURI, true)))
		login, err := client.Finish(context.Background(), p, kept, back)
		checkRefused(t, login, err, oidc.ProviderRefused)
	})
	t.Run("a wrong secret", func(t *testing.T) {
		p := provider("basic", oidc.SecretBasic)
		p.Secret = "other"
		login, _, _, err := signIn(t, newPerson(t, "ada"), p, oidc.Options{})
		checkRefused(t, login, err, oidc.BadExchange)
	})
	t.Run("another connection's client", func(t *testing.T) { // a code is of the client that asked for it
		_, kept, err := client.Begin(context.Background(), provider("post", oidc.SecretPost), oidc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		address, other, err := client.Begin(context.Background(), provider("basic", oidc.SecretBasic), oidc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		back := must(oidc.ParseCallback(newPerson(t, "ada").visit(address, redirectURI, false)))
		login, err := client.Finish(context.Background(), provider("post", oidc.SecretPost), kept, back)
		checkRefused(t, login, err, oidc.WrongState)
		login, err = client.Finish(context.Background(), provider("post", oidc.SecretPost), other, back)
		checkRefused(t, login, err, oidc.Changed)
		back.State = kept.State() // and where the state is stolen as well
		login, err = client.Finish(context.Background(), provider("post", oidc.SecretPost), kept, back)
		checkRefused(t, login, err, oidc.BadExchange)
	})
	t.Run("back-channel logout", func(t *testing.T) {
		u := newPerson(t, "ada")
		p := provider("basic", oidc.SecretBasic)
		login, _, _, err := signIn(t, u, p, oidc.Options{})
		if err != nil {
			t.Fatal(err)
		}
		u.signOut(issuer)
		var token string
		select {
		case token = <-logouts:
		case <-time.After(10 * time.Second):
			t.Fatal("the provider sent no logout token")
		}
		seen := map[string]bool{}
		first := func(_ context.Context, issuer, id string, _ time.Time) (bool, error) {
			key := issuer + " " + id
			defer func() { seen[key] = true }()
			return !seen[key], nil
		}
		got, err := client.Logout(context.Background(), p, token, first)
		if err != nil {
			t.Fatal(err)
		}
		if got.Sub != "ada" || got.SessionID == "" || got.SessionID != login.Identity.SessionID {
			t.Errorf("the logout is %+v, the sign-in was %+v", got, login.Identity)
		}
		if _, err := client.Logout(context.Background(), p, token, first); reasonOf(err) != oidc.Replayed {
			t.Errorf("the second time: %v", err)
		}
		if _, err := client.Logout(context.Background(), provider("post", oidc.SecretPost), token, first); reasonOf(err) == "" {
			t.Error("another client's logout token was taken")
		}
	})
}

// signOut ends the person's session at the provider.
func (u *person) signOut(issuer string) {
	u.t.Helper()
	response := must(u.http.Get(issuer + "/session/end"))
	body := string(must(io.ReadAll(response.Body)))
	response.Body.Close()
	token := xsrf.FindStringSubmatch(body)
	if token == nil {
		u.t.Fatalf("no form to sign out: %s", body)
	}
	response = must(u.http.PostForm(html.UnescapeString(action.FindStringSubmatch(body)[1]), url.Values{"xsrf": {token[1]}, "logout": {"yes"}}))
	response.Body.Close()
	if response.StatusCode >= 400 {
		u.t.Fatalf("signing out: %s", response.Status)
	}
}

// What another implementation can be made to send.
func TestHostileMock(t *testing.T) {
	t.Parallel()
	issuer := startNode(t, "hostile.mjs", nil)
	const redirectURI = "http://127.0.0.1:1/sso/c1/callback"
	p := oidc.Provider{Kind: oidc.OpenID, Issuer: issuer, ClientID: clientID, RedirectURI: redirectURI}
	client := newClient(t, nil)
	now := time.Now().Unix()
	payload := func(over map[string]any) map[string]any { return map[string]any{"payload": over} }
	for _, test := range []struct {
		name  string
		order map[string]any
		want  oidc.Reason
	}{
		{"nothing", nil, ""},
		{"iss of another tenant", payload(map[string]any{"iss": issuer + "/other"}), oidc.WrongIssuer},
		{"iss with a slash", payload(map[string]any{"iss": issuer + "/"}), oidc.WrongIssuer},
		{"aud of another", payload(map[string]any{"aud": "other"}), oidc.WrongAudience},
		{"aud list without azp", payload(map[string]any{"aud": []string{clientID, "other"}}), oidc.WrongAudience},
		{"aud list with azp", payload(map[string]any{"aud": []string{clientID, "other"}, "azp": clientID}), ""},
		{"expired", payload(map[string]any{"exp": now - 600}), oidc.WrongTimes},
		{"made long ago", payload(map[string]any{"iat": now - 600}), oidc.WrongTimes},
		{"not yet", payload(map[string]any{"nbf": now + 600}), oidc.WrongTimes},
		{"another nonce", payload(map[string]any{"nonce": "other"}), oidc.WrongNonce},
		{"no sub", payload(map[string]any{"sub": ""}), oidc.WrongSubject},
		{"at_hash", payload(map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}), oidc.BadToken},
		{"jku", map[string]any{"header": map[string]any{"jku": issuer + "/jwks"}}, oidc.BadToken},
		{"an access token", map[string]any{"header": map[string]any{"typ": "at+jwt"}}, oidc.BadToken},
		{"an unknown kid", map[string]any{"header": map[string]any{"kid": "other"}}, oidc.BadSignature},
		{"alg none", map[string]any{"rewrite": map[string]any{"alg": "none"}}, oidc.BadToken},
		{"alg HS256", map[string]any{"rewrite": map[string]any{"alg": "HS256"}}, oidc.BadToken},
		{"alg PS256", map[string]any{"rewrite": map[string]any{"alg": "PS256"}}, oidc.BadToken},
		{"a header that was not signed", map[string]any{"rewrite": map[string]any{"x": 1}}, oidc.BadSignature},
		{"no ID token", map[string]any{"body": map[string]any{"id_token": nil}}, oidc.BadExchange},
		{"an ID token that is an object", map[string]any{"body": map[string]any{"id_token": map[string]any{}}}, oidc.BadExchange},
		{"another type of token", map[string]any{"body": map[string]any{"token_type": "mac"}}, oidc.BadExchange},
		{"an error", map[string]any{"status": 400, "body": map[string]any{"error": "invalid_grant"}}, oidc.BadExchange},
		{"a broken token endpoint", map[string]any{"status": 503}, oidc.Unreachable},
		{"userinfo of another", map[string]any{"userinfo": map[string]any{"sub": "eve"}}, oidc.WrongSubject},
		{"another state", map[string]any{"redirect": map[string]any{"state": "other"}}, oidc.WrongState},
		{"another code", map[string]any{"redirect": map[string]any{"code": "other"}}, oidc.BadExchange},
		{"iss of another in the callback", map[string]any{"redirect": map[string]any{"iss": "https://evil.example"}}, oidc.WrongIssuer},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, kept, err := client.Begin(context.Background(), p, oidc.Options{Hint: string(must(json.Marshal(test.order)))})
			if err != nil {
				t.Fatal(err)
			}
			if test.order == nil {
				address = strings.Replace(address, "login_hint=null", "login_hint=%7B%7D", 1)
			}
			var login oidc.Login
			back, err := oidc.ParseCallback(newPerson(t, "ada").visit(address, redirectURI, false))
			if err == nil {
				login, err = client.Finish(context.Background(), p, kept, back)
			}
			if test.want != "" {
				checkRefused(t, login, err, test.want)
				return
			}
			if err != nil || login.Identity.Subject != "johndoe" {
				t.Errorf("got %+v, %v", login.Identity, err)
			}
		})
	}
}

// Another implementation, whose issuer ends in a slash, and which wants the client id
// and secret escaped.
func TestZitadelProvider(t *testing.T) {
	t.Parallel()
	program := must(filepath.Abs("../../.cache/zitadel/op"))
	if _, err := os.Stat(program); err != nil {
		t.Skip("SKIPPED: zitadel's example provider is not built; make openid builds it")
	}
	const redirectURI = "http://localhost:1/sso/c1/callback"
	issuer := startProvider(t, exec.Command(program, redirectURI))
	client := newClient(t, nil)
	for _, p := range []oidc.Provider{
		{Kind: oidc.OpenID, Issuer: issuer, ClientID: "web", Secret: "s3cret/+%:&", RedirectURI: redirectURI},
		{Kind: oidc.OpenID, Issuer: issuer, ClientID: "native", RedirectURI: redirectURI},
	} {
		t.Run(p.ClientID, func(t *testing.T) {
			address, kept, err := client.Begin(context.Background(), p, oidc.Options{})
			if err != nil {
				t.Fatal(err)
			}
			back, err := oidc.ParseCallback(newPerson(t, "test-user@localhost").visit(address, redirectURI, false))
			if err != nil {
				t.Fatal(err)
			}
			login, err := client.Finish(context.Background(), p, kept, back)
			if err != nil {
				t.Fatal(err)
			}
			want := oidc.Identity{Issuer: issuer, Subject: "id1", External: "id1", Email: "test-user@zitadel.ch", EmailVerified: true, Name: "Test User",
				Groups: oidc.Groups{Why: `the provider sent no "groups"`}, Sub: "id1"}
			if diff := cmp.Diff(want, login.Identity, ignoreTimes, cmpopts.IgnoreFields(oidc.Identity{}, "SessionID", "AMR")); diff != "" {
				t.Errorf("the identity (-want +got):\n%s", diff)
			}
			again, err := client.Finish(context.Background(), p, kept, back)
			checkRefused(t, again, err, oidc.BadExchange)
			p.Issuer = strings.TrimSuffix(issuer, "/")
			_, err = client.Discover(context.Background(), p)
			if reasonOf(err) != oidc.Unreachable {
				t.Errorf("the issuer without its slash: %v", err)
			}
		})
	}
}
