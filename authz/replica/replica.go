// Package replica is the authorizer's copy of the policy: the accounts that
// its cell serves, followed over the feed, kept on disk, and decided on in
// memory.
//
// A decision reads immutable views through atomic pointers: it takes no lock,
// allocates nothing when it allows and never sees half of a change. When the
// service cannot be reached the copy goes on deciding until it is older than
// its Config allows, and answers Unavailable from then on.
package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
)

// Config of a Replica.
type Config struct {
	Address string            // host:port of the service; required by Run
	TLS     *tls.Config       // required by Run: the feed is never followed without TLS
	Token   credential.Secret // the authorizer's API key, an account-00000 one; required by Run
	// Dir keeps the copy over restarts. It is made with mode 0700 and belongs to
	// one process. Empty: nothing is kept.
	Dir string
	// MaxStaleness is how old the copy may be to decide on; past it the answer is
	// Unavailable. Zero: an hour.
	MaxStaleness time.Duration
	// MaxAdminStaleness is the same for methods that take PermissionAdmin. Zero:
	// a minute.
	MaxAdminStaleness time.Duration
	// NamespaceDomain is the domain under which each namespace has a name of its
	// own, <name>.<account>.<domain>: a connection to such a name is good for that
	// namespace only. Empty: server names mean nothing.
	NamespaceDomain string
	// Instance names this process in receipts. Empty: a random name.
	Instance string
	Version  string                // of the program, for the service's log
	Logger   *slog.Logger          // nil: slog.Default()
	Metrics  prometheus.Registerer // nil: none
}

// Replica is the copy. It is safe for concurrent use.
type Replica struct {
	config    Config
	log       *slog.Logger
	metrics   *metrics
	seed      maphash.Seed
	base      time.Time // what fresh and stuck count from; has a monotonic reading
	accounts  atomic.Pointer[table[*account]]
	cells     atomic.Pointer[[]string]
	ready     atomic.Bool
	uses      uses
	strangers presentedCache
	trusted   presentedCache // chains that somebody trusts
	tokens    tokens
	fresh     atomic.Int64 // when the ping that was answered last was sent: ns after base, or never

	mu        sync.Mutex // held by whoever changes the copy
	disk      *disk      // nil: none
	previous  []string   // the instances that used the disk copy before
	listeners sync.Map   // of chan struct{}
}

const never = math.MinInt64

// account is one account of the copy; its state is replaced as a whole.
type account struct {
	id    sallyport.AccountID
	state atomic.Pointer[state]
}

// state is what a decision on an account reads.
type state struct {
	held *view // what was received last; nil: nothing yet
	// beside are the newest views of other histories, oldest first, while the
	// service's history of the account is not a continuation of what was held: it
	// lost commits, or was restored to an older state. Until it begins a new epoch,
	// or proves that it has them, only what all views allow is allowed.
	beside  []*view
	dropped bool // held says that the account has no namespace in the cell any more
	// left are the ids of the namespaces that a dropped account had, anywhere, when
	// it left; nil: its state then was not received.
	left map[string]bool
	// lost: the views are empty and only their heads are known, since the disk copy
	// of the account cannot be used.
	lost bool
	// stuck: an update could not be applied, and what is held ages since stuckAt,
	// which is as Replica.fresh.
	stuck   bool
	stuckAt int64
}

// Batch is an account's objects: all of them (a snapshot), or those that
// changed after Follows (a delta).
type Batch struct {
	Account sallyport.AccountID
	Follows sallyport.Head
	Head    sallyport.Head
	Digest  object.Digest
	Objects []object.Object
}

