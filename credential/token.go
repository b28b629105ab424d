package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sallyport-iam/sallyport"
)

const (
	// MaxToken bounds a token of ours, in bytes.
	MaxToken = 8 << 10
	// MaxTokenLife is the longest that a token can be good for.
	MaxTokenLife = time.Hour

	tokenType       = "at+jwt"          // RFC 9068 §2.1
	tokenSkew       = 5 * time.Minute   // that the clock of who issued a token may be ahead
	tokenNamespaces = 100               // that a token may be narrowed to
	maxTokenText    = 128               // bytes of an id in it
	signatureHalf   = 32                // bytes of r, and of s (RFC 7518 §3.4)
	tokenAlgorithm  = "ES256"           // the only one: what the header says is compared, never followed
	thumbprintSize  = sha256.Size       // of cnf (RFC 8705 §3.1)
	headerMembers   = "alg, kid or typ" // of the header, and no others
)

// Token is what an access token of a service account says. It is good for as long
// as its signing key, its principal at this Epoch, its account, its API key or
// federation rule, and, where Certificate is set, only with that certificate:
// whoever accepts it asks for all of them, on each call.
type Token struct {
	ID          string // jti
	Account     sallyport.AccountID
	Principal   sallyport.Principal // a service account
	Epoch       int64               // of the principal when the token was made
	Key         string              // the API key that it was made with; "" by a rule
	Rule        string              // the federation rule that it was made by; "" with a key
	RuleVersion int64
	ReadOnly    bool
	Namespaces  []sallyport.NamespaceID // nil: not narrowed
	Audience    []string
	Issued      time.Time // whole seconds, UTC
	Expires     time.Time // whole seconds, UTC
	Certificate []byte    // SHA-256 of the client certificate that it is bound to (RFC 8705); nil: to none
	Scope       string    // as the answer to the request said
	Signer      string    // kid of the key that signed it
}

// TokenKey checks tokens of one signing key.
type TokenKey struct {
	Public    *ecdsa.PublicKey // P-256
	Issuer    string
	Audiences []string
}

// tokenClaims is the payload: RFC 9068's claims and ours.
type tokenClaims struct {
	Issuer      string              `json:"iss"`
	Subject     string              `json:"sub"`
	Audience    jwt.ClaimStrings    `json:"aud"`
	Expires     int64               `json:"exp"`
	Issued      int64               `json:"iat"`
	ID          string              `json:"jti"`
	Client      string              `json:"client_id"`
	Scope       string              `json:"scope,omitempty"`
	Account     sallyport.AccountID `json:"account"`
	Epoch       int64               `json:"epoch"`
	Key         string              `json:"key,omitempty"`
	Rule        string              `json:"rule,omitempty"`
	RuleVersion int64               `json:"rule_version,omitempty"`
	ReadOnly    bool                `json:"read_only,omitempty"`
	Namespaces  []string            `json:"namespaces,omitempty"`
	Bound       *confirmation       `json:"cnf,omitempty"`
}

type confirmation struct {
	Thumbprint string `json:"x5t#S256"`
}

// UnmarshalJSON is strict: a claim that this version does not know might be a
// restriction that was added later.
func (c *tokenClaims) UnmarshalJSON(data []byte) error {
	type plain tokenClaims
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode((*plain)(c)); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the claims")
	}
	return nil
}

// GetExpirationTime and the others are how the library reads the claims.
func (c *tokenClaims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Expires, 0)), nil
}

// GetIssuedAt is the time of issue.
func (c *tokenClaims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Issued, 0)), nil
}

// GetNotBefore is nil: there is no such claim in our tokens.
func (*tokenClaims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil }

