package feed_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestSnapshotAndChangesArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x, elsewhere := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c2")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account, sallyport.SystemAccount)
	eventually(t, "it is complete", r.Ready)
	if d := x.decide(r); !d.Allow {
		t.Errorf("not allowed: %s", d.Reason)
	}
	if got := r.Standing(elsewhere.account); got != replica.Absent {
		t.Errorf("an account of another cell is %s", got)
	}
	if d := elsewhere.decide(r); d.Allow || d.Kind != sallyport.Unauthenticated {
		t.Errorf("the key of another cell's account: %+v", d)
	}
	begun := time.Now()
	w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	eventually(t, "the revoked grant lets nobody in", func() bool { return !x.decide(r).Allow })
	t.Logf("revoked within %s", time.Since(begun))
	moved := w.tenant("f45a4", "c1")
	w.reached(r, moved.account)
}

func TestLargeAccountInParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	w.commit(x.account, func(tx *journal.Tx) error {
		for range 12000 {
			id := sallyport.NewID("sa_")
			if err := put(tx, object.KindPrincipal, id, object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1}); err != nil {
				return err
			}
		}
		return nil
	})
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
}

func TestDropAndReturn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	config := w.config(c.address, w.authorizer("c1"))
	config.Dir = t.TempDir()
	chmod(t, config.Dir)
	r, stop := w.follow(config)
	w.receipted(c, x.account, 1)
	eventually(t, "it is complete", r.Ready)
	ns := object.Namespace{Name: "orders", Cell: "c2", RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true}}
	done := w.commit(x.account, func(tx *journal.Tx) error { return put(tx, object.KindNamespace, x.nsID, ns) })
	eventually(t, "the account is dropped", func() bool { return r.Standing(x.account) == replica.Dropped })
	if d := x.decide(r); d.Allow || d.Kind != sallyport.Unauthenticated {
		t.Errorf("after the drop: %+v", d)
	}
	w.receipted(c, x.account, done.Head.Revision)
	if r.LeftWithout(x.account, sallyport.NamespaceID(x.nsID)) {
		t.Error("a namespace that moved to another cell counts as removed")
	}
	stop()
	check(t, r.Close())
	again := w.open(config)
	if got := again.Standing(x.account); got != replica.Dropped {
		t.Errorf("after a restart the dropped account is %s", got)
	}
	if again.LeftWithout(x.account, sallyport.NamespaceID(x.nsID)) {
		t.Error("after a restart a namespace that moved to another cell counts as removed")
	}
	w.run(again.Run)
	ns.Cell = "c1"
	w.commit(x.account, func(tx *journal.Tx) error { return put(tx, object.KindNamespace, x.nsID, ns) })
	w.reached(again, x.account)
	if d := x.decide(again); !d.Allow {
		t.Errorf("back in the cell: %s", d.Reason)
	}
}

// An account's last namespace takes the account out of the cell: authorizers
// know nevertheless that it was removed.
func TestLastNamespaceRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.receipted(c, x.account, 1)
	w.commit(x.account, func(tx *journal.Tx) error { return tx.Remove(context.Background(), object.KindNamespace, x.nsID) })
	eventually(t, "the account is dropped", func() bool { return r.Standing(x.account) == replica.Dropped })
	if !r.LeftWithout(x.account, sallyport.NamespaceID(x.nsID)) {
		t.Error("the removed namespace does not count as removed")
	}
}

// receipted waits until the receipt says that the change is in force everywhere.
func (w *world) receipted(c *copyOf, account sallyport.AccountID, revision int64) feed.Receipt {
	w.t.Helper()
	var receipt feed.Receipt
	eventually(w.t, "the receipt is complete", func() (ok bool) {
		var err error
		receipt, err = c.Receipt(context.Background(), account, revision)
		check(w.t, err)
		return receipt.Everywhere()
	})
	return receipt
}

// enforced waits until every live authorizer acknowledged.
func (w *world) enforced(c *copyOf, account sallyport.AccountID, revision int64) {
	w.t.Helper()
	eventually(w.t, "the change is enforced", func() bool {
		ok, err := c.Enforced(context.Background(), account, revision)
		check(w.t, err)
		return ok
	})
}

func TestWhoMayFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	good := w.authorizer("c1")
	tenant := w.authorizer("c1")
	w.setCaller(tenant, sallyport.Caller{Account: "f45a2", Access: sallyport.Access{Roles: sallyport.Roles(sallyport.RoleOwner), Cells: []string{"c1"}}})
	tests := []struct {
		name   string
		config replica.Config
		follow bool
	}{
		{"authorizer", w.config(c.address, good), true},
		{"without TLS", w.config(c.plaintext, good), false},
		{"unknown key", w.config(c.address, "sp_nobody"), false},
		{"without a cell", w.config(c.address, w.authorizer()), false},
		{"a tenant's key", w.config(c.address, tenant), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, stop := w.follow(test.config)
			defer stop()
			if test.follow {
				eventually(t, "it is complete", r.Ready)
				return
			}
			time.Sleep(300 * time.Millisecond)
			if r.Ready() || r.Standing(x.account) != replica.Absent {
				t.Error("it could follow")
			}
		})
	}
}

func TestEndedAuthorizerIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	token := w.authorizer("c1")
	r, _ := w.follow(w.config(c.address, token))
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready) // what never was has no age
	w.setCaller(token, sallyport.Caller{})
	w.commit(sallyport.SystemAccount, func(*journal.Tx) error { return nil })
	eventually(t, "the copy ages", func() bool { age, _ := r.Age(time.Now()); return age > 2*time.Second })
	held := r.Heads()[x.account]
	w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	time.Sleep(300 * time.Millisecond)
	if r.Heads()[x.account] != held {
		t.Error("an authorizer that has ended still gets changes")
	}
}

// TestDisabledAuthorizerIsCut: it gets nothing until it is enabled, and then what
// it missed, without being started again.
func TestDisabledAuthorizerIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	token := w.authorizer("c1")
	r, _ := w.follow(w.config(c.address, token))
	w.reached(r, x.account)
	w.mu.Lock()
	caller := w.callers["Bearer "+token.Reveal()]
	delete(w.callers, "Bearer "+token.Reveal()) // unauthenticated, as every credential of a disabled service account
	w.mu.Unlock()
	w.commit(sallyport.SystemAccount, func(*journal.Tx) error { return nil })
	eventually(t, "the stream is cut", func() bool { return c.Streams() == 0 })
	held := r.Heads()[x.account]
	w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	time.Sleep(300 * time.Millisecond)
	if r.Heads()[x.account] != held {
		t.Error("a disabled authorizer still gets changes")
	}
	w.setCaller(token, caller)
	w.reached(r, x.account)
}

// TestEndedAuthorizerIsCutWhileItReadsSlowly: the end does not wait for what is
// being sent.
func TestEndedAuthorizerIsCutWhileItReadsSlowly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	w.commit(x.account, func(tx *journal.Tx) error {
		for i := range 5000 {
			if err := grant(tx, sallyport.NewID("sa_"), fmt.Sprintf("ns_%d", i), "write"); err != nil {
				return err
			}
		}
		return nil
	})
	c := w.serve()
	token := w.authorizer("c1")
	stream := w.dialAs(c, token)
	check(t, stream.Send(hello(nil)))
	_, err := stream.Recv() // and no more: the service's next messages fill the buffers and then wait
	check(t, err)
	eventually(t, "the service follows", func() bool { return c.Streams() == 1 })
	time.Sleep(500 * time.Millisecond)
	w.setCaller(token, sallyport.Caller{})
	w.commit(sallyport.SystemAccount, func(*journal.Tx) error { return nil })
	begun := time.Now()
	eventually(t, "the stream is cut", func() bool { return c.Streams() == 0 })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the stream was cut after %s", took)
	}
}

func TestCellsChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c2")
	c := w.serve()
	token := w.authorizer("c1")
	r, _ := w.follow(w.config(c.address, token))
	w.reached(r, one.account)
	w.mu.Lock()
	caller := w.callers["Bearer "+token.Reveal()]
	w.mu.Unlock()
	caller.Access.Cells = []string{"c2"}
	w.setCaller(token, caller)
	w.commit(sallyport.SystemAccount, func(*journal.Tx) error { return nil })
	w.reached(r, two.account)
	eventually(t, "the other cell's account is dropped", func() bool { return r.Standing(one.account) == replica.Dropped })
	if list := r.Namespaces(); len(list) != 1 || list[0].Cell != "c2" {
		t.Errorf("namespaces %+v", list)
	}
}

