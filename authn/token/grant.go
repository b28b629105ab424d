package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Grants and types of tokens, as RFC 6749 and RFC 8693 name them.
const (
	clientCredentials = "client_credentials"
	tokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT           = "urn:ietf:params:oauth:token-type:jwt"
	typeIDToken       = "urn:ietf:params:oauth:token-type:id_token"
	typeAccessToken   = "urn:ietf:params:oauth:token-type:access_token"
)

const (
	maxScope      = 4 << 10 // bytes
	maxScopeParts = 50
)

// What strangers send does not reach the database unless it could be there.
var (
	serviceAccountID = regexp.MustCompile(`^` + sallyport.ServiceAccountPrefix + `[a-z2-7]{16}$`)
	namespaceName    = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
)

// grantAnswer is RFC 6749 §5.1 and RFC 8693 §2.2.1.
type grantAnswer struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string `json:"scope,omitempty"`
}

func (i *Issuer) grant(ctx context.Context, r request) (grantAnswer, error) {
	var (
		answer grantAnswer
		err    error
	)
	grant := r.get("grant_type")
	switch grant {
	case clientCredentials:
		answer, err = i.clientCredentials(ctx, r)
	case tokenExchange:
		answer, err = i.exchange(ctx, r)
	case "":
		return answer, fail(http.StatusBadRequest, "invalid_request", "grant_type is missing: it is client_credentials, or "+tokenExchange)
	default:
		return answer, fail(http.StatusBadRequest, "unsupported_grant_type", "grant_type is client_credentials, or "+tokenExchange)
	}
	if err == nil {
		i.metrics.issued.WithLabelValues(grant).Inc()
	}
	return answer, err
}

// clientCredentials gives a service account a token for its API key (RFC 6749 §4.4).
func (i *Issuer) clientCredentials(ctx context.Context, r request) (grantAnswer, error) {
	secret := r.secret
	if secret == "" {
		secret = r.bearer
	}
	if secret == "" {
		return grantAnswer{}, fail(http.StatusUnauthorized, "invalid_client", "send the service account's id as client_id and one of its API keys as client_secret")
	}
	var (
		t   credential.Token
		key keyRow
	)
	err := pg.Snapshot(ctx, i.pool, func(tx pgx.Tx) error {
		caller, err := i.apiKeys.Authenticate(ctx, tx, secret, r.from)
		if err != nil {
			return err
		}
		switch {
		case caller.Principal.Kind != sallyport.ServiceAccount:
			return fail(http.StatusBadRequest, "unauthorized_client", "tokens for API keys are for service accounts; use the API key itself")
		case r.client != "" && r.client != caller.Principal.ID:
			return fail(http.StatusUnauthorized, "invalid_client", "the API key is not one of the service account that client_id names")
		}
		owner, err := i.mayHave(ctx, tx, caller.Account, caller.Principal.ID)
		if err != nil {
			return err
		}
		if t, key, err = i.draft(ctx, tx, r, caller.Account, caller.Principal.ID, owner, caller.Limits.Namespaces); err != nil {
			return err
		}
		t.Key = caller.Credential.ID
		ends, err := i.apiKeys.Ends(ctx, tx, caller.Account, t.Key)
		if err == nil && ends.Before(t.Expires) {
			t.Expires = ends.Truncate(time.Second)
		}
		return err
	})
	if err != nil {
		return grantAnswer{}, err
	}
	if !t.Expires.After(t.Issued) {
		return grantAnswer{}, fail(http.StatusUnauthorized, "invalid_client", "the API key ends within this second; use another one")
	}
	answer, err := i.sign(t, key)
	if err == nil {
		i.apiKeys.MarkUsed(t.Account, t.Key, i.now())
	}
	return answer, err
}

