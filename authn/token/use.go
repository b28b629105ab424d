package token

import (
	"time"

	"github.com/sallyport-iam/sallyport"
)

// MarkUsed notes the use of a token that was accepted here, by its id: the key or
// the rule that it was made with was used. It never blocks and does not touch the
// database.
func (i *Issuer) MarkUsed(account sallyport.AccountID, id string, at time.Time) {
	t, ok := i.verified.byID(id)
	switch {
	case !ok || t.Account != account:
	case t.Key != "":
		i.apiKeys.MarkUsed(account, t.Key, at)
	default:
		i.MarkRuleUsed(account, t.Rule, at)
	}
}

// MarkRuleUsed notes that a token of the rule was used. It never blocks and does
// not touch the database. Run writes it, to the minute, so that a busy rule's row
// is written once a minute.
func (i *Issuer) MarkRuleUsed(account sallyport.AccountID, rule string, at time.Time) {
	i.uses.Mark(account, rule, at)
}