// TestCommitBehindItsNeighbours holds one account's change open while others
// commit: it is found although it carries an older time than what was seen.
func TestCommitBehindItsNeighbours(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow, quick := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, slow.account, quick.account)
	// As journal.Commit does it, but the end comes long after the time was taken.
	tx, err := w.pool.Begin(t.Context())
	check(t, err)
	_, err = tx.Exec(t.Context(), `
		update heads
		set changed_at = clock_timestamp() - interval '10 minutes'
		where account_id = $1`, slow.account)
	check(t, err)
	for range 20 {
		w.commit(quick.account, func(tx *journal.Tx) error { return grant(tx, quick.principal, "ns_other", "read") })
		w.reached(r, quick.account)
	}
	check(t, tx.Commit(t.Context()))
	w.commit(slow.account, func(tx *journal.Tx) error { return revoke(tx, slow.principal, slow.nsID) })
	_, err = w.pool.Exec(t.Context(), `update heads set changed_at = changed_at - interval '10 minutes' where account_id = $1`, slow.account)
	check(t, err)
	w.reached(r, slow.account)
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	receipt, err := c.Receipt(t.Context(), x.account, 1)
	check(t, err)
	if len(receipt.Authorizers) != 0 || receipt.Everywhere() {
		t.Errorf("with no authorizer: %+v", receipt)
	}
	if ok, err := c.Enforced(t.Context(), x.account, 1); !ok || err != nil {
		t.Errorf("with no authorizer: enforced %t, %v", ok, err)
	}
	if _, err := c.Receipt(t.Context(), x.account, 99); sallyport.KindOf(err) != sallyport.NotFound {
		t.Errorf("of a change that is not there: %v", err)
	}
	config := w.config(c.address, w.authorizer("c1"))
	config.MaxStaleness = time.Hour
	one, stopOne := w.follow(config)
	two, _ := w.follow(w.config(c.address, w.authorizer("c1", "c9")))
	w.follow(w.config(c.address, w.authorizer("c2"))) // is not concerned
	w.reached(one, x.account)
	w.reached(two, x.account)
	eventually(t, "both acknowledged", func() bool { return len(w.receipted(c, x.account, 1).Authorizers) == 2 })
	done := w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	w.enforced(c, x.account, done.Head.Revision)
	receipt, err = c.Receipt(t.Context(), x.account, done.Head.Revision)
	check(t, err)
	if len(receipt.Authorizers) != 2 || !receipt.Everywhere() || receipt.Head != done.Head {
		t.Fatalf("got %+v", receipt)
	}
	for _, e := range receipt.Authorizers {
		if e.Took <= 0 || e.Took > 5*time.Second || e.EnforcedAt.Before(receipt.CommittedAt) {
			t.Errorf("enforced at %s, %s after the commit at %s", e.EnforcedAt, e.Took, receipt.CommittedAt)
		}
	}

	stopOne()
	missing := w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, x.nsID, "read") })
	w.reached(two, x.account)
	state := func() feed.Enforcement {
		receipt, err := c.Receipt(t.Context(), x.account, missing.Head.Revision)
		check(t, err)
		for _, e := range receipt.Authorizers {
			if e.Instance == one.Instance() {
				return e
			}
		}
		return feed.Enforcement{}
	}
	if got := state().State; got != feed.Missing {
		t.Errorf("just after it left: %q", got)
	}
	_, err = w.pool.Exec(t.Context(), `update feed_authorizers set lease_until = now() - interval '1 second' where instance = $1`, one.Instance())
	check(t, err)
	if e := state(); e.State != feed.Lapsed || time.Until(e.MayServeUntil) < 50*time.Minute || time.Until(e.MayServeUntil) > time.Hour+5*time.Second {
		t.Errorf("after its lease: %+v", e)
	}
	w.enforced(c, x.account, missing.Head.Revision) // lapsed ones are not waited for
	_, err = w.pool.Exec(t.Context(), `update feed_authorizers set fresh_at = now() - interval '2 hours' where instance = $1`, one.Instance())
	check(t, err)
	if e := state(); e.Instance != "" {
		t.Errorf("after it became too old to decide: %+v", e)
	}
}

