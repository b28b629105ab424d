package token

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	rulePrefix = "wif_"
	maxRules   = 10 // of a service account
)

// Condition is what one claim of an external token must be. A claim that is not
// there never meets one; of a list, one element must. Strings, numbers and
// booleans are different things: "1" is not 1.
type Condition struct {
	// Claim names the claim: its key, or keys of objects within each other, parted
	// by dots. Keys may have dots themselves, as "kubernetes.io" has; a name that
	// could be two claims of a token is none of them.
	Claim string
	// Equals are values of which the claim must be one: string, bool, or json.Number
	// of an integer. Integers of Go's types, and float64 without a fraction, are taken
	// as the latter.
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
	JWKS []byte
	// Discovery has an update take away the JWKS that the rule has, which nil alone
	// does not. Rules that are read do not have it.
	Discovery  bool
	Conditions []Condition
	// Algorithms that the tokens may be signed with, of RS256, ES256 and ES384; nil: all three.
	Algorithms []string
	// MaxAge is how long after its iat a token is taken, whole seconds; zero: until it expires.
	MaxAge  time.Duration
	Enabled bool
}

// Rule lets workloads that have tokens of another issuer be a service account.
// Times are UTC, microseconds.
type Rule struct {
	RuleParams
	Account   sallyport.AccountID
	ID        string   // "wif_…"
	Version   int64    // steps with each change of what the rule lets in; ends tokens of the one before
	Warnings  []string // what about the rule is not as safe as it could be
	CreatedBy string   // principal's id
	Created   time.Time
	Modified  time.Time // zero: never
	LastUsed  time.Time // to the minute, some seconds late; zero: never
	Revision  int64     // the account's revision at which it last changed
}

// resource is what permission on the rules of the service account is asked for.
func resource(account sallyport.AccountID, serviceAccount string, s directory.Standing) authz.Resource {
	return authz.Resource{Account: account, Project: s.Project, Namespace: s.Namespace, Owner: robot(serviceAccount)}
}

func robot(id string) sallyport.Principal {
	return sallyport.Principal{Kind: sallyport.ServiceAccount, ID: id}
}

// permittedOn reads the standing of a service account on whose rules the caller
// may do the action.
func (i *Issuer) permittedOn(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, serviceAccount string) (directory.Standing, error) {
	if err := authz.Check(caller, authz.IdentityGet, authz.Resource{Account: caller.Account}); err != nil {
		return directory.Standing{}, err
	}
	owner, err := i.standing(ctx, q, caller.Account, robot(serviceAccount))
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return directory.Standing{}, err
	}
	if denied := authz.Check(caller, a, resource(caller.Account, serviceAccount, owner)); denied != nil {
		return directory.Standing{}, denied
	}
	if err != nil {
		return directory.Standing{}, &sallyport.Error{Kind: sallyport.NotFound, Field: "service_account_id", Msg: "there is no such service account in this account"}
	}
	return owner, nil
}

// permitted reads a rule that the caller may do the action to.
func (i *Issuer) permitted(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, id string) (Rule, error) {
	if err := authz.Check(caller, authz.IdentityGet, authz.Resource{Account: caller.Account}); err != nil {
		return Rule{}, err
	}
	rule, err := findRule(ctx, q, caller.Account, id)
	if err != nil {
		return Rule{}, err
	}
	_, err = i.permittedOn(ctx, q, caller, a, rule.ServiceAccount)
	return rule, err
}

// Rule reads a federation rule of the caller's account. Who may read a service
// account's API keys may read its rules.
func (i *Issuer) Rule(ctx context.Context, caller sallyport.Caller, id string) (Rule, error) {
	return i.permitted(ctx, i.pool, caller, authz.FederationRuleGet, id)
}