// mayHave checks that the service account stands and may have a token now.
func (i *Issuer) mayHave(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (directory.Standing, error) {
	if account == sallyport.SystemAccount {
		return directory.Standing{}, fail(http.StatusBadRequest, "unauthorized_client", "authorizers use their API keys themselves")
	}
	owner, err := i.standing(ctx, q, account, robot(id))
	switch {
	case err != nil:
		return directory.Standing{}, err
	case owner.Status != object.Active || owner.Account != object.Active:
		return directory.Standing{}, fail(http.StatusBadRequest, "unauthorized_client", "the service account or its account is not active; ask an owner or admin of the account")
	case !i.limits.serviceAccount(account, id):
		return directory.Standing{}, fail(http.StatusTooManyRequests, "temporarily_unavailable", "too many tokens are asked for this service account; keep them until they expire")
	}
	return owner, nil
}

// draft makes the token that the request asks for, for a service account that was
// proved; what it was proved by is the caller's to add. within are namespaces that
// what it was proved by is limited to, nil if it is not.
func (i *Issuer) draft(ctx context.Context, q pg.Querier, r request, account sallyport.AccountID, id string, owner directory.Standing, within []sallyport.NamespaceID) (credential.Token, keyRow, error) {
	key, err := activeKey(ctx, q)
	if err != nil {
		return credential.Token{}, keyRow{}, err
	}
	audience := r.get("audience")
	switch {
	case r.form.Has("resource"):
		return credential.Token{}, keyRow{}, fail(http.StatusBadRequest, "invalid_target", "resource is not understood; leave it out, or give an audience")
	case audience == "":
		audience = key.Audiences[0]
	case !slices.Contains(key.Audiences, audience):
		return credential.Token{}, keyRow{}, fail(http.StatusBadRequest, "invalid_target", "no tokens are given out for this audience; leave it out for "+key.Audiences[0])
	}
	life, err := r.life()
	if err != nil {
		return credential.Token{}, keyRow{}, err
	}
	now := i.now().UTC().Truncate(time.Second)
	t := credential.Token{ID: sallyport.NewID("tok_"), Account: account, Principal: robot(id), Epoch: owner.Epoch, Audience: []string{audience},
		Issued: now, Expires: now.Add(life)}
	if r.certs != nil {
		if err := i.certificate(ctx, q, account, r.certs); err != nil {
			return credential.Token{}, keyRow{}, err
		}
		sum := sha256.Sum256(r.certs[0].Raw)
		t.Certificate = sum[:]
	}
	return t, key, i.scope(ctx, q, r.get("scope"), within, &t)
}

// life is how long the token is asked to be good for.
func (r request) life() (time.Duration, error) {
	text := r.get("expires_in")
	if text == "" {
		return defaultLife, nil
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 60 || seconds > int(maxLife/time.Second) {
		return 0, fail(http.StatusBadRequest, "invalid_request", "expires_in is a number of seconds between 60 and 3600")
	}
	return time.Duration(seconds) * time.Second, nil
}

// scope narrows the token as was asked for: "read", and "namespace:<name>" with or
// without ".<account>" for those only that are named. It never widens.
func (i *Issuer) scope(ctx context.Context, q pg.Querier, text string, within []sallyport.NamespaceID, t *credential.Token) error {
	invalid := func(description string) error { return fail(http.StatusBadRequest, "invalid_scope", description) }
	parts := strings.Fields(text)
	if len(text) > maxScope || len(parts) > maxScopeParts {
		return invalid("scope has more than 50 parts")
	}
	var names, given []string
	for _, part := range parts {
		name, isNamespace := strings.CutPrefix(part, "namespace:")
		switch name = strings.TrimSuffix(name, "."+string(t.Account)); {
		case part == "read":
			t.ReadOnly = true
		case !isNamespace || !namespaceName.MatchString(name):
			return invalid("scope may have read and namespace:NAME, parted by spaces")
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	if t.ReadOnly {
		given = append(given, "read")
	}
	if names != nil {
		ids, err := i.namespaceIDs(ctx, q, t.Account, names)
		if err != nil {
			return err
		}
		for _, name := range names {
			id, ok := ids[name]
			if !ok || within != nil && !slices.Contains(within, id) {
				return invalid("there is no namespace " + cut(name) + " that the token could be for")
			}
			t.Namespaces = append(t.Namespaces, id)
			given = append(given, "namespace:"+name+"."+string(t.Account))
		}
		slices.Sort(t.Namespaces)
	}
	t.Scope = strings.Join(given, " ")
	return nil
}

// sign gives the token out.
func (i *Issuer) sign(t credential.Token, row keyRow) (grantAnswer, error) {
	key, err := i.signer(row)
	if err != nil {
		return grantAnswer{}, err
	}
	signed, err := credential.SignToken(t, row.Issuer, row.ID, key)
	if err != nil {
		return grantAnswer{}, err
	}
	return grantAnswer{AccessToken: signed, TokenType: "Bearer", ExpiresIn: int64(t.Expires.Sub(t.Issued) / time.Second), Scope: t.Scope}, nil
}

// notAccepted is what strangers are told, whatever it was: there is no such account,
// no such service account, no rule, or the token is not good for it.
var notAccepted = fail(http.StatusBadRequest, "invalid_grant",
	"the subject token is not accepted for this service account; an admin of the account finds out why with: sallyport federation test")

// exchange gives a service account a token for one of an issuer that one of its
// rules trusts (RFC 8693). Only that service account's rules are looked at.
func (i *Issuer) exchange(ctx context.Context, r request) (grantAnswer, error) {
	account, id, e, err := r.exchangeParams()
	if err != nil {
		return grantAnswer{}, err
	}
	var rules []Rule
	err = pg.Snapshot(ctx, i.pool, func(tx pgx.Tx) error {
		if _, err := i.standing(ctx, tx, account, robot(id)); err != nil {
			return err
		}
		rules, err = listRules(ctx, tx, account, id, "", maxRules)
		return err
	})
	if errors.Is(err, sallyport.NotFound) {
		return grantAnswer{}, notAccepted
	}
	if err != nil {
		return grantAnswer{}, err
	}
	rule, refused, err := i.choose(ctx, rules, &e)
	if err != nil {
		return grantAnswer{}, err
	}
	if rule == nil {
		return grantAnswer{}, i.notExchanged(r, account, id, refused)
	}
	answer, err := i.exchangeBy(ctx, r, *rule)
	var f failure
	if errors.As(err, &f) {
		i.journal.Denied(account, attempt(r, account, id), "ExchangeToken", "rule "+rule.ID+": "+f.Error())
	}
	return answer, err
}

// exchangeParams checks what an exchange needs, without asking anybody.
func (r request) exchangeParams() (account sallyport.AccountID, id string, e external, err error) {
	invalid := func(description string) (sallyport.AccountID, string, external, error) {
		return "", "", external{}, fail(http.StatusBadRequest, "invalid_request", description)
	}
	account, id = sallyport.AccountID(r.get("account")), r.get("service_account")
	kinds := []string{typeJWT, typeIDToken, typeAccessToken}
	switch {
	case !account.Valid():
		return invalid("account is missing, or not an account's id")
	case !serviceAccountID.MatchString(id):
		return invalid("service_account is missing, or not a service account's id")
	case r.bearer != "" || r.secret != "":
		return invalid("an exchange needs no secret; leave it out")
	case r.client != "" && r.client != id:
		return invalid("client_id can be left out, or be the service account")
	case r.get("subject_token") == "":
		return invalid("subject_token is missing")
	case !slices.Contains(kinds, r.get("subject_token_type")):
		return invalid("subject_token_type is one of " + strings.Join(kinds, ", "))
	case r.form.Has("actor_token") || r.form.Has("actor_token_type"):
		return invalid("actor tokens are not taken; leave actor_token out")
	case r.form.Has("requested_token_type") && r.get("requested_token_type") != typeAccessToken:
		return invalid("requested_token_type is " + typeAccessToken + ", or left out")
	}
	e, err = parseExternal(r.get("subject_token"))
	if err != nil {
		return invalid("the subject token is not one that can be read: " + err.Error())
	}
	return account, id, e, nil
}

// choose finds the first rule that lets the token in. Without one it gives what came
// out with the rules whose issuer did sign the token for this account.
func (i *Issuer) choose(ctx context.Context, rules []Rule, e *external) (*Rule, []trial, error) {
	var refused []trial
	for _, rule := range rules {
		if rule.Issuer != e.issuer || !rule.Enabled {
			continue
		}
		t, err := i.try(ctx, rule, e)
		switch {
		case err != nil:
			return nil, nil, err
		case t.Matches:
			return &rule, nil, nil
		case t.verified:
			refused = append(refused, t)
		}
	}
	return nil, refused, nil
}

// notExchanged records the refusal, and tells why only who has a token that a
// trusted issuer made for this very account, and not all that is recorded.
func (i *Issuer) notExchanged(r request, account sallyport.AccountID, id string, refused []trial) error {
	if len(refused) == 0 {
		i.journal.Denied(account, attempt(r, account, id), "ExchangeToken", "no rule of the service account trusts the token's issuer, or the token is not its")
		return notAccepted
	}
	var reasons, hints []string
	for _, t := range refused {
		reasons = append(reasons, "rule "+t.Rule.ID+": "+t.reason())
		if hint := t.hint(); !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	i.journal.Denied(account, attempt(r, account, id), "ExchangeToken", strings.Join(reasons, "; "))
	return fail(http.StatusBadRequest, "invalid_grant", "the subject token is not accepted: "+strings.Join(hints, "; ")+"; an admin of the account finds out more with: sallyport federation test")
}

// attempt is who a refused exchange was tried for.
func attempt(r request, account sallyport.AccountID, id string) sallyport.Caller {
	return sallyport.Caller{Account: account, Principal: robot(id), From: r.from}
}

// exchangeBy gives out the token that a rule lets in, if the rule is still as it was.
func (i *Issuer) exchangeBy(ctx context.Context, r request, rule Rule) (grantAnswer, error) {
	var (
		t   credential.Token
		key keyRow
	)
	err := pg.Snapshot(ctx, i.pool, func(tx pgx.Tx) error {
		now, err := findRule(ctx, tx, rule.Account, rule.ID)
		if errors.Is(err, sallyport.NotFound) || err == nil && (now.Version != rule.Version || now.ServiceAccount != rule.ServiceAccount) {
			return notAccepted
		}
		if err != nil {
			return err
		}
		owner, err := i.mayHave(ctx, tx, rule.Account, rule.ServiceAccount)
		if err != nil {
			return err
		}
		t, key, err = i.draft(ctx, tx, r, rule.Account, rule.ServiceAccount, owner, nil)
		return err
	})
	if errors.Is(err, sallyport.NotFound) {
		return grantAnswer{}, notAccepted
	}
	if err != nil {
		return grantAnswer{}, err
	}
	t.Rule, t.RuleVersion = rule.ID, rule.Version
	answer, err := i.sign(t, key)
	if err != nil {
		return answer, err
	}
	answer.IssuedTokenType = typeAccessToken
	i.MarkRuleUsed(rule.Account, rule.ID, i.now())
	return answer, nil
}
