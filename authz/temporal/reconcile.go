package temporal

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// listEvery is how often the server's namespaces are all read, to find what
	// somebody else changed. In between only differences cost a call.
	listEvery = 30 * time.Second
	// What failed is tried again after retryAfter, then after twice as long each
	// time, up to maxRetryAfter.
	retryAfter    = time.Second
	maxRetryAfter = time.Minute
	// gather is how long changes are collected before a pass.
	gather      = 50 * time.Millisecond
	callTimeout = 20 * time.Second
	deleteAgain = 100 * time.Millisecond
	// settleTime is how long the server's own caches may take a name for the
	// namespace that had it before.
	settleTime = 3 * time.Second
	// missTime is how long they may take a new name for one that does not exist,
	// which would end workers. Calls are told to try again in the meantime.
	missTime = 1200 * time.Millisecond
	// skew is how far the clocks of two servers may be apart.
	skew = time.Minute
	// warnEvery is how often a message that stays true is logged.
	warnEvery = 10 * time.Minute
	// defaultGrace is Config.NamespaceGrace.
	defaultGrace = time.Hour
	// renewals is how many namespaces are renewed in one pass.
	renewals = 100
)

// reconciler makes the server's namespaces what the replica says. It is the
// only one that touches those that it made, and touches no others. Several may
// work on one server: each step is harmless when another did it before, and
// one whose replica lags undoes nothing (see judge).
//
// Its read methods may be called on nil.
type reconciler struct {
	replica  *replica.Replica
	frontend workflowservice.WorkflowServiceClient
	operator operatorservice.OperatorServiceClient
	logger   *slog.Logger
	metrics  *metrics
	grace    time.Duration // before what is gone is deleted without proof
	known    atomic.Pointer[known]
	blocked  atomic.Pointer[map[string]obstacle] // by name
	listed   time.Time                           // when all was read last; zero: read now
	next     time.Time                           // when there is something to do even if nothing changes
	freed    map[string]registered               // by name: what was deleted here
	seen     map[sallyport.NamespaceID]bool      // what the replica has had since the process started
	gone     map[string]time.Time                // by Temporal's id: since when it is to be deleted
	failing  map[string]failure                  // by name
	warned   map[string]time.Time                // by message: when it was logged last
}

// obstacle is why calls do not reach a namespace.
type obstacle struct {
	kind   sallyport.Kind
	reason string // safe to show to whoever may call the namespace
}

// failure is of what was tried last with a name.
type failure struct {
	obstacle
	wait time.Duration
	next time.Time // when it is tried again
}

// known is what the server has. It is replaced, never changed.
type known struct {
	byName    map[string]registered
	byID      map[string]string // Temporal's id -> name
	endpoints map[string]string // Nexus endpoint -> namespace's name
}

func newReconciler(c Config, m *metrics) *reconciler {
	r := &reconciler{
		replica:  c.Replica,
		frontend: workflowservice.NewWorkflowServiceClient(c.InternalFrontend),
		operator: operatorservice.NewOperatorServiceClient(c.InternalFrontend),
		logger:   c.Logger,
		metrics:  m,
		grace:    c.NamespaceGrace,
		freed:    map[string]registered{},
		seen:     map[sallyport.NamespaceID]bool{},
		gone:     map[string]time.Time{},
		failing:  map[string]failure{},
		warned:   map[string]time.Time{},
	}
	if r.grace == 0 {
		r.grace = defaultGrace
	}
	r.blocked.Store(&map[string]obstacle{})
	// What was in the copy on the disk counts, too: the service may tell of a
	// removal before the first pass.
	for _, ns := range c.Replica.Namespaces() {
		r.seen[ns.ID] = true
	}
	return r
}

// obstacle says why calls to the name do not reach the namespace with the id:
// the server has none yet, or another one. Its kind is "" when they do.
func (r *reconciler) obstacle(name string, id sallyport.NamespaceID) obstacle {
	if r == nil {
		return obstacle{}
	}
	if k := r.known.Load(); k != nil {
		ns, ok := k.byName[name]
		if ok && ns.namespace == id && (ns.settles.IsZero() || time.Now().After(ns.settles)) {
			return obstacle{}
		}
	}
	if o, ok := (*r.blocked.Load())[name]; ok {
		return o
	}
	return obstacle{sallyport.Unavailable, beingSetUp}
}

// nameOf gives the name of the namespace with Temporal's id, "" if unknown.
func (r *reconciler) nameOf(id string) string {
	if r == nil {
		return ""
	}
	if k := r.known.Load(); k != nil {
		return k.byID[id]
	}
	return ""
}

// namespaceOfEndpoint gives the namespace that a Nexus endpoint leads to, ""
// if it is unknown or leads elsewhere.
func (r *reconciler) namespaceOfEndpoint(endpoint string) string {
	if r == nil {
		return ""
	}
	if k := r.known.Load(); k != nil {
		return k.endpoints[endpoint]
	}
	return ""
}

// run reconciles after every change and now and then, until ctx ends.
func (r *reconciler) run(ctx context.Context) {
	changes, stop := r.replica.Changes()
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			time.Sleep(gather)
		case <-timer.C:
		}
		wait := retryAfter
		if err := r.pass(ctx); err == nil {
			wait = max(time.Until(r.next), 0)
		} else if ctx.Err() == nil {
			r.logger.Warn("reconciling namespaces", "err", err)
			r.metrics.reconciled.WithLabelValues("failure").Inc()
		}
		timer.Reset(wait)
	}
}