// GetIssuer is the issuer.
func (c *tokenClaims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject is the service account.
func (c *tokenClaims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience is the audience.
func (c *tokenClaims) GetAudience() (jwt.ClaimStrings, error) { return c.Audience, nil }

// IsToken tells tokens from API keys by their form: three parts, the first of
// which is a JSON object in base64.
func IsToken(bearer string) bool {
	return strings.HasPrefix(bearer, "ey") && strings.Count(bearer, ".") == 2
}

// SignToken makes the token with the key whose id is kid: a P-256 key, wherever it
// is kept. Times are cut to seconds.
func SignToken(t Token, issuer, kid string, key crypto.Signer) (string, error) {
	claims := tokenClaims{
		Issuer: issuer, Subject: t.Principal.ID, Client: t.Principal.ID, Audience: t.Audience,
		Expires: t.Expires.Unix(), Issued: t.Issued.Unix(), ID: t.ID, Scope: t.Scope, Account: t.Account, Epoch: t.Epoch,
		Key: t.Key, Rule: t.Rule, RuleVersion: t.RuleVersion, ReadOnly: t.ReadOnly,
	}
	for _, n := range t.Namespaces {
		claims.Namespaces = append(claims.Namespaces, string(n))
	}
	if t.Certificate != nil {
		claims.Bound = &confirmation{base64.RawURLEncoding.EncodeToString(t.Certificate)}
	}
	if problem := claims.problem(); problem != "" {
		return "", errors.New("signing a token: " + problem)
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, &claims)
	unsigned.Header["typ"], unsigned.Header["kid"] = tokenType, kid
	text, err := unsigned.SigningString()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	digest := sha256.Sum256([]byte(text))
	der, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	var pair struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &pair); err != nil || len(rest) > 0 {
		return "", errors.New("signing a token: the key did not make an ECDSA signature")
	}
	if pair.R.BitLen() > 8*signatureHalf || pair.S.BitLen() > 8*signatureHalf {
		return "", errors.New("signing a token: the key is not of the curve P-256")
	}
	var signature [2 * signatureHalf]byte
	pair.R.FillBytes(signature[:signatureHalf])
	pair.S.FillBytes(signature[signatureHalf:])
	signed := text + "." + base64.RawURLEncoding.EncodeToString(signature[:])
	if len(signed) > MaxToken {
		return "", sallyport.Invalid.Errorf("the token would be longer than %d bytes; ask for fewer namespaces", MaxToken)
	}
	return signed, nil
}

// VerifyToken checks form, signature, issuer, audience and times of a token, and
// gives what it says: all that can be said without asking who and what it names.
// key finds signing keys by id. The error is Unauthenticated and holds nothing of
// the token.
func VerifyToken(raw string, key func(kid string) (TokenKey, bool), now time.Time) (Token, error) {
	if len(raw) > MaxToken {
		return Token{}, sallyport.Unauthenticated.Errorf("the token is longer than %d bytes; it is none that was issued here", MaxToken)
	}
	if strings.ContainsAny(raw, "\r\n") { // which the decoder would pass over
		return Token{}, sallyport.Unauthenticated.Errorf("the token is malformed; check that nothing but the token was pasted")
	}
	var (
		found TokenKey
		kid   string
	)
	claims := &tokenClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{tokenAlgorithm}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
		var problem string
		if kid, problem = headerProblem(t.Header); problem != "" {
			return nil, errors.New(problem)
		}
		k, ok := key(kid)
		if !ok || k.Public == nil || k.Public.Curve != elliptic.P256() {
			return nil, errUnknownKey
		}
		found = k
		return k.Public, nil
	})
	switch {
	case errors.Is(err, errUnknownKey):
		return Token{}, sallyport.Unauthenticated.Errorf("the key that signed the token is not, or no longer, one of this service's; get a new token")
	case err != nil: // what the library says has parts of the token in it
		return Token{}, sallyport.Unauthenticated.Errorf("the token is malformed, or its signature is not good; get a new one")
	}
	if err := claims.validate(found, now); err != nil {
		return Token{}, err
	}
	return claims.token(kid), nil
}

var errUnknownKey = errors.New("unknown key")

// headerProblem refuses whatever could ask for another key, another algorithm or
// something that is not understood: jwk, jku, x5c, x5u, crit, b64, zip.
func headerProblem(header map[string]any) (kid, problem string) {
	kid, _ = header["kid"].(string)
	switch {
	case header["typ"] != tokenType:
		return "", "it is not an access token"
	case kid == "" || len(kid) > maxTokenText:
		return "", "it names no key"
	case len(header) != 3:
		return "", "its header has more than " + headerMembers
	}
	return kid, ""
}

