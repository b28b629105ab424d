package temporal

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// More than massDrop accounts and half of all that leave the cell at once are
// taken for a mistake: an authorizer that was given another cell, say.
const massDrop = 3

// evidence is what the replica says of an account of which it does not have a
// registered namespace.
type evidence struct {
	standing replica.Standing
	head     sallyport.Head // of the account; zero if unknown
	seen     bool           // the copy has had the namespace since the process started
	newer    bool           // the copy is newer than the namespace
	left     bool           // the account left the cell and did not have the namespace any more
}

// verdict is what is done with a namespace that the replica does not have.
type verdict string

const (
	keep        verdict = "keep"         // nothing says that it was removed
	askOperator verdict = "ask operator" // keep, until somebody removes it by hand
	deleteLater verdict = "delete later" // after the grace
	deleteNow   verdict = "delete now"
)

// judge says whether the control plane removed the namespace: never because the
// replica is empty, old or behind the server that registered it, and never
// because the service was restored to a time before the namespace.
func judge(has registered, e evidence) verdict {
	known := e.head != (sallyport.Head{})
	switch e.standing {
	case replica.Held, replica.Dropped:
	default:
		return keep
	}
	switch {
	case known && e.head.Epoch > has.head.Epoch:
		// It was not renewed: the history that the operator chose does not have it
		// (renew notes the new epoch in those that it has).
		return askOperator
	case known && before(e.head, has.head):
		return keep
	case e.standing == replica.Held && !known:
		return keep
	case e.seen && (e.standing == replica.Held || e.left):
		return deleteNow
	case e.standing == replica.Held, e.seen, e.newer:
		// A copy that has never had it may be of a restored history; an account's
		// leaving the cell takes all that it has.
		return deleteLater
	}
	return keep
}

func before(a, b sallyport.Head) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Revision < b.Revision
}

// stale are the namespaces to delete. Of those that are kept it notes what
// callers are told when the name is wanted, and counts the ones that wait for
// the operator.
func (r *reconciler) stale(now time.Time, blocked map[string]obstacle) (stale []registered, kept int) {
	var absent []registered
	accounts, dropped := map[sallyport.AccountID]bool{}, map[sallyport.AccountID]bool{}
	for _, has := range r.known.Load().byName {
		if has.namespace == "" {
			continue
		}
		accounts[has.account] = true
		if !r.replica.HasNamespace(has.account, has.namespace) {
			absent = append(absent, has)
		}
	}
	age, fresh := r.replica.Age(now)
	gone := map[string]time.Time{}
	for _, has := range absent {
		// The head is read after the absence was seen: what a new epoch does not have
		// must not be judged by the epoch before.
		e := evidence{
			standing: r.replica.Standing(has.account),
			head:     r.replica.HeadOf(has.account),
			seen:     r.seen[has.namespace],
			newer:    fresh && has.since.Add(skew).Before(now.Add(-age)),
			left:     r.replica.LeftWithout(has.account, has.namespace),
		}
		v := judge(has, e)
		if v != keep && e.standing == replica.Dropped && !e.left {
			dropped[has.account] = true
		}
		switch v {
		case askOperator:
			kept++
			blocked[has.name] = obstacle{sallyport.Conflict, takenByOld}
			r.warn("the account's new epoch does not have this namespace, which is kept: delete it with temporal operator namespace delete on the internal frontend, when it is not needed any more",
				"namespace", has.name, "id", has.temporal)
		case deleteLater:
			since, ok := r.gone[has.temporal]
			if !ok {
				since = now
				r.logger.Warn("a namespace is gone and will be deleted", "namespace", has.name, "account", e.standing, "at", now.Add(r.grace).UTC().Format(time.RFC3339))
			}
			gone[has.temporal] = since
			if due := since.Add(r.grace); due.After(now) {
				blocked[has.name] = obstacle{sallyport.Conflict, fmt.Sprintf(takenFor, due.UTC().Format(time.RFC3339))}
				r.wake(due)
				continue
			}
			stale = append(stale, has)
		case deleteNow:
			stale = append(stale, has)
		}
	}
	r.gone = gone
	if len(dropped) > massDrop && len(dropped) > len(accounts)/2 {
		r.warn("most accounts have left this cell at once: their namespaces are kept; check the authorizer's cell, or delete them with the server's own tools",
			"left", len(dropped), "of", len(accounts))
		stale = slices.DeleteFunc(stale, func(has registered) bool { return dropped[has.account] })
	}
	return stale, kept
}
