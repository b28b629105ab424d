package replica

import (
	"errors"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// errFollows: an update that is the next of another history than is held.
var errFollows = errors.New("the update does not follow what is held")

// outcome of an update that was not refused.
type outcome struct {
	diverged bool // the account has diverged by this snapshot; held and beside say how
	state    *state
}

// apply makes a whole update visible to decisions, or refuses it. The caller
// holds r.mu.
//
// A delta is applied to the view that it follows. A snapshot replaces what is
// held only if that cannot take anything back: nothing is held, the service
// proves that what is held is in its history (Follows), or an operator began a
// higher epoch. Any other state of the service is kept beside the one held, and
// only what both allow is allowed: a restored backup must not bring revoked
// access back.
func (r *Replica) apply(u frame.Part) (outcome, error) {
	a := r.findOrAdd(u.Account)
	old := a.state.Load()
	next, err := old.after(r, u)
	if err != nil {
		if !old.stuck {
			stuck := *old
			stuck.stuck, stuck.stuckAt = true, r.fresh.Load()
			a.state.Store(&stuck)
		}
		return outcome{}, err
	}
	a.state.Store(next)
	r.changed()
	return outcome{diverged: next.beside != nil && u.Kind == frame.Snapshot, state: next}, nil
}

func (s *state) after(r *Replica, u frame.Part) (*state, error) {
	if u.Kind == frame.Drop {
		return &state{dropped: true}, nil
	}
	b := Batch{u.Account, u.Follows, u.Head, u.Digest, u.Objects}
	if u.Kind == frame.Delta {
		return s.afterDelta(b)
	}
	v, err := newView(b.Account, r.seed).with(b)
	if err != nil {
		return nil, err
	}
	if s.held == nil || v.head.Epoch > s.held.head.Epoch || b.Follows == s.held.head || v.head == s.held.head {
		return &state{held: v}, nil
	}
	return &state{held: s.held, beside: v}, nil
}

func (s *state) afterDelta(b Batch) (*state, error) {
	switch {
	case s.held != nil && b.Follows == s.held.head:
		v, err := s.held.with(b)
		return &state{held: v}, err
	case s.beside != nil && b.Follows == s.beside.head:
		v, err := s.beside.with(b)
		if err == nil && v.head.Epoch > s.held.head.Epoch {
			return &state{held: v}, nil
		}
		return &state{held: s.held, beside: v}, err
	}
	return nil, errFollows
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

// held gives the position of an account that the service must go on from.
func (r *Replica) held(id sallyport.AccountID) sallyport.Head {
	if a := r.find(id); a != nil {
		if s := a.state.Load(); s.held != nil {
			return s.held.head
		}
	}
	return sallyport.Head{}
}
