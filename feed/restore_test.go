package feed_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/journal"
)

var restored = []string{"heads", "entries", "objects"}

// backup keeps the journal as it is now; restore brings it back.
func (w *world) backup() {
	w.t.Helper()
	for _, table := range restored {
		_, err := w.pool.Exec(context.Background(), "create table backup_"+table+" as table "+table)
		check(w.t, err)
	}
}

func (w *world) restore() {
	w.t.Helper()
	tx, err := w.pool.Begin(context.Background())
	check(w.t, err)
	defer tx.Rollback(context.Background())
	for _, table := range restored {
		_, err := tx.Exec(context.Background(), "truncate "+table)
		check(w.t, err)
		_, err = tx.Exec(context.Background(), "insert into "+table+" table backup_"+table)
		check(w.t, err)
	}
	check(w.t, tx.Commit(context.Background()))
}

// TestRestoredBackupUnrevokesNothing: after the database went back to an older
// state only what both histories allow is allowed, over restarts of the
// authorizer too, until the operator begins a new epoch.
func TestRestoredBackupUnrevokesNothing(t *testing.T) {
	for _, offline := range []bool{false, true} {
		name := map[bool]string{false: "under a running authorizer", true: "while it was away"}[offline]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			x := w.tenant("f45a2", "c1")
			other := sallyport.NewID("ns_")
			w.commit(x.account, func(tx *journal.Tx) error {
				check(t, grant(tx, x.principal, other, "write"))
				return put(tx, object.KindNamespace, other, object.Namespace{Name: "other", Cell: "c1", Auth: object.NamespaceAuth{APIKey: true}})
			})
			onOther := *x
			onOther.namespace = "other." + string(x.account)
			c := w.serve()
			config := w.config(c.address, w.authorizer("c1"))
			config.Dir = t.TempDir()
			chmod(t, config.Dir)
			r, stop := w.follow(config)
			w.reached(r, x.account)
			w.backup()
			w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
			w.reached(r, x.account)
			eventually(t, "it is complete", r.Ready)
			if offline {
				stop()
				check(t, r.Close())
			}
			w.restore()
			// The restored history goes another way, with as many revisions.
			for _, ns := range []string{"ns_a", "ns_b", "ns_c"} {
				w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, ns, "read") })
			}
			w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, other) })
			if offline {
				r, stop = w.follow(config)
			}
			diverged := func(r *replica.Replica) {
				t.Helper()
				if d := x.decide(r); d.Allow {
					t.Errorf("the restored backup brought back what was revoked: %+v", d)
				}
				if d := onOther.decide(r); d.Allow {
					t.Errorf("what was revoked after the restore is allowed: %+v", d)
				}
				if got := r.Standing(x.account); got != replica.Diverged {
					t.Errorf("the account is %s", got)
				}
			}
			eventually(t, "the revocation after the restore arrives", func() bool { return !onOther.decide(r).Allow })
			diverged(r)
			stop()
			check(t, r.Close())
			r = w.open(config)
			diverged(r) // from the disk alone
			stop = w.run(r.Run)
			time.Sleep(300 * time.Millisecond)
			diverged(r)
			_, err := w.journal.NewEpoch(t.Context(), sallyport.OperatorCaller(x.account, "test"), x.account, "restored on purpose")
			check(t, err)
			w.reached(r, x.account)
			if got := r.Standing(x.account); got != replica.Held {
				t.Errorf("after the new epoch the account is %s", got)
			}
			if d := x.decide(r); !d.Allow {
				t.Errorf("after the new epoch the restored grant is not in force: %s", d.Reason)
			}
			if d := onOther.decide(r); d.Allow {
				t.Errorf("after the new epoch: %+v", d)
			}
			stop()
		})
	}
}

// TestLostCommit: a fail-over that lost the newest commits is a restore, too;
// when the lost history turns up again the divergence ends by itself.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	w.backup()
	lost := w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	w.receipted(c, x.account, lost.Head.Revision)
	for _, table := range restored {
		_, err := w.pool.Exec(t.Context(), "create table ahead_"+table+" as table "+table)
		check(t, err)
	}
	w.restore()
	eventually(t, "the divergence is noticed", func() bool { return r.Standing(x.account) == replica.Diverged })
	if d := x.decide(r); d.Allow {
		t.Errorf("the lost commit brought back what was revoked: %+v", d)
	}
	for _, table := range restored {
		_, err := w.pool.Exec(t.Context(), "drop table backup_"+table+"; alter table ahead_"+table+" rename to backup_"+table)
		check(t, err)
	}
	w.restore()
	w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, "ns_other", "read") })
	w.reached(r, x.account)
	eventually(t, "the divergence ended", func() bool { return r.Standing(x.account) == replica.Held })
}

// TestAcknowledgementsAreOfOneHistory: what was acknowledged of a commit that
// was lost says nothing of the one that took its revision.
func TestAcknowledgementsAreOfOneHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, stop := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	w.receipted(c, x.account, 1)
	w.backup()
	lost := w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, "ns_other", "read") })
	w.receipted(c, x.account, lost.Head.Revision)
	stop()
	w.restore()
	done := w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	if done.Head.Revision != lost.Head.Revision {
		t.Fatalf("revision %d, want %d", done.Head.Revision, lost.Head.Revision)
	}
	receipt, err := c.Receipt(t.Context(), x.account, done.Head.Revision)
	check(t, err)
	if len(receipt.Authorizers) != 1 || receipt.Everywhere() {
		t.Errorf("an acknowledgement of the lost commit counts for another: %+v", receipt)
	}
}
