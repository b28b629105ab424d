package token

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// metadata is RFC 8414's and OpenID Connect Discovery's document, which share their
// names. There are no flows of people here yet, hence no authorization endpoint.
type metadata struct {
	Issuer               string            `json:"issuer"`
	TokenEndpoint        string            `json:"token_endpoint"`
	Introspection        string            `json:"introspection_endpoint"`
	JWKS                 string            `json:"jwks_uri"`
	GrantTypes           []string          `json:"grant_types_supported"`
	ResponseTypes        []string          `json:"response_types_supported"`
	AuthMethods          []string          `json:"token_endpoint_auth_methods_supported"`
	IntrospectionMethods []string          `json:"introspection_endpoint_auth_methods_supported"`
	SubjectTypes         []string          `json:"subject_types_supported"`
	SigningAlgorithms    []string          `json:"id_token_signing_alg_values_supported"`
	Scopes               []string          `json:"scopes_supported"`
	Bound                bool              `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	MTLS                 map[string]string `json:"mtls_endpoint_aliases,omitempty"`
}

func (i *Issuer) serveMetadata(w http.ResponseWriter, r *http.Request) {
	if i.url == "" {
		http.NotFound(w, r)
		return
	}
	m := metadata{
		Issuer: i.url, TokenEndpoint: i.url + tokenPath, Introspection: i.url + introspection, JWKS: i.url + jwksPath,
		GrantTypes: []string{clientCredentials, tokenExchange}, ResponseTypes: []string{},
		AuthMethods:          []string{"client_secret_basic", "client_secret_post", "none"},
		IntrospectionMethods: []string{"client_secret_basic", "client_secret_post"},
		SubjectTypes:         []string{"public"}, SigningAlgorithms: []string{"ES256"}, Scopes: []string{"read"},
	}
	if i.mtlsURL != "" {
		m.Bound = true
		m.MTLS = map[string]string{"token_endpoint": i.mtlsURL + tokenPath, "introspection_endpoint": i.mtlsURL + introspection}
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	writeJSON(w, http.StatusOK, m)
}

// publishedFor is how old the key set may be that is answered without asking the
// database, however many strangers ask.
const publishedFor = time.Second

// published keeps the last answer.
type published struct {
	mu   sync.Mutex
	body []byte
	at   time.Time
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	if i.url == "" {
		http.NotFound(w, r)
		return
	}
	body, err := i.publishedKeys(r.Context())
	if err != nil {
		if r.Context().Err() == nil {
			i.log.ErrorContext(r.Context(), "publishing the keys of tokens", "error", err)
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not available now; try again", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body) // the client is gone: nothing to be done
}

func (i *Issuer) publishedKeys(ctx context.Context) ([]byte, error) {
	p := &i.published
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := i.now(); p.body != nil && now.Sub(p.at) < publishedFor && !now.Before(p.at) {
		return p.body, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // others wait for it too
	defer cancel()
	rows, err := tokenKeys(ctx, i.pool)
	if err != nil {
		return nil, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, row := range rows {
		if row.State == KeyRevoked {
			continue
		}
		key, err := row.check()
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public, KeyID: row.ID, Algorithm: "ES256", Use: "sig"})
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encoding the keys of tokens: %w", err)
	}
	p.body, p.at = body, i.now()
	return body, nil
}
