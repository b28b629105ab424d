// Package lastuse collects when things were last used, in memory, and hands
// that over now and then to be written: off every hot path, and once a minute
// for a thing that is used all the time.
package lastuse

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxPending = 100_000 // different things between two flushes; of more the last use is not kept
	batchSize  = 1000    // things in one write
)

// Write keeps last uses, of accounts[i]'s thing ids[i] at times[i] (UTC, to the
// minute), ordered by account and id. It moves them forward in time only: copies
// of the service write the same things.
type Write func(ctx context.Context, accounts, ids []string, times []time.Time) error

// Uses are last uses that are not written yet. It is safe for concurrent use.
type Uses struct {
	what  string
	log   *slog.Logger
	write Write

	mu      sync.Mutex
	pending map[key]time.Time // to the minute
}

type key struct {
	account sallyport.AccountID
	id      string
}

// New makes Uses of what, for the log ("API keys").
func New(what string, log *slog.Logger, write Write) *Uses {
	return &Uses{what: what, log: log, write: write, pending: map[key]time.Time{}}
}

// Mark notes that the account's thing was used. It never blocks and does no I/O.
func (u *Uses) Mark(account sallyport.AccountID, id string, at time.Time) {
	k, minute := key{account, id}, at.UTC().Truncate(time.Minute)
	u.mu.Lock()
	defer u.mu.Unlock()
	before, known := u.pending[k]
	if known && !minute.After(before) || !known && len(u.pending) >= maxPending {
		return
	}
	u.pending[k] = minute
}

// Flush writes what was noted. What cannot be written now waits for the next
// flush, unless newer uses fill its place.
func (u *Uses) Flush(ctx context.Context) {
	u.mu.Lock()
	flushing := u.pending
	u.pending = map[key]time.Time{}
	u.mu.Unlock()
	err := u.writeAll(ctx, flushing)
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		u.log.WarnContext(ctx, "keeping the last uses of "+u.what, "error", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, at := range flushing {
		if len(u.pending) < maxPending && at.After(u.pending[k]) {
			u.pending[k] = at
		}
	}
}

func (u *Uses) writeAll(ctx context.Context, flushing map[key]time.Time) error {
	keys := make([]key, 0, len(flushing))
	for k := range flushing {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.id, b.id)) })
	for batch := range slices.Chunk(keys, batchSize) {
		accounts, ids, times := make([]string, len(batch)), make([]string, len(batch)), make([]time.Time, len(batch))
		for i, k := range batch {
			accounts[i], ids[i], times[i] = string(k.account), k.id, flushing[k]
		}
		if err := u.write(ctx, accounts, ids, times); err != nil {
			return err
		}
	}
	return nil
}