// ListRules gives the rules of a service account, by ascending id; of none ("")
// those of all service accounts whose rules the caller may read.
func (i *Issuer) ListRules(ctx context.Context, caller sallyport.Caller, serviceAccount string, p sallyport.Page) (rules []Rule, next string, err error) {
	if serviceAccount != "" {
		if _, err := i.permittedOn(ctx, i.pool, caller, authz.FederationRuleList, serviceAccount); err != nil {
			return nil, "", err
		}
	} else if err := authz.Check(caller, authz.FederationRuleList, authz.Resource{Account: caller.Account, Owner: caller.Principal}); err != nil {
		return nil, "", err
	}
	cursor, err := i.pages.Cursor(caller.Account, "federation-rules/"+serviceAccount, p)
	if err != nil {
		return nil, "", err
	}
	for after := cursor.After; ; {
		rows, err := listRules(ctx, i.pool, caller.Account, serviceAccount, after, cursor.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, rule := range rows {
			owner, err := i.standing(ctx, i.pool, caller.Account, robot(rule.ServiceAccount))
			if err != nil && !errors.Is(err, sallyport.NotFound) {
				return nil, "", err
			}
			if authz.Check(caller, authz.FederationRuleGet, resource(caller.Account, rule.ServiceAccount, owner)) == nil {
				rules = append(rules, rule)
			}
		}
		if len(rules) >= cursor.Limit || len(rows) < cursor.Limit {
			rules, next = page.Cut(cursor, rules[:min(len(rules), cursor.Limit)], func(r Rule) string { return r.ID })
			return rules, next, nil
		}
		after = rows[len(rows)-1].ID
	}
}

// CreateRule makes a rule. Owners and admins may make them for any service
// account, the admin of a project or namespace for the service accounts bound to
// it; a service account not for itself, so that a token that got out cannot leave a
// way in behind. Conflict when it has ten.
func (i *Issuer) CreateRule(ctx context.Context, caller sallyport.Caller, op journal.Operation, p RuleParams) (Rule, journal.Committed, error) {
	var rule Rule
	done, err := i.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		if err := i.checkRule(&p); err != nil {
			return err
		}
		if tx.Account() == sallyport.SystemAccount {
			return sallyport.Invalid.Errorf("authorizers use API keys; there are no federation rules for them")
		}
		if _, err := i.permittedOn(ctx, tx, tx.Caller(), authz.FederationRuleCreate, p.ServiceAccount); err != nil {
			return err
		}
		n, err := countRules(ctx, tx, tx.Account(), p.ServiceAccount)
		if err != nil {
			return err
		}
		if n >= maxRules {
			return sallyport.Conflict.Errorf("the service account has %d federation rules, and may have %d; delete one that is not used any more", n, maxRules)
		}
		rule = Rule{RuleParams: p, Account: tx.Account(), ID: sallyport.NewID(rulePrefix), Version: 1,
			CreatedBy: tx.Caller().Principal.ID, Created: tx.Now(), Revision: tx.Revision()}
		rule.Warnings = p.warnings()
		tx.Target(rule.ID)
		if err := insertRule(ctx, tx, rule); err != nil {
			return err
		}
		return i.publishRule(ctx, tx, Rule{}, rule)
	})
	return i.asItWas(ctx, rule, done, err)
}

// asItWas answers a repetition with the rule as it is now, which may be gone.
func (i *Issuer) asItWas(ctx context.Context, rule Rule, done journal.Committed, err error) (Rule, journal.Committed, error) {
	if err != nil || !done.Replayed && done.Target == rule.ID {
		return rule, done, err
	}
	rule, err = findRule(ctx, i.pool, done.Account, done.Target)
	if errors.Is(err, sallyport.NotFound) {
		return Rule{Account: done.Account, ID: done.Target}, done, nil
	}
	return rule, done, err
}

// publishRule makes the rule known to authorizers, unless it is disabled, and
// records the change from before, which is zero for a new one.
func (i *Issuer) publishRule(ctx context.Context, tx *journal.Tx, before, after Rule) error {
	change := journal.Change{Type: "federation-rule", ID: after.ID, After: after.recorded()}
	if before.ID != "" {
		change.Before = before.recorded()
	}
	tx.Record(change)
	if !after.Enabled {
		return tx.Remove(ctx, object.KindFederationRule, after.ID)
	}
	return tx.Put(ctx, object.KindFederationRule, after.ID, after.object())
}

func (r Rule) object() []byte {
	return object.Encode(object.FederationRule{ServiceAccount: r.ServiceAccount, Version: r.Version})
}

// recordedRule is a rule as the audit record has it.
type recordedRule struct {
	ServiceAccount string            `json:"service_account"`
	Description    string            `json:"description,omitempty"`
	Issuer         string            `json:"issuer"`
	JWKS           bool              `json:"jwks,omitempty"` // uploaded
	Conditions     []storedCondition `json:"conditions"`
	Algorithms     []string          `json:"algorithms"`
	MaxAgeSeconds  int64             `json:"max_age_seconds,omitempty"`
	Enabled        bool              `json:"enabled"`
	Version        int64             `json:"version"`
}

