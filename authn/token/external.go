package token

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxExternal = 16 << 10 // bytes of another issuer's token
	maxHeader   = 4 << 10
	maxKeyID    = 512
	leeway      = time.Minute // that another issuer's clock may be off
)

// external is a token of another issuer, of which nothing is known to be true.
type external struct {
	algorithm string
	keyID     string // "" if it names none
	signed    string // what the signature is over
	signature []byte
	payload   string // base64url
	issuer    string
	claims    map[string]any
	tried     []triedKey
}

// triedKey is a key that a token's signature was checked with, and what came out.
type triedKey struct {
	key  any
	good bool
}

// maxTried are the keys that the signature of one token is checked with, by however
// many rules. An issuer that rotates may have two of one id.
const maxTried = 2

// parseExternal reads the form of a JWT (RFC 7519), within bounds. The error says
// what is wrong and holds nothing of the token.
func parseExternal(raw string) (external, error) {
	e, err := parseSigned(raw)
	if err != nil {
		return external{}, err
	}
	if e.claims, err = decodePart(e.payload); err != nil {
		return external{}, fmt.Errorf("its payload is malformed: %w", err)
	}
	if e.issuer, _ = e.claims["iss"].(string); e.issuer == "" {
		return external{}, errors.New("it names no issuer")
	}
	return e, nil
}

// parseSigned reads the form of a JWS (RFC 7515 §3.1) whose payload is a JWT's.
func parseSigned(raw string) (external, error) {
	if len(raw) > maxExternal {
		return external{}, fmt.Errorf("it is longer than %d bytes", maxExternal)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || slices.Contains(parts, "") || strings.ContainsAny(raw, "\r\n") { // which the decoder would pass over
		return external{}, errors.New("it is not a JWT of three parts")
	}
	if len(parts[0]) > maxHeader {
		return external{}, fmt.Errorf("its header is longer than %d bytes", maxHeader)
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return external{}, errors.New("its signature is not base64url")
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return external{}, fmt.Errorf("its header is malformed: %w", err)
	}
	e := external{payload: parts[1], signed: parts[0] + "." + parts[1], signature: signature}
	e.algorithm, _ = header["alg"].(string)
	e.keyID, _ = header["kid"].(string)
	typ, _ := header["typ"].(string)
	switch {
	case !slices.Contains(algorithms, e.algorithm): // never "none", never an HMAC over a public key
		return external{}, errors.New("it is not signed with RS256, ES256 or ES384")
	case len(e.keyID) > maxKeyID || header["kid"] != nil && e.keyID == "":
		return external{}, errors.New("its key id is not a text of at most 512 bytes")
	case header["crit"] != nil || header["b64"] != nil || header["enc"] != nil || header["zip"] != nil: // RFC 7515 §4.1.11
		return external{}, errors.New("its header asks for something that is not understood")
	case !slices.Contains([]string{"", "jwt", "jose", "at+jwt", "application/jwt", "application/at+jwt"}, strings.ToLower(typ)) || header["typ"] != nil && typ == "":
		return external{}, errors.New("its typ is that of another kind of token")
	}
	return e, nil
}

// signedBy reports whether one of the keys, which are for the token's algorithm,
// made the signature. Where the header says that keys are (jwk, jku, x5u) counts for
// nothing. Since strangers choose the token and tenants the keys, a token is checked
// with few keys, and gate bounds how many are checked at once.
func (e *external) signedBy(ctx context.Context, gate chan struct{}, keys []any) (bool, error) {
	method := jwt.GetSigningMethod(e.algorithm)
	for _, key := range keys {
		at := slices.IndexFunc(e.tried, func(t triedKey) bool { return sameKey(t.key, key) })
		if at < 0 {
			if len(e.tried) == maxTried {
				continue
			}
			select {
			case gate <- struct{}{}:
			case <-ctx.Done():
				return false, ctx.Err()
			}
			good := method.Verify(e.signed, e.signature, key) == nil
			<-gate
			at = len(e.tried)
			e.tried = append(e.tried, triedKey{key, good})
		}
		if e.tried[at].good {
			return true, nil
		}
	}
	return false, nil
}

func sameKey(a, b any) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func decodePart(part string) (map[string]any, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("it is not base64url")
	}
	return strangers().Object(data)
}

// trial is what a rule makes of a token.
type trial struct {
	RuleTest
	// verified: the issuer that the rule trusts did sign the token, for this account.
	verified bool
}

