package replica

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// uses remembers which keys let calls through since the service was last told,
// and which certificates were presented, to the minute. The zero value is ready.
type uses struct {
	// seen has, at the place of a key's hash, the key and the minute that were
	// noted there last, mixed into one number: a call with a key that was used in
	// this minute already costs one atomic load. Keys that share a place are
	// noted more often than needed, and nothing else.
	seen [seenPlaces]atomic.Uint64

	mu      sync.Mutex
	pending map[useKey]time.Time
	certificates
}

type useKey struct {
	account sallyport.AccountID
	key     string
}

type use struct {
	useKey
	at time.Time
}

const (
	seenPlaces = 1 << 12
	maxUses    = 100_000 // that are not told yet; more are forgotten
)

// MarkUsed notes a decision for the owner's view of what is in use: the key that
// let a call through, or the certificate that was presented to a namespace that
// takes some, let in or not. It keeps a minute's first use and is cheap for all
// others. Other decisions are not noted.
func (r *Replica) MarkUsed(d Decision, now time.Time) {
	minute := now.Unix() / 60
	at := time.Unix(minute*60, 0).UTC()
	switch {
	case d.seen.by != nil:
		hash := d.seen.by.hash ^ maphash.String(r.seed, d.seen.namespace)
		if d.Allow {
			hash = ^hash
		}
		if !r.uses.known(hash, minute) {
			r.uses.noteCertificate(&d, at)
		}
	case d.Allow && d.KeyID != "":
		if !r.uses.known(maphash.String(r.seed, d.KeyID), minute) {
			r.uses.note(useKey{d.Account, d.KeyID}, at)
		}
	}
}

// known reports whether what has the hash was noted last at its place, in the
// same minute.
func (u *uses) known(hash uint64, minute int64) bool {
	place, mark := &u.seen[hash%seenPlaces], hash^uint64(minute)*0x9e3779b97f4a7c15
	if place.Load() == mark {
		return true
	}
	place.Store(mark)
	return false
}

func (u *uses) note(key useKey, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pending == nil {
		u.pending = map[useKey]time.Time{}
	}
	if _, known := u.pending[key]; known || len(u.pending) < maxUses {
		u.pending[key] = at
	}
}

// take gives what was noted since it was last called.
func (u *uses) take() []use {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]use, 0, len(u.pending))
	for key, at := range u.pending {
		list = append(list, use{key, at})
	}
	u.pending = nil
	return list
}