// validate checks the claims of a token whose signature is good.
func (c *tokenClaims) validate(k TokenKey, now time.Time) error {
	err := jwt.NewValidator(jwt.WithIssuer(k.Issuer), jwt.WithAudience(k.Audiences...), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(func() time.Time { return now })).Validate(c)
	switch {
	case errors.Is(err, jwt.ErrTokenInvalidIssuer), c.Issuer != k.Issuer:
		return sallyport.Unauthenticated.Errorf("the token is of another issuer; get one here")
	case errors.Is(err, jwt.ErrTokenInvalidAudience), slices.ContainsFunc(c.Audience, func(a string) bool { return !slices.Contains(k.Audiences, a) }):
		return sallyport.Unauthenticated.Errorf("the token is for another audience; get one for this service")
	case errors.Is(err, jwt.ErrTokenExpired):
		return sallyport.Unauthenticated.Errorf("the token expired at %s; get a new one", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	case err != nil:
		return sallyport.Unauthenticated.Errorf("the token is not one that is issued here; get a new one")
	case time.Unix(c.Issued, 0).After(now.Add(tokenSkew)):
		return sallyport.Unauthenticated.Errorf("the token was issued in the future; set the clocks")
	}
	if problem := c.problem(); problem != "" {
		return sallyport.Unauthenticated.Errorf("the token is not one that is issued here: %s; get a new one", problem)
	}
	return nil
}

// problem says what the claims lack of our profile, "" if nothing.
func (c *tokenClaims) problem() string {
	for _, id := range []string{c.ID, c.Subject, c.Key, c.Rule} {
		if len(id) > maxTokenText {
			return "an id in it is too long"
		}
	}
	switch {
	case c.ID == "" || c.Issuer == "" || len(c.Audience) == 0 || c.Expires <= c.Issued || c.Issued <= 0:
		return "a claim is missing"
	case c.Expires-c.Issued > int64(MaxTokenLife/time.Second):
		return "its life is too long"
	case !c.Account.Valid():
		return "it names no account"
	case !strings.HasPrefix(c.Subject, sallyport.ServiceAccountPrefix) || c.Client != c.Subject:
		return "it names no service account"
	case (c.Key == "") == (c.Rule == ""):
		return "it must have exactly one of an API key and a rule"
	case (c.Rule == "") != (c.RuleVersion == 0) || c.RuleVersion < 0:
		return "the rule's version is wrong"
	case len(c.Namespaces) > tokenNamespaces:
		return "it has too many namespaces"
	case slices.ContainsFunc(c.Namespaces, func(n string) bool { return !strings.HasPrefix(n, sallyport.NamespacePrefix) || len(n) > maxTokenText }):
		return "it has something that is not a namespace's id"
	}
	if c.Bound != nil {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(c.Bound.Thumbprint); err != nil || len(b) != thumbprintSize {
			return "the certificate that it is bound to is named wrongly"
		}
	}
	return ""
}

// token is what the claims say. They have no problem.
func (c *tokenClaims) token(kid string) Token {
	t := Token{
		ID: c.ID, Account: c.Account, Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: c.Subject}, Epoch: c.Epoch,
		Key: c.Key, Rule: c.Rule, RuleVersion: c.RuleVersion, ReadOnly: c.ReadOnly, Audience: c.Audience, Scope: c.Scope, Signer: kid,
		Issued: time.Unix(c.Issued, 0).UTC(), Expires: time.Unix(c.Expires, 0).UTC(),
	}
	for _, n := range c.Namespaces {
		t.Namespaces = append(t.Namespaces, sallyport.NamespaceID(n))
	}
	if c.Bound != nil {
		t.Certificate, _ = base64.RawURLEncoding.DecodeString(c.Bound.Thumbprint) // problem has checked it
	}
	return t
}
