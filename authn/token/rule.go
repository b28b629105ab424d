package token

import (
	"context"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/journal"
)

// Condition is what one claim of an external token must be. A claim that is not
// there never meets one; of a list, one element must. Strings, numbers and
// booleans are different things: "1" is not 1.
type Condition struct {
	// Claim names the claim: its key, or keys of objects within each other, parted
	// by dots. Keys may have dots themselves, as "kubernetes.io" has; a name that
	// could be two claims of a token is none of them.
	Claim string
	// Equals are values of which the claim must be one: string, bool, json.Number, or
	// any of Go's numbers.
	Equals []any
	// Prefixes are what a string may begin with instead.
	Prefixes []string
}

// RuleParams is what a rule is made of.
type RuleParams struct {
	ServiceAccount string // its id; of an update "" or what it is
	Description    string // up to 1024 characters
	// Issuer is the iss of the tokens, exactly. Without JWKS it is a URL whose keys
	// are found by OpenID Connect Discovery.
	Issuer string
	// JWKS is the issuer's JSON Web Key Set, of public keys, where it cannot be
	// fetched; nil: discovery.
	JWKS       []byte
	Conditions []Condition
	// Algorithms that the tokens may be signed with, of RS256, ES256 and ES384; nil: all three.
	Algorithms []string
	// MaxAge is how long after its iat a token is taken; zero: until it expires.
	MaxAge  time.Duration
	Enabled bool
}

// Rule lets workloads that have tokens of another issuer be a service account.
// Times are UTC, microseconds.
type Rule struct {
	RuleParams
	Account   sallyport.AccountID
	ID        string // "wif_…"
	Version   int64  // steps with each change of what the rule lets in; ends tokens of the one before
	Warnings  []string
	CreatedBy string // principal's id
	Created   time.Time
	Modified  time.Time // zero: never
	LastUsed  time.Time // to the minute, some seconds late; zero: never
	Revision  int64     // the account's revision at which it last changed
}

// TestResult says what each rule of a service account makes of a token.
type TestResult struct {
	// Problem is why it is no token at all, "" if it is one.
	Problem string
	// Claims are those of the token as it was given, as JSON, with what identifies this one
	// token left out and long texts cut. They are as true as the rules say.
	Claims   []byte
	Audience string // that the token must have
	Rules    []RuleTest
}

// RuleTest is what one rule makes of a token.
type RuleTest struct {
	Rule       Rule
	Matches    bool
	Problems   []string // apart from conditions; empty if none
	Conditions []ConditionTest
}

// ConditionTest is what one condition makes of a token's claim.
type ConditionTest struct {
	Condition Condition
	Matches   bool
	Received  string // the claim as JSON, cut; "" if it is not there
	Problem   string // "" if it matches
}

// KeyState is where a signing key stands.
type KeyState string

const (
	KeyNext     KeyState = "next"     // published, not used yet
	KeyActive   KeyState = "active"   // signs
	KeyRetiring KeyState = "retiring" // published until the last token that it signed has expired
	KeyRevoked  KeyState = "revoked"  // what it signed is dead
)

// SigningKey is a key that signs tokens. Times are UTC, microseconds.
type SigningKey struct {
	ID        string // kid: the RFC 7638 thumbprint
	State     KeyState
	Issuer    string
	Audiences []string
	Created   time.Time
	Activated time.Time // zero: not yet
	Retired   time.Time // zero: not yet
	Revoked   time.Time // zero: not
	Problem   string    // why it cannot sign although it should; "": it can
}

var errSkeleton = sallyport.Unavailable.Errorf("not here yet")

// CreateRule makes a rule.
func (i *Issuer) CreateRule(context.Context, sallyport.Caller, journal.Operation, RuleParams) (Rule, journal.Committed, error) {
	return Rule{}, journal.Committed{}, errSkeleton
}

// UpdateRule changes a rule.
func (i *Issuer) UpdateRule(context.Context, sallyport.Caller, journal.Operation, string, int64, RuleParams) (Rule, journal.Committed, error) {
	return Rule{}, journal.Committed{}, errSkeleton
}

// DeleteRule ends a rule.
func (i *Issuer) DeleteRule(context.Context, sallyport.Caller, journal.Operation, string, int64) (journal.Committed, error) {
	return journal.Committed{}, errSkeleton
}

// Rule reads a rule.
func (i *Issuer) Rule(context.Context, sallyport.Caller, string) (Rule, error) {
	return Rule{}, errSkeleton
}

// ListRules lists the rules of a service account.
func (i *Issuer) ListRules(context.Context, sallyport.Caller, string, sallyport.Page) ([]Rule, string, error) {
	return nil, "", errSkeleton
}

// TestRules says what the rules make of a token.
func (i *Issuer) TestRules(context.Context, sallyport.Caller, string, string) (TestResult, error) {
	return TestResult{}, errSkeleton
}
