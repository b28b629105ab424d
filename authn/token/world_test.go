package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/fetch"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	issuerURL = "https://id.test.example.com"
	platform  = "https://cloud.test.example.com"
)

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

var operator = sallyport.OperatorCaller(sallyport.SystemAccount, "test")

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantKind fails the test unless err is of the kind and says the words.
func wantKind(t testing.TB, what string, err error, kind sallyport.Kind, says string) {
	t.Helper()
	if sallyport.KindOf(err) != kind || kind != "" && !strings.Contains(err.Error(), says) || kind == "" && err != nil {
		t.Errorf("%s: got %v; want %q with %q", what, err, kind, says)
	}
}

// world is a service that gives out tokens, on a database of its own.
type world struct {
	*authntest.World
	issuer  *token.Issuer
	config  token.Config
	handler http.Handler
}

func newWorld(t testing.TB) *world { return newWorldOn(t, pgtest.Clone(t)) }

func newWorldOn(t testing.TB, pool *pgxpool.Pool) *world {
	t.Helper()
	w := &world{World: authntest.NewOn(t, pool)}
	check(t, w.Directory.EnsureSystem(t.Context()))
	file := filepath.Join(t.TempDir(), "operator-key")
	check(t, vault.Create(file))
	w.config = w.newConfig(t, file)
	w.issuer = newIssuer(t, w.config)
	check(t, w.issuer.KeepKeys(t.Context(), true))
	w.handler = w.issuer.Handler()
	return w
}

func (w *world) newConfig(t testing.TB, keyFile string) token.Config {
	t.Helper()
	v, err := vault.Open(keyFile)
	check(t, err)
	return token.Config{
		Journal: w.Journal, Pages: page.NewSigner([32]byte{1}), Vault: v, Issuer: issuerURL, Audiences: []string{platform, "other-name"},
		Standing: w.Directory.Standing, NamespaceIDs: w.Directory.NamespaceIDs,
		Keys: token.APIKeys{Kind: apikeys.CredentialKind, Authenticate: w.Keys.Authenticate, Reauthenticate: w.Keys.Reauthenticate,
			Ends: w.Keys.Ends, MarkUsed: w.Keys.MarkUsed},
		Fetch:  fetch.New(fetch.Config{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Second}),
		Now:    w.Now,
		Logger: slog.New(slog.NewTextHandler(w.Log, nil)),
	}
}

func newIssuer(t testing.TB, c token.Config) *token.Issuer {
	t.Helper()
	i, err := token.New(c)
	check(t, err)
	return i
}

func newAuthnWorld(t testing.TB, pool *pgxpool.Pool) *authntest.World {
	return authntest.NewOn(t, pool)
}