func (r Rule) recorded() recordedRule {
	return recordedRule{ServiceAccount: r.ServiceAccount, Description: r.Description, Issuer: r.Issuer, JWKS: r.JWKS != nil,
		Conditions: storedConditions(r.Conditions), Algorithms: r.Algorithms, MaxAgeSeconds: int64(r.MaxAge / time.Second), Enabled: r.Enabled, Version: r.Version}
}

// UpdateRule changes all of a rule but its service account. revision is what the
// client has seen, zero for whatever it is now. Permission is as for CreateRule.
// Unless only its description changes, the tokens that were got by it end.
func (i *Issuer) UpdateRule(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, p RuleParams) (Rule, journal.Committed, error) {
	var rule Rule
	done, err := i.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		before, err := i.permitted(ctx, tx, tx.Caller(), authz.FederationRuleUpdate, id)
		if err != nil {
			return err
		}
		if err := before.stale(revision); err != nil {
			return err
		}
		if p.ServiceAccount == "" {
			p.ServiceAccount = before.ServiceAccount
		}
		if p.ServiceAccount != before.ServiceAccount {
			return sallyport.InvalidField("spec.service_account_id", "cannot be changed: create a rule for the other service account")
		}
		if before.JWKS != nil && p.JWKS == nil && !p.Discovery {
			return sallyport.InvalidField("spec.jwks", "is missing: give the issuer's keys again, or say that they are found by discovery from now on")
		}
		if err := i.checkRule(&p); err != nil {
			return err
		}
		rule = before
		rule.RuleParams, rule.Modified, rule.Revision, rule.Warnings = p, tx.Now(), tx.Revision(), p.warnings()
		sameRule := before.sameButText(p)
		if sameRule && before.Description == p.Description {
			return sallyport.Invalid.Errorf("nothing to change: it is already so")
		}
		if !sameRule {
			rule.Version++
		}
		tx.Target(id)
		if err := updateRule(ctx, tx, rule); err != nil {
			return err
		}
		return i.publishRule(ctx, tx, before, rule)
	})
	return i.asItWas(ctx, rule, done, err)
}

// stale answers Conflict when the client has seen another revision.
func (r Rule) stale(seen int64) error {
	if seen == 0 || seen == r.Revision {
		return nil
	}
	return &sallyport.Error{Kind: sallyport.Conflict, Field: "resource_version",
		Msg: "the federation rule has changed since it was read; read it again and repeat the change"}
}

// DeleteRule ends a rule for ever, and the tokens that were got by it. revision is
// as for UpdateRule.
func (i *Issuer) DeleteRule(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64) (journal.Committed, error) {
	return i.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		rule, err := i.permitted(ctx, tx, tx.Caller(), authz.FederationRuleDelete, id)
		if err != nil {
			return err
		}
		if err := rule.stale(revision); err != nil {
			return err
		}
		tx.Target(id)
		if err := deleteRule(ctx, tx, id); err != nil {
			return err
		}
		return ended(ctx, tx, rule)
	})
}

func ended(ctx context.Context, tx *journal.Tx, rule Rule) error {
	tx.Record(journal.Change{Type: "federation-rule", ID: rule.ID, Before: rule.recorded()})
	return tx.Remove(ctx, object.KindFederationRule, rule.ID)
}

// RemoveOwned ends all rules of a principal (its id) inside the change that ends
// the principal.
func (i *Issuer) RemoveOwned(ctx context.Context, tx *journal.Tx, owner string) error {
	rules, err := removeRulesOf(ctx, tx, owner)
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if err := ended(ctx, tx, rule); err != nil {
			return err
		}
	}
	return nil
}

// ruleObjects rebuilds the account's replicated rules, by id.
func ruleObjects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	rules, err := allRules(ctx, q, account)
	if err != nil {
		return nil, err
	}
	rules = slices.DeleteFunc(rules, func(r Rule) bool { return !r.Enabled })
	objects := make([]object.Object, 0, len(rules))
	for _, rule := range rules {
		objects = append(objects, object.Object{Kind: object.KindFederationRule, ID: rule.ID, Data: rule.object()})
	}
	return objects, nil
}
