package token

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// introspection answers are RFC 7662 §2.2: of a token that is not good, or not of
// the caller's account, nothing but that.
type introspectionAnswer struct {
	Active    bool                    `json:"active"`
	Issuer    string                  `json:"iss,omitempty"`
	Subject   string                  `json:"sub,omitempty"`
	Client    string                  `json:"client_id,omitempty"`
	Audience  []string                `json:"aud,omitempty"`
	Expires   int64                   `json:"exp,omitempty"`
	Issued    int64                   `json:"iat,omitempty"`
	ID        string                  `json:"jti,omitempty"`
	TokenType string                  `json:"token_type,omitempty"`
	Scope     string                  `json:"scope,omitempty"`
	Account   sallyport.AccountID     `json:"account,omitempty"`
	Key       string                  `json:"key,omitempty"`
	Rule      string                  `json:"rule,omitempty"`
	ReadOnly  bool                    `json:"read_only,omitempty"`
	Namespace []sallyport.NamespaceID `json:"namespaces,omitempty"`
	Bound     map[string]string       `json:"cnf,omitempty"`
}

// introspect tells a caller, by an API key or a token of its own, whether a token of
// its account is good now. To which certificate it is bound is for the caller to
// compare. An API key that is limited to networks must allow the caller's too.
func (i *Issuer) introspect(ctx context.Context, r request) (introspectionAnswer, error) {
	by := r.secret
	if by == "" {
		by = r.bearer
	}
	raw := r.get("token")
	switch {
	case by == "":
		return introspectionAnswer{}, fail(http.StatusUnauthorized, "invalid_client", "authenticate with an API key or a token: Authorization: Bearer, or client_id and client_secret")
	case raw == "":
		return introspectionAnswer{}, fail(http.StatusBadRequest, "invalid_request", "token is missing")
	}
	var (
		answer  introspectionAnswer
		inquiry sallyport.Caller
	)
	err := pg.Snapshot(ctx, i.pool, func(tx pgx.Tx) error {
		var err error
		if credential.IsToken(by) {
			inquiry, err = i.Authenticate(ctx, tx, by, r.certs, r.from)
		} else {
			inquiry, err = i.apiKeys.Authenticate(ctx, tx, by, r.from)
		}
		if err != nil {
			return err
		}
		if r.client != "" && r.client != inquiry.Principal.ID {
			return fail(http.StatusUnauthorized, "invalid_client", "the API key is not one of what client_id names")
		}
		t, err := i.verify(ctx, tx, raw)
		if err == nil && t.Account == inquiry.Account {
			if _, err = i.stand(ctx, tx, t, r.from); err == nil {
				answer, err = describe(ctx, tx, t)
			}
		}
		if errors.Is(err, sallyport.Unauthenticated) {
			return nil // it is not active
		}
		return err
	})
	return answer, err
}

// describe tells of a token that is good. Its issuer is its key's, which may be
// what the service was called when it was made.
func describe(ctx context.Context, q pg.Querier, t credential.Token) (introspectionAnswer, error) {
	key, err := findKey(ctx, q, t.Signer)
	if err != nil {
		return introspectionAnswer{}, err
	}
	a := introspectionAnswer{
		Active: true, Issuer: key.Issuer, Subject: t.Principal.ID, Client: t.Principal.ID, Audience: t.Audience, Expires: t.Expires.Unix(), Issued: t.Issued.Unix(),
		ID: t.ID, TokenType: "Bearer", Scope: t.Scope, Account: t.Account, Key: t.Key, Rule: t.Rule, ReadOnly: t.ReadOnly, Namespace: t.Namespaces,
	}
	if t.Certificate != nil {
		a.Bound = map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(t.Certificate)}
	}
	return a, nil
}
