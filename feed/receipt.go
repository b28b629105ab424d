package feed

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// State says how far an authorizer is with a change.
type State string

const (
	Enforced State = "enforced" // it said so
	Missing  State = "missing"  // it is there and has not said so yet
	Lapsed   State = "lapsed"   // it is not there, and may serve the old state for a while
	// Diverged: it holds another history of the account than the database, since
	// before a restore, and allows only what both allow: what the change took away
	// is not allowed any more, what it gave may not be allowed yet. A new epoch of
	// the account ends it.
	Diverged State = "diverged"
)

// Enforcement is what one process of an authorizer said of a change.
type Enforcement struct {
	Instance   string
	Authorizer string // the service account's id
	Cells      []string
	State      State
	EnforcedAt time.Time     // the database's clock; zero if it was not
	Took       time.Duration // from the commit to EnforcedAt
	// MayServeUntil is when a lapsed one that cannot reach the service stops
	// answering from the old state.
	MayServeUntil time.Time
}

// Receipt says where a change is in force.
type Receipt struct {
	Account     sallyport.AccountID
	Head        sallyport.Head // of the change
	CommittedAt time.Time
	// Authorizers are all that serve the account, or did and may still: none
	// when none is registered.
	Authorizers []Enforcement
}

// Everywhere reports whether all authorizers enforce the change; false when
// there is none.
func (r Receipt) Everywhere() bool {
	return len(r.Authorizers) > 0 && !slices.ContainsFunc(r.Authorizers, func(e Enforcement) bool { return e.State != Enforced })
}

// Receipt says where the account's change with the revision is in force. It
// answers NotFound when there is no such change.
func (s *Server) Receipt(ctx context.Context, account sallyport.AccountID, revision int64) (Receipt, error) {
	entries, err := s.journal.Entries(ctx, account, revision-1, 1)
	if err != nil {
		return Receipt{}, err
	}
	if len(entries) == 0 || entries[0].Head.Revision != revision {
		return Receipt{}, sallyport.NotFound.Errorf("there is no change with revision %d in the account", revision)
	}
	r := Receipt{Account: account, Head: entries[0].Head, CommittedAt: entries[0].At}
	cells, err := s.directory.CellsOf(ctx, []sallyport.AccountID{account})
	if err != nil {
		return r, err
	}
	standings, err := readStandings(ctx, s.pool, account, revision)
	if err != nil {
		return r, err
	}
	for _, st := range standings {
		if e, concerned := st.enforcement(account, cells[account], r.CommittedAt); concerned {
			r.Authorizers = append(r.Authorizers, e)
		}
	}
	return r, nil
}

// Enforced reports whether every authorizer that is there and serves the
// account enforces its history up to and with the revision, as far as it can: one
// that holds another history, too, is not waited for. With none there it is true.
func (s *Server) Enforced(ctx context.Context, account sallyport.AccountID, revision int64) (bool, error) {
	cells, err := s.directory.CellsOf(ctx, []sallyport.AccountID{account})
	if err != nil {
		return false, err
	}
	standings, err := readStandings(ctx, s.pool, account, revision)
	if err != nil {
		return false, err
	}
	for _, st := range standings {
		if e, concerned := st.enforcement(account, cells[account], time.Time{}); concerned && e.State == Missing {
			return false, nil
		}
	}
	return true, nil
}

// standing is an instance's row with what it said of an account.
type standing struct {
	instance      string
	principal     string
	cells         []string
	live          bool
	mayServeUntil time.Time
	now           time.Time  // the database's
	enforcedAt    *time.Time // of the revision that is asked for
	holds         *bool      // by its newest acknowledgement; nil: it never had the account
	diverged      bool       // by the same
}

// enforcement says how the instance stands; concerned is false if it neither
// serves the account nor may be serving an old state of it.
func (st standing) enforcement(account sallyport.AccountID, cells []string, committed time.Time) (e Enforcement, concerned bool) {
	e = Enforcement{Instance: st.instance, Authorizer: st.principal, Cells: st.cells}
	serves := account == sallyport.SystemAccount || shares(st.cells, cells) || st.holds != nil && *st.holds
	switch {
	case st.diverged && st.live && (serves || st.enforcedAt != nil):
		e.State = Diverged
	case st.enforcedAt != nil && !st.diverged:
		e.State, e.EnforcedAt = Enforced, st.enforcedAt.UTC()
		e.Took = max(e.EnforcedAt.Sub(committed), 0)
		return e, serves || st.live
	case !serves:
		return e, false
	case st.live:
		e.State = Missing
	default:
		e.State, e.MayServeUntil = Lapsed, st.mayServeUntil.UTC()
		return e, st.now.Before(st.mayServeUntil)
	}
	return e, true
}

// register notes an instance that begins to follow. It answers
// PermissionDenied when the name is another authorizer's.
func (s *Server) register(ctx context.Context, q pg.Querier, a authorizer) error {
	known, err := upsertAuthorizer(ctx, q, a, leaseFor)
	if err != nil {
		return err
	}
	if !known {
		return sallyport.PermissionDenied.Errorf("the instance name is another authorizer's; choose one at random")
	}
	return nil
}

// authorizer is a process of an authorizer that follows.
type authorizer struct {
	instance     string
	principal    string
	previous     []string // whose disk copy it took over
	cells        []string
	version      string
	maxStaleness time.Duration
}
