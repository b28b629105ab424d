package temporal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
)

const (
	// listEvery is how often the server's namespaces are all read, to find what
	// somebody else changed. In between only differences cost a call.
	listEvery  = 30 * time.Second
	retryAfter = time.Second
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
	// More than massDrop accounts and half of all that leave the cell at once are
	// taken for a mistake: an authorizer that was given another cell, say.
	massDrop = 3
)

// reconciler makes the server's namespaces what the replica says. It is the
// only one that touches those that it made, and touches no others. Several may
// work on one server: each step is harmless when another did it before, and
// one whose replica lags undoes nothing (see removed).
//
// Its read methods may be called on nil.
type reconciler struct {
	replica  *replica.Replica
	frontend workflowservice.WorkflowServiceClient
	operator operatorservice.OperatorServiceClient
	logger   *slog.Logger
	metrics  *metrics
	known    atomic.Pointer[known]
	listed   time.Time                      // when all was read last; zero: read now
	freed    map[string]registered          // by name: what was deleted here
	seen     map[sallyport.NamespaceID]bool // what the replica has had since the process started
	warned   map[string]bool                // messages since listed
}

// known is what the server has. It is replaced, never changed.
type known struct {
	byName    map[string]registered
	byID      map[string]string // Temporal's id -> name
	endpoints map[string]string // Nexus endpoint -> namespace's name
}

func newReconciler(r *replica.Replica, frontend grpc.ClientConnInterface, logger *slog.Logger, m *metrics) *reconciler {
	return &reconciler{
		replica:  r,
		frontend: workflowservice.NewWorkflowServiceClient(frontend),
		operator: operatorservice.NewOperatorServiceClient(frontend),
		logger:   logger,
		metrics:  m,
		freed:    map[string]registered{},
		seen:     map[sallyport.NamespaceID]bool{},
		warned:   map[string]bool{},
	}
}

// settled reports whether calls to the name reach the namespace with the id,
// and not an older one that had its name.
func (r *reconciler) settled(name string, id sallyport.NamespaceID) bool {
	if r == nil {
		return true
	}
	k := r.known.Load()
	if k == nil {
		return false
	}
	ns, ok := k.byName[name]
	return ok && ns.namespace == id && (ns.settles.IsZero() || time.Now().After(ns.settles))
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
		wait := listEvery
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			r.logger.Warn("reconciling namespaces", "err", err)
			r.metrics.reconciled.WithLabelValues("failure").Inc()
			r.listed, wait = time.Time{}, retryAfter
		}
		timer.Reset(wait)
	}
}

// pass does what there is to do. It goes on after an error with one namespace.
func (r *reconciler) pass(ctx context.Context) error {
	if time.Since(r.listed) >= listEvery {
		if err := r.list(ctx); err != nil {
			return err
		}
		r.listed = time.Now()
		clear(r.warned)
	}
	if !r.replica.Ready() {
		return nil
	}
	// In this order: a namespace is registered with a head at which it exists, so
	// that a server whose replica has not come as far leaves it alone.
	wanted := r.replica.Namespaces()
	heads := r.replica.Heads()
	problems, conflicts := []error{}, 0
	for _, ns := range wanted {
		r.seen[ns.ID] = true
		has, ok := r.known.Load().byName[ns.FullName]
		switch {
		case !ok:
			problems = append(problems, r.register(ctx, ns, heads[ns.Account]))
		case has.namespace == "":
			conflicts++
			r.warn("a namespace exists under this name that Sallyport did not make, and its own is not served: delete or rename it", "namespace", ns.FullName)
		case has.namespace == ns.ID && has.retention != retention(ns):
			problems = append(problems, r.update(ctx, ns))
		}
	}
	r.metrics.conflicts.Set(float64(conflicts))
	stale := r.stale(heads)
	for _, has := range stale {
		problems = append(problems, r.delete(ctx, has))
	}
	if len(stale) > 0 { // a name may be free now for its successor
		for _, ns := range wanted {
			if _, ok := r.known.Load().byName[ns.FullName]; !ok {
				problems = append(problems, r.register(ctx, ns, heads[ns.Account]))
			}
		}
	}
	return errors.Join(problems...)
}

// stale are the namespaces to delete.
func (r *reconciler) stale(heads map[sallyport.AccountID]sallyport.Head) []registered {
	var stale []registered
	accounts, dropped := map[sallyport.AccountID]bool{}, map[sallyport.AccountID]bool{}
	for _, has := range r.known.Load().byName {
		if has.namespace == "" {
			continue
		}
		accounts[has.account] = true
		if r.removed(has, heads) {
			stale = append(stale, has)
			if r.replica.Standing(has.account) == replica.Dropped {
				dropped[has.account] = true
			}
		}
	}
	if len(dropped) > massDrop && len(dropped) > len(accounts)/2 {
		r.warn("most accounts have left this cell at once: their namespaces are kept; check the authorizer's cell, or delete them with the server's own tools",
			"left", len(dropped), "of", len(accounts))
		stale = slices.DeleteFunc(stale, func(has registered) bool { return dropped[has.account] })
	}
	return stale
}

// warn logs a message once for each time that all is listed.
func (r *reconciler) warn(message string, args ...any) {
	key := fmt.Sprint(message, args)
	if !r.warned[key] {
		r.warned[key] = true
		r.logger.Warn(message, args...)
	}
}

// removed reports whether the control plane removed the namespace: never
// because the replica is empty, old or behind the server that registered it.
func (r *reconciler) removed(has registered, heads map[sallyport.AccountID]sallyport.Head) bool {
	if r.replica.HasNamespace(has.account, has.namespace) {
		return false
	}
	switch r.replica.Standing(has.account) {
	case replica.Held:
		head, ok := heads[has.account]
		return ok && !before(head, has.head)
	case replica.Dropped:
		// There is no head to compare: the copy has to have had the namespace, or to
		// be newer than it.
		if r.seen[has.namespace] {
			return true
		}
		age, ok := r.replica.Age(time.Now())
		return ok && has.since.Add(skew).Before(time.Now().Add(-age))
	}
	return false
}

func before(a, b sallyport.Head) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Revision < b.Revision
}

// change replaces known by a copy that f changed.
func (r *reconciler) change(f func(*known)) {
	k := *r.known.Load()
	k.byName, k.byID = maps.Clone(k.byName), maps.Clone(k.byID)
	f(&k)
	r.known.Store(&k)
}