// TestRestartAcknowledgesAndReplaces: a restarted authorizer acknowledges what
// it has, and the process that it took the folder over from is forgotten.
func TestRestartAcknowledgesAndReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	config := w.config(c.address, w.authorizer("c1"))
	config.Dir = t.TempDir()
	chmod(t, config.Dir)
	r, stop := w.follow(config)
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready)
	stop()
	check(t, r.Close())
	again, _ := w.follow(config)
	eventually(t, "the new process acknowledged", func() bool {
		receipt, err := c.Receipt(t.Context(), x.account, 1)
		check(t, err)
		return len(receipt.Authorizers) == 1 && receipt.Authorizers[0].Instance == again.Instance() && receipt.Everywhere()
	})
}

func TestInstanceNamesAreTheirOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tenant("f45a2", "c1")
	c := w.serve()
	config := w.config(c.address, w.authorizer("c1"))
	config.Instance = "mine"
	r, _ := w.follow(config)
	eventually(t, "it is complete", r.Ready)
	config.Token = w.authorizer("c1")
	thief, _ := w.follow(config)
	time.Sleep(300 * time.Millisecond)
	if thief.Ready() {
		t.Error("another authorizer took the name over")
	}
}

func TestServiceAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	config := w.config(c.address, w.authorizer("c1"))
	config.Dir = t.TempDir()
	chmod(t, config.Dir)
	r, stop := w.follow(config)
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready)
	c.stop()
	if d := x.decide(r); !d.Allow {
		t.Errorf("with the service gone: %s", d.Reason)
	}
	stop()
	check(t, r.Close())
	before, _ := r.Age(time.Now())
	again, stop := w.follow(config)
	if d := x.decide(again); !again.Ready() || !d.Allow {
		t.Errorf("after a restart with the service gone: %s", d.Reason)
	}
	if after, ok := again.Age(time.Now()); !ok || after < before-6*time.Second {
		t.Errorf("the restart made the copy fresher: %s old before, %s after", before, after)
	}
	stop()
	check(t, again.Close())
	config.MaxStaleness = time.Nanosecond
	if d := x.decide(w.open(config)); d.Allow || d.Kind != sallyport.Unavailable || !strings.Contains(d.Reason, "policy older than") {
		t.Errorf("past its staleness: %+v", d)
	}
}

// TestLeasesGoOn: an authorizer that stays keeps its lease, and its freshness
// moves on; what is old is deleted, its newest acknowledgement apart.
func TestLeasesGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	config := w.config(c.address, w.authorizer("c1"))
	r, _ := w.follow(config)
	w.reached(r, x.account)
	var lease, fresh time.Time
	read := func() (l, f time.Time) {
		check(t, w.pool.QueryRow(t.Context(), `select lease_until, fresh_at from feed_authorizers where instance = $1`, r.Instance()).Scan(&l, &f))
		return l, f
	}
	lease, fresh = read()
	eventually(t, "the lease is longer and the copy fresher", func() bool {
		l, f := read()
		return l.After(lease) && f.After(fresh.Add(time.Second))
	})
	for range 3 {
		w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, sallyport.NewID("ns_"), "read") })
		w.reached(r, x.account)
	}
	w.receipted(c, x.account, 4)
	_, err := w.pool.Exec(t.Context(), `update feed_acks set acked_at = acked_at - interval '2 days'`)
	check(t, err)
	check(t, feed.Prune(t.Context(), w.pool))
	var left int64
	check(t, w.pool.QueryRow(t.Context(), `select count(*) from feed_acks where account_id = $1`, x.account).Scan(&left))
	if left != 1 {
		t.Errorf("%d acknowledgements are left, want the newest", left)
	}
	w.receipted(c, x.account, 2)
	_, err = w.pool.Exec(t.Context(), `
		insert into feed_authorizers (instance, principal_id, cells, version, registered_at, previous, connected_at, lease_until, fresh_at, max_staleness_ms)
		values ('gone', 'sa_x', '{c1}', '', now() - interval '9 days', '{}', now() - interval '9 days', now() - interval '8 days', now() - interval '8 days', 1000)`)
	check(t, err)
	check(t, feed.Prune(t.Context(), w.pool))
	check(t, w.pool.QueryRow(t.Context(), `select count(*) from feed_authorizers`).Scan(&left))
	if left != 1 {
		t.Errorf("%d authorizers are left, want 1", left)
	}
}