// try tests the token against the rule: issuer, signature, audience and times, and
// only then, whatever came out, the conditions. Keys are fetched if need be.
func (i *Issuer) try(ctx context.Context, rule Rule, e *external) (trial, error) {
	t := trial{RuleTest: RuleTest{Rule: rule}}
	problem := func(format string, args ...any) { t.Problems = append(t.Problems, fmt.Sprintf(format, args...)) }
	if !rule.Enabled {
		problem("the rule is disabled")
	}
	switch {
	case strings.TrimSuffix(rule.Issuer, "/") == strings.TrimSuffix(e.issuer, "/") && rule.Issuer != e.issuer:
		problem("the token's issuer and the rule's differ by a slash at the end; they must be the same")
	case rule.Issuer != e.issuer:
		problem("the token's issuer is %s, the rule's is %s", show(e.issuer), show(rule.Issuer))
	case !slices.Contains(rule.Algorithms, e.algorithm):
		problem("the token is signed with %s, the rule takes %s", e.algorithm, strings.Join(rule.Algorithms, ", "))
	default:
		signed, why, err := i.checkSignature(ctx, rule, e)
		if err != nil {
			return t, err
		}
		if !signed {
			problem("%s", why)
			break
		}
		for _, why := range i.claimProblems(rule, e) {
			problem("%s", why)
		}
		t.verified = audienceProblem(e, i.AccountAudience(rule.Account)) == ""
	}
	all := true
	for _, c := range rule.Conditions {
		result := c.test(e.claims)
		all = all && result.Matches
		t.Conditions = append(t.Conditions, result)
	}
	t.Matches = all && len(t.Conditions) > 0 && len(t.Problems) == 0
	return t, nil
}

// checkSignature checks the signature with the keys of the rule, or those of its issuer.
// why is for those who may know the rule.
func (i *Issuer) checkSignature(ctx context.Context, rule Rule, e *external) (ok bool, why string, err error) {
	var keys []any
	if rule.JWKS != nil {
		set, err := parseKeySet(rule.JWKS, maxFetchedKeys)
		if err != nil {
			return false, "", fmt.Errorf("reading the key set of federation rule %s: %w", rule.ID, err)
		}
		if keys = set.suitable(e.keyID, e.algorithm); keys == nil {
			return false, fmt.Sprintf("the rule's key set has no key for the token (key id %s, %s); upload the issuer's newest", show(e.keyID), e.algorithm), nil
		}
	} else if keys, err = i.external.suitable(ctx, trust{rule.Account, rule.Issuer}, e.keyID, e.algorithm); err != nil {
		var known *sallyport.Error
		if !errors.As(err, &known) {
			return false, "", err
		}
		return false, known.Msg, nil
	}
	signed, err := e.signedBy(ctx, i.checking, keys)
	if err != nil || signed {
		return signed, "", err
	}
	return false, fmt.Sprintf("the token's signature is not good by any of the %d keys that are tried at the most", maxTried), nil
}

// claimProblems checks the registered claims of a token whose signature is good.
func (i *Issuer) claimProblems(rule Rule, e *external) []string {
	var problems []string
	if why := audienceProblem(e, i.AccountAudience(rule.Account)); why != "" {
		problems = append(problems, why)
	}
	now := i.now()
	err := jwt.NewValidator(jwt.WithIssuer(rule.Issuer), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(func() time.Time { return now })).Validate(jwt.MapClaims(e.claims))
	issued, issuedErr := jwt.MapClaims(e.claims).GetIssuedAt()
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		problems = append(problems, "the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		problems = append(problems, "the token is not valid yet")
	case err != nil:
		problems = append(problems, "the token's exp, nbf or iat is missing or not a time")
	case issuedErr != nil || issued == nil:
		problems = append(problems, "the token does not say when it was issued (iat)")
	case rule.MaxAge > 0 && now.Sub(issued.Time) > rule.MaxAge+leeway:
		problems = append(problems, fmt.Sprintf("the token was issued at %s, longer ago than the rule takes", issued.UTC().Format(time.RFC3339)))
	}
	return problems
}

// audienceProblem wants exactly one audience: a token that is good elsewhere too
// could be passed on from there.
func audienceProblem(e *external, want string) string {
	switch aud := e.claims["aud"].(type) {
	case string:
		if aud == want {
			return ""
		}
	case []any:
		if len(aud) == 1 && aud[0] == want {
			return ""
		}
	}
	return fmt.Sprintf("the token's audience is %s; it must be %s and nothing else", show(e.claims["aud"]), show(want))
}

// reason says in one line why a rule that a token was verified for does not let it in.
func (t trial) reason() string {
	reasons := slices.Clone(t.Problems)
	for _, c := range t.Conditions {
		if !c.Matches {
			reasons = append(reasons, c.Condition.Claim+": "+c.Problem)
		}
	}
	return strings.Join(reasons, "; ")
}

// hint says the same to who presented the token, of whom nothing is known but that
// the issuer made the token for the account. What the rule expects is not told:
// with many issuers everybody can have such a token, and with some choose the claims.
func (t trial) hint() string {
	reasons := slices.Clone(t.Problems)
	for _, c := range t.Conditions {
		if !c.Matches {
			reasons = append(reasons, "its claim "+c.Condition.Claim+" is missing or not as the rule has it")
		}
	}
	told := strings.Join(reasons, "; ")
	if _, ok := t.Rule.sharedIssuer(); ok {
		return told
	}
	return "rule " + t.Rule.ID + ": " + told
}
