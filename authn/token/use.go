package token

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxUses  = 100_000 // different rules between two flushes; of more the last use is not kept
	useBatch = 1000
)

// uses collects last uses of rules in memory until they are flushed.
type uses struct {
	mu      sync.Mutex
	pending map[useKey]time.Time // to the minute
}

type useKey struct {
	account sallyport.AccountID
	rule    string
}

func newUses() uses { return uses{pending: map[useKey]time.Time{}} }

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
	key, minute := useKey{account, rule}, at.UTC().Truncate(time.Minute)
	u := &i.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	before, known := u.pending[key]
	if known && !minute.After(before) || !known && len(u.pending) >= maxUses {
		return
	}
	u.pending[key] = minute
}

func (i *Issuer) flushUses(ctx context.Context) {
	u := &i.uses
	u.mu.Lock()
	flushing := u.pending
	u.pending = map[useKey]time.Time{}
	u.mu.Unlock()
	if len(flushing) == 0 {
		return
	}
	err := writeUses(ctx, i.pool, flushing)
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		i.log.WarnContext(ctx, "keeping the last uses of federation rules", "error", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, at := range flushing { // they wait for the next flush, unless newer ones fill the place
		if len(u.pending) < maxUses && at.After(u.pending[key]) {
			u.pending[key] = at
		}
	}
}