// answer is what an endpoint says.
type answer struct {
	status      int
	header      http.Header
	Token       string `json:"access_token"`
	IssuedType  string `json:"issued_token_type"`
	Type        string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// post sends a form; values are name, value pairs, and those that begin with
// "header:" set headers.
func (w *world) post(t testing.TB, handler http.Handler, path string, values ...string) answer {
	t.Helper()
	form, headers := url.Values{}, http.Header{}
	for n := 0; n < len(values); n += 2 {
		if name, ok := strings.CutPrefix(values[n], "header:"); ok {
			headers.Set(name, values[n+1])
		} else {
			form.Add(values[n], values[n+1])
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header = headers
	if headers.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return send(t, handler, r)
}

func send(t testing.TB, handler http.Handler, r *http.Request) answer {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	a := answer{status: recorder.Code, header: recorder.Header()}
	if err := json.Unmarshal(recorder.Body.Bytes(), &a); err != nil {
		t.Fatalf("the answer is not JSON: %v: %s", err, recorder.Body)
	}
	if recorder.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the answer may be kept: %v", recorder.Header())
	}
	return a
}

func (w *world) token(t testing.TB, values ...string) answer {
	t.Helper()
	return w.post(t, w.handler, "/oauth/token", values...)
}

// credentials asks for a token with a key.
func (w *world) credentials(t testing.TB, made apikeys.Made, values ...string) answer {
	t.Helper()
	return w.token(t, append([]string{"grant_type", "client_credentials", "client_id", made.Key.Owner.ID, "client_secret", made.Token.Reveal()}, values...)...)
}

const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"

func (w *world) exchange(t testing.TB, a *authntest.Tenant, sa sallyport.Principal, subject string, values ...string) answer {
	t.Helper()
	return w.token(t, append([]string{"grant_type", exchangeGrant, "subject_token", subject, "subject_token_type", "urn:ietf:params:oauth:token-type:jwt",
		"account", string(a.ID), "service_account", sa.ID}, values...)...)
}

// authenticate comes with a token, from 192.0.2.1.
func (w *world) authenticate(t testing.TB, raw string) (sallyport.Caller, error) {
	t.Helper()
	return w.issuer.Authenticate(t.Context(), w.Journal.Pool(), raw, nil, netip.MustParseAddr("192.0.2.1"))
}

func reader(t testing.TB, a *authntest.Tenant) sallyport.Principal {
	t.Helper()
	return a.ServiceAccount(t, sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleRead})
}

// idp is another issuer, whose answers a test can spoil.
type idp struct {
	*httptest.Server
	issuer  string // its URL, unless changed
	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetches atomic.Int64
	spoil   http.HandlerFunc // answers for the key set instead; nil: it is not spoiled
}

func newIdP(t testing.TB) *idp {
	t.Helper()
	p := &idp{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.issuer, "jwks_uri": p.URL + "/keys", "response_types_supported": []string{"id_token"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.spoil != nil {
			p.spoil(w, r)
			return
		}
		_, _ = w.Write(p.jwks())
	})
	p.Server = httptest.NewServer(mux)
	p.issuer = p.URL
	t.Cleanup(p.Close)
	return p
}

func (p *idp) jwks() []byte {
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: p.keys})
	if err != nil {
		panic(err)
	}
	return text
}

func (p *idp) set(spoil http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = spoil
}

// key makes a key of the algorithm, published under the id.
func (p *idp) key(t testing.TB, kid, algorithm string) crypto.Signer {
	t.Helper()
	key := newKey(t, algorithm)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: algorithm, Use: "sig"})
	return key
}

func newKey(t testing.TB, algorithm string) crypto.Signer {
	t.Helper()
	var (
		key crypto.Signer
		err error
	)
	switch algorithm {
	case "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	check(t, err)
	return key
}

// sign makes a token of the claims.
func sign(t testing.TB, key any, algorithm, kid string, claims map[string]any, header ...any) string {
	t.Helper()
	unsigned := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), jwt.MapClaims(claims))
	if kid != "" {
		unsigned.Header["kid"] = kid
	}
	for n := 0; n < len(header); n += 2 {
		unsigned.Header[header[n].(string)] = header[n+1]
	}
	raw, err := unsigned.SignedString(key)
	check(t, err)
	return raw
}

// good are the claims of a good token for the account, with more.
func (w *world) good(p *idp, a *authntest.Tenant, more map[string]any) map[string]any {
	now := w.Now()
	claims := map[string]any{"iss": p.issuer, "aud": w.issuer.AccountAudience(a.ID), "sub": "workload", "jti": "one",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	for name, v := range more {
		if v == nil {
			delete(claims, name)
		} else {
			claims[name] = v
		}
	}
	return claims
}

// rule makes a rule, on sub unless it has conditions.
func (w *world) rule(t testing.TB, a *authntest.Tenant, sa sallyport.Principal, p *idp, conditions ...token.Condition) token.Rule {
	t.Helper()
	if conditions == nil {
		conditions = []token.Condition{{Claim: "sub", Equals: []any{"workload"}}}
	}
	rule, _, err := w.issuer.CreateRule(t.Context(), a.Operator, op("CreateFederationRule"),
		token.RuleParams{ServiceAccount: sa.ID, Issuer: p.issuer, Conditions: conditions, Enabled: true})
	check(t, err)
	return rule
}

func (w *world) get(t testing.TB, path string) []byte {
	t.Helper()
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("%s: status %d", path, recorder.Code)
	}
	return bytes.TrimSpace(recorder.Body.Bytes())
}

// flushJournal makes the journal keep the denials that it has counted.
func (w *world) flushJournal(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, w.Journal.Run(ctx))
}
