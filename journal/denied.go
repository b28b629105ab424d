package journal

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// denials counts refused attempts in memory until they are flushed. It is
// bounded: past maxDenials different ones in a flush, the rest share one row.
type denials struct {
	mu     sync.Mutex
	counts map[denialKey]int64
}

type denialKey struct {
	account sallyport.AccountID
	minute  time.Time
	caller  string
	kind    string
	reason  string
}

const (
	maxDenials      = 1000
	maxDenialReason = 300
	keepDenials     = 30 * 24 * time.Hour
)

// Denied records a refused attempt on the account, outside the chain. It never
// blocks and does not touch the database; Run writes it, coalesced by minute.
func (j *Journal) Denied(account sallyport.AccountID, caller sallyport.Caller, kind, reason string) {
	key := denialKey{account, j.now().UTC().Truncate(time.Minute), callerKey(caller), kind, denialReason(reason)}
	j.denied.mu.Lock()
	defer j.denied.mu.Unlock()
	if _, known := j.denied.counts[key]; !known && len(j.denied.counts) >= maxDenials {
		key.caller, key.kind, key.reason = "", "", "more than are kept one by one"
	}
	j.denied.counts[key]++
}

// denialReason is a reason as PostgreSQL keeps it: cut between characters, since
// one row that it refuses would take all tenants' with it.
func denialReason(reason string) string {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxDenialReason)], "")
	return strings.ReplaceAll(reason, "\x00", "")
}

func (j *Journal) flushDenials(ctx context.Context) {
	j.denied.mu.Lock()
	counts := j.denied.counts
	j.denied.counts = map[denialKey]int64{}
	j.denied.mu.Unlock()
	if len(counts) == 0 {
		return
	}
	if err := addDenials(ctx, j.pool, counts); err != nil && ctx.Err() == nil {
		j.log.WarnContext(ctx, "keeping denials", "error", err, "lost", len(counts))
	}
}

// trimDenials deletes those that are older than they are kept.
func (j *Journal) trimDenials(ctx context.Context) {
	if err := deleteDenialsBefore(ctx, j.pool, j.now().Add(-keepDenials)); err != nil && ctx.Err() == nil {
		j.log.WarnContext(ctx, "trimming denials", "error", err)
	}
}