// Open makes a Replica and loads the copy on disk, if there is one. A second
// process on the same folder gets a Conflict. Close ends it.
func Open(c Config) (*Replica, error) {
	if c.MaxStaleness == 0 {
		c.MaxStaleness = time.Hour
	}
	if c.MaxAdminStaleness == 0 {
		c.MaxAdminStaleness = time.Minute
	}
	if c.Instance == "" {
		c.Instance = sallyport.NewID("az_")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.NamespaceDomain = strings.ToLower(strings.Trim(c.NamespaceDomain, "."))
	r := &Replica{config: c, log: c.Logger, seed: maphash.MakeSeed(), base: time.Now()}
	empty := newTable[*account](r.seed)
	r.accounts.Store(&empty)
	r.cells.Store(&[]string{})
	r.strangers.init(limits{maxStrangers, maxStrangersSize})
	r.trusted.init(limits{maxTrusted, maxTrustedSize})
	r.tokens.init(r.seed)
	r.fresh.Store(never)
	var err error
	if r.metrics, err = newMetrics(r, c.Metrics); err != nil {
		return nil, err
	}
	if c.Dir != "" {
		if err := r.load(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Close gives the folder free for another process, when Run has ended.
// Decisions go on.
func (r *Replica) Close() error {
	r.mu.Lock()
	d := r.disk
	r.disk = nil
	r.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.close()
}

// Instance is the name of this process in receipts.
func (r *Replica) Instance() string { return r.config.Instance }

// Ready reports whether the copy has ever been complete: by the feed, or when
// it was written to the disk.
func (r *Replica) Ready() bool { return r.ready.Load() }

// Age is how old the copy may be: all that was committed before then is in it.
// ok is false if it was never complete.
func (r *Replica) Age(now time.Time) (age time.Duration, ok bool) {
	return r.age(now, &state{})
}

// find does not allocate.
func (r *Replica) find(id sallyport.AccountID) *account {
	t := r.accounts.Load()
	h := t.hash(string(id))
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value.id == id {
			return s.value
		}
	}
	return nil
}

// findOrAdd gives the account, adding it without any state. The caller holds r.mu.
func (r *Replica) findOrAdd(id sallyport.AccountID) *account {
	if a := r.find(id); a != nil {
		return a
	}
	a := &account{id: id}
	a.state.Store(&state{})
	t := edit(*r.accounts.Load())
	t.set(t.hash(string(id)), func(*account) bool { return false }, a)
	r.accounts.Store(&t.table)
	return a
}

// Load puts a snapshot into the copy, which is then complete and as fresh as
// if the service had just answered: for use without a feed.
func (r *Replica) Load(b Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, err := newView(b.Account, r.seed).with(b)
	if err != nil {
		return err
	}
	r.findOrAdd(b.Account).state.Store(&state{held: v})
	r.fresh.Store(r.sinceBase())
	r.ready.Store(true)
	r.changed()
	return nil
}

var errDigest = errors.New("the objects do not add up to the digest that came with them")

// with gives the view after the batch's objects.
func (v *view) with(b Batch) (*view, error) {
	d := v.edit()
	for _, o := range b.Objects {
		d.apply(o)
	}
	next := d.finish(b.Head)
	if next.digest != b.Digest {
		return nil, fmt.Errorf("account %s, revision %d: %w", b.Account, b.Head.Revision, errDigest)
	}
	return next, nil
}

// Changes gives a value after changes were applied (many may give one), until
// cancel is called.
func (r *Replica) Changes() (changes <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	r.listeners.Store(c, nil)
	return c, func() { r.listeners.Delete(c) }
}

func (r *Replica) changed() {
	r.listeners.Range(func(c, _ any) bool {
		select {
		case c.(chan struct{}) <- struct{}{}:
		default:
		}
		return true
	})
}

// Namespace is one that the copy holds.
type Namespace struct {
	ID            sallyport.NamespaceID
	FullName      string // <name>.<account>
	Account       sallyport.AccountID
	Cell          string
	RetentionDays int32
}

// Namespaces lists the namespaces of the authorizer's cells, of all cells if
// the service has not said which these are. Of an account whose history
// diverged it lists what all sides know.
func (r *Replica) Namespaces() []Namespace {
	cells := r.servedCells()
	var list []Namespace
	for a := range r.accounts.Load().all {
		list = a.appendNamespaces(list, cells)
	}
	return list
}

// NamespacesOf lists those of one account, as Namespaces does.
func (r *Replica) NamespacesOf(account sallyport.AccountID) []Namespace {
	a := r.find(account)
	if a == nil {
		return nil
	}
	return a.appendNamespaces(nil, r.servedCells())
}

func (r *Replica) servedCells() map[string]bool {
	cells := map[string]bool{}
	for _, c := range *r.cells.Load() {
		cells[c] = true
	}
	return cells
}

func (a *account) appendNamespaces(list []Namespace, cells map[string]bool) []Namespace {
	s := a.state.Load()
	if s.held == nil {
		return list
	}
	for ns := range s.held.nsByID.all {
		unknown := func(v *view) bool { return findNamespace(&v.nsByID, ns.id) == nil }
		if len(cells) > 0 && !cells[ns.object.Cell] || slices.ContainsFunc(s.beside, unknown) {
			continue
		}
		list = append(list, Namespace{sallyport.NamespaceID(ns.id), ns.fullName, a.id, ns.object.Cell, ns.object.RetentionDays})
	}
	return list
}

// HasNamespace reports whether the copy has the namespace, in whatever cell and
// on whichever side of a history that diverged.
func (r *Replica) HasNamespace(account sallyport.AccountID, id sallyport.NamespaceID) bool {
	a := r.find(account)
	if a == nil {
		return false
	}
	s := a.state.Load()
	has := func(v *view) bool { return findNamespace(&v.nsByID, string(id)) != nil }
	return s.held != nil && has(s.held) || slices.ContainsFunc(s.beside, has)
}

// Standing is how an account stands in the copy.
type Standing string

const (
	Absent   Standing = "absent"   // not in the copy: not of this cell, or not received yet
	Held     Standing = "held"     // what the copy says of it is all there is
	Dropped  Standing = "dropped"  // the service said that the cell has none of its namespaces any more
	Diverged Standing = "diverged" // several histories are held, of which one may be that it left the cell; do not act on any
	Stuck    Standing = "stuck"    // an update could not be applied; a fresh copy was asked for
)

// Standing says how the account stands. Only Held and Dropped are grounds to
// remove something that the copy does not list.
func (r *Replica) Standing(id sallyport.AccountID) Standing {
	a := r.find(id)
	if a == nil {
		return Absent
	}
	switch s := a.state.Load(); {
	case s.lost:
		return Absent
	case len(s.beside) > 0:
		return Diverged
	case s.stuck:
		return Stuck
	case s.dropped:
		return Dropped
	case s.held == nil:
		return Absent
	}
	return Held
}

// Heads gives the position of each account that is held.
func (r *Replica) Heads() map[sallyport.AccountID]sallyport.Head {
	heads := map[sallyport.AccountID]sallyport.Head{}
	for a := range r.accounts.Load().all {
		if s := a.state.Load(); s.held != nil && !s.dropped && !s.lost {
			heads[a.id] = s.held.head
		}
	}
	return heads
}

// LeftWithout reports whether the account left the cell and did not have the
// namespace any more then: it was removed, and did not just go elsewhere.
func (r *Replica) LeftWithout(id sallyport.AccountID, namespace sallyport.NamespaceID) bool {
	a := r.find(id)
	if a == nil {
		return false
	}
	s := a.state.Load()
	return s.dropped && len(s.beside) == 0 && s.left != nil && !s.left[string(namespace)]
}

// HeadOf gives the position of what was received last of the account, also when
// that is that it has left the cell; zero if nothing was received.
func (r *Replica) HeadOf(id sallyport.AccountID) sallyport.Head {
	if a := r.find(id); a != nil {
		if s := a.state.Load(); s.held != nil {
			return s.held.head
		}
	}
	return sallyport.Head{}
}

// Digest gives the digest of an account that is held.
func (r *Replica) Digest(id sallyport.AccountID) (digest object.Digest, held bool) {
	a := r.find(id)
	if a == nil {
		return digest, false
	}
	s := a.state.Load()
	if s.held == nil || s.dropped || s.lost {
		return digest, false
	}
	return s.held.digest, true
}

// Run follows the feed until the context ends, connecting again as often as
// needed. It answers nil when the context ended, and an error only for a
// Config with which it could never work.
func (r *Replica) Run(ctx context.Context) error {
	if r.config.Address == "" || r.config.TLS == nil || r.config.Token == "" {
		return errors.New("following the feed: Config needs Address, TLS and Token")
	}
	return r.follow(ctx)
}
