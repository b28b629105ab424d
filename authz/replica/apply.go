package replica

import (
	"errors"
	"hash/maphash"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// errFollows: an update that is the next of another history than is held.
var errFollows = errors.New("the update does not follow what is held")

// outcome of an update that was not refused.
type outcome struct {
	diverged bool // by this update there are several histories of the account, or still are
	state    *state
}

// apply makes a whole update visible to decisions, or refuses it. The caller
// holds r.mu.
//
// A delta is applied to the view that it follows. An update takes the place of
// those views that the service proves to be in its history, and of those that an
// operator ended by a higher epoch. What else is held stays beside it, and only
// what all allow is allowed: a restored backup must not bring revoked access
// back. A Drop is a view like others, of an account without anything: only a
// history that has the position of the Drop brings the account back.
func (r *Replica) apply(u frame.Part) (outcome, error) {
	a := r.findOrAdd(u.Account)
	old := a.state.Load()
	v, err := old.next(r, u)
	if err != nil {
		if !old.stuck {
			stuck := *old
			stuck.stuck, stuck.stuckAt = true, r.fresh.Load()
			a.state.Store(&stuck)
		}
		return outcome{}, err
	}
	next := old.with(v, u, r.seed)
	a.state.Store(next)
	r.changed()
	return outcome{diverged: len(next.beside) > 0 && u.Kind != frame.Delta, state: next}, nil
}

// next gives the view that the update makes.
func (s *state) next(r *Replica, u frame.Part) (*view, error) {
	if u.Kind == frame.Drop {
		v := newView(u.Account, r.seed)
		v.head = u.Head
		return v, nil
	}
	base := newView(u.Account, r.seed)
	if u.Kind == frame.Delta {
		if base = s.at(u.Follows); base == nil {
			return nil, errFollows
		}
	}
	return base.with(Batch{u.Account, u.Follows, u.Head, u.Digest, u.Objects})
}

// with gives the state after the update, which made the view.
func (s *state) with(v *view, u frame.Part, seed maphash.Seed) *state {
	next := &state{held: v, dropped: u.Kind == frame.Drop}
	if last := s.at(u.Head); next.dropped && s.dropped {
		next.left = s.left
	} else if next.dropped && last != nil {
		next.left = map[string]bool{}
		for ns := range last.nsByID.all {
			next.left[ns.id] = true
		}
	}
	for _, head := range u.Keeps(s.heads()) {
		kept := s.at(head)
		if kept == nil { // it stands for many
			kept = newView(u.Account, seed)
			kept.head = head
		}
		next.beside = append(next.beside, kept)
	}
	return next
}

// heads gives the positions of all views, of the one that was received last at
// the end.
func (s *state) heads() []sallyport.Head {
	if s.held == nil {
		return nil
	}
	var heads []sallyport.Head
	for _, v := range s.beside {
		heads = append(heads, v.head)
	}
	return append(heads, s.held.head)
}

// at gives the view with the head, nil if there is none.
func (s *state) at(head sallyport.Head) *view {
	if s.held != nil && s.held.head == head {
		return s.held
	}
	for _, v := range s.beside {
		if v.head == head {
			return v
		}
	}
	return nil
}

// answered notes that the ping sent at the time (ns after base) was answered:
// what the service had committed by then is in the copy.
func (r *Replica) answered(sent int64) {
	if sent > r.fresh.Load() {
		r.fresh.Store(sent)
	}
	if r.ready.CompareAndSwap(false, true) {
		r.changed()
	}
}

func (r *Replica) sinceBase() int64 { return int64(time.Since(r.base)) }