// pass does what there is to do. What fails with one namespace holds up no
// other; it is an error only when the server cannot be read.
func (r *reconciler) pass(ctx context.Context) error {
	if time.Since(r.listed) >= listEvery {
		if err := r.list(ctx); err != nil {
			return err
		}
		r.listed = time.Now()
		maps.DeleteFunc(r.warned, func(_ string, at time.Time) bool { return time.Since(at) >= warnEvery })
	}
	r.next = r.listed.Add(listEvery)
	if !r.replica.Ready() {
		return nil
	}
	// In this order: a namespace is registered with a head at which it exists, so
	// that a server whose replica has not come as far leaves it alone; and it is
	// renewed with an epoch in which it still existed.
	earlier := r.replica.Heads()
	wanted := r.replica.Namespaces()
	heads := r.replica.Heads()
	blocked := map[string]obstacle{}
	conflicts := r.foreign(wanted, blocked)
	stale, kept := r.stale(time.Now(), blocked)
	r.provide(ctx, wanted, heads)
	for _, has := range stale {
		r.try(ctx, has.name, func() error { return r.delete(ctx, has) })
	}
	if len(stale) > 0 { // a name may be free now for its successor
		r.provide(ctx, wanted, heads)
	}
	r.renew(ctx, wanted, earlier)
	for name, f := range r.failing {
		if time.Since(f.next) > 2*maxRetryAfter { // nobody asks for it any more
			delete(r.failing, name)
			continue
		}
		if blocked[name] = f.obstacle; f.kind == sallyport.Conflict {
			conflicts++
		}
	}
	r.metrics.conflicts.Set(float64(conflicts + kept))
	r.blocked.Store(&blocked)
	return nil
}

// foreign finds the wanted names that somebody else took.
func (r *reconciler) foreign(wanted []replica.Namespace, blocked map[string]obstacle) (conflicts int) {
	byName := r.known.Load().byName
	for _, ns := range wanted {
		r.seen[ns.ID] = true
		if has, ok := byName[ns.FullName]; ok && has.namespace == "" {
			conflicts++
			blocked[ns.FullName] = obstacle{sallyport.Conflict, takenByHand}
			r.warn("a namespace exists under this name that Sallyport did not make, and its own is not served: delete or rename it", "namespace", ns.FullName)
		}
	}
	return conflicts
}

// provide registers what is wanted and not there, and corrects what is.
func (r *reconciler) provide(ctx context.Context, wanted []replica.Namespace, heads map[sallyport.AccountID]sallyport.Head) {
	for _, ns := range wanted {
		has, ok := r.known.Load().byName[ns.FullName]
		switch {
		case !ok:
			r.try(ctx, ns.FullName, func() error { return r.register(ctx, ns, heads[ns.Account]) })
		case has.namespace == ns.ID && has.retention != retention(ns):
			r.try(ctx, ns.FullName, func() error { return r.update(ctx, ns, sallyport.Head{}) })
		}
	}
}

// renew notes in the namespaces of accounts that are in a new epoch that they
// exist in it. What the epoch's history does not have keeps the old one, and is
// left to the operator.
func (r *reconciler) renew(ctx context.Context, wanted []replica.Namespace, heads map[sallyport.AccountID]sallyport.Head) {
	renewed := 0
	for _, ns := range wanted {
		has := r.known.Load().byName[ns.FullName]
		if has.namespace != ns.ID || has.head.Epoch >= heads[ns.Account].Epoch {
			continue
		}
		if renewed == renewals {
			r.wake(time.Now())
			return
		}
		if r.try(ctx, ns.FullName, func() error { return r.update(ctx, ns, heads[ns.Account]) }) {
			renewed++
		}
	}
}

// try does something with the namespace of the name, unless it failed a short
// time ago. It reports whether it was tried.
func (r *reconciler) try(ctx context.Context, name string, do func() error) bool {
	f := r.failing[name]
	if time.Now().Before(f.next) {
		r.wake(f.next)
		return false
	}
	err := do()
	if err == nil || ctx.Err() != nil {
		delete(r.failing, name)
		return true
	}
	f.wait = min(max(2*f.wait, retryAfter), maxRetryAfter)
	f.next = time.Now().Add(f.wait)
	f.obstacle = obstacle{sallyport.Unavailable, setUpFails}
	if status.Code(err) == codes.FailedPrecondition {
		f.obstacle = obstacle{sallyport.Conflict, setUpRefused}
	}
	r.failing[name] = f
	r.wake(f.next)
	r.logger.Warn("reconciling a namespace", "namespace", name, "err", err, "again", f.wait)
	r.metrics.reconciled.WithLabelValues("failure").Inc()
	return true
}

// wake sees to a pass at the time at the latest.
func (r *reconciler) wake(at time.Time) {
	if at.Before(r.next) {
		r.next = at
	}
}

// warn logs a message once in warnEvery, as long as it stays true.
func (r *reconciler) warn(message string, args ...any) {
	key := fmt.Sprint(message, args)
	if _, ok := r.warned[key]; !ok {
		r.warned[key] = time.Now()
		r.logger.Warn(message, args...)
	}
}

// change replaces known by a copy that f changed.
func (r *reconciler) change(f func(*known)) {
	k := *r.known.Load()
	k.byName, k.byID = maps.Clone(k.byName), maps.Clone(k.byID)
	f(&k)
	r.known.Store(&k)
}
