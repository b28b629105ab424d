package feed_test

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/feed"
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

func (x *tenant) endKey(tx *journal.Tx) error {
	return tx.Remove(context.Background(), object.KindKey, x.keyID)
}

func namespaceNamed(tx *journal.Tx, id, name, cell string) error {
	return put(tx, object.KindNamespace, id, object.Namespace{Name: name, Cell: cell, RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true}})
}

// TestRestoredAfterDrop: an account that had left the cell is back by a restore.
// Nothing of it is allowed until a new epoch: its leaving was the last word.
func TestRestoredAfterDrop(t *testing.T) {
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
	w.backup()
	w.commit(x.account, x.endKey)
	w.commit(x.account, func(tx *journal.Tx) error { return tx.Remove(t.Context(), object.KindNamespace, x.nsID) })
	eventually(t, "it is dropped", func() bool { return r.Standing(x.account) == replica.Dropped })
	w.restore()
	eventually(t, "it is diverged", func() bool { return r.Standing(x.account) == replica.Diverged })
	if d := x.decide(r); d.Allow {
		t.Errorf("the restored backup brought back what was revoked: %+v", d)
	}
	stop()
	check(t, r.Close())
	r, _ = w.follow(config)
	done := w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, "ns_other", "read") })
	eventually(t, "the receipt says so", func() bool { return w.states(c, x.account, done.Head.Revision)[feed.Diverged] == 1 })
	if d := x.decide(r); d.Allow || r.Standing(x.account) != replica.Diverged {
		t.Errorf("after a restart: %s, %+v", r.Standing(x.account), d)
	}
	_, err := w.journal.NewEpoch(t.Context(), sallyport.OperatorCaller(x.account, "test"), x.account, "restored on purpose")
	check(t, err)
	w.reached(r, x.account)
	if d := x.decide(r); !d.Allow || r.Standing(x.account) != replica.Held {
		t.Errorf("after the new epoch: %s, %+v", r.Standing(x.account), d)
	}
	w.receipted(c, x.account, done.Head.Revision)
}

// states counts the authorizers of a receipt by their state.
func (w *world) states(c *copyOf, account sallyport.AccountID, revision int64) map[feed.State]int {
	w.t.Helper()
	receipt, err := c.Receipt(context.Background(), account, revision)
	check(w.t, err)
	states := map[feed.State]int{}
	for _, e := range receipt.Authorizers {
		states[e.State]++
	}
	return states
}

// TestRestoredToBeforeTheNamespace: the restored database has nothing of the
// account in the cell, and then a namespace again. What was revoked stays so,
// what was not works, and the account never counts as having left.
func TestRestoredToBeforeTheNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	good := *x
	good.principal, good.keyID = sallyport.NewID("sa_"), sallyport.NewID("")
	token, hash := credential.NewAPIKey(x.account, good.keyID)
	good.header = "Bearer " + token.Reveal()
	w.commit(x.account, func(tx *journal.Tx) error {
		for _, err := range []error{
			put(tx, object.KindPrincipal, good.principal, object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1}),
			put(tx, object.KindKey, good.keyID, object.Key{Owner: good.principal, Hash: hash, Status: object.Active, Epoch: 1, Expires: time.Now().Add(time.Hour).UnixMicro()}),
			namespaceNamed(tx, x.nsID, "orders", "elsewhere"),
		} {
			check(t, err)
		}
		for _, y := range []*tenant{x, &good} {
			check(t, put(tx, object.KindGrant, object.GrantID(y.principal, sallyport.ScopeAccount, string(x.account)),
				object.Grant{Subject: y.principal, Scope: sallyport.ScopeAccount, Target: string(x.account), Role: "admin"}))
		}
		return nil
	})
	x.namespace, good.namespace = "two.f45a2", "two.f45a2"
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	eventually(t, "it is complete", r.Ready)
	w.backup()
	w.commit(x.account, func(tx *journal.Tx) error { return namespaceNamed(tx, "ns_two", "two", "c1") })
	w.reached(r, x.account)
	if d := x.decide(r); !d.Allow {
		t.Fatal(d.Reason)
	}
	revoked := w.commit(x.account, x.endKey)
	w.receipted(c, x.account, revoked.Head.Revision)
	w.restore()
	eventually(t, "the restore is noticed", func() bool { return !good.decide(r).Allow })
	if got := r.Standing(x.account); got != replica.Diverged {
		t.Errorf("the account is %s", got)
	}
	w.commit(x.account, func(tx *journal.Tx) error { return namespaceNamed(tx, "ns_three", "two", "c1") })
	eventually(t, "the namespace is there again", func() bool { return good.decide(r).Allow })
	if d := x.decide(r); d.Allow {
		t.Errorf("the restored backup brought back what was revoked: %+v", d)
	}
}

// TestTwoRestores: what was revoked between two restores stays so, also when
// the second brings the history back that the first one took away.
func TestTwoRestores(t *testing.T) {
	for _, forward := range []bool{false, true} {
		t.Run(map[bool]string{false: "the same again", true: "the lost history is back"}[forward], func(t *testing.T) {
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
			w.backup()
			w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, "sa_unrelated", x.nsID, "read") })
			w.reached(r, x.account)
			ahead := r.Heads()[x.account]
			for _, table := range restored {
				_, err := w.pool.Exec(t.Context(), "create table ahead_"+table+" as table "+table)
				check(t, err)
			}
			w.restore()
			eventually(t, "it is diverged", func() bool { return r.Standing(x.account) == replica.Diverged })
			if d := x.decide(r); !d.Allow {
				t.Fatal(d.Reason) // by both
			}
			w.commit(x.account, x.endKey)
			eventually(t, "the key is ended", func() bool { return !x.decide(r).Allow })
			if forward {
				for _, table := range restored {
					_, err := w.pool.Exec(t.Context(), "drop table backup_"+table+"; alter table ahead_"+table+" rename to backup_"+table)
					check(t, err)
				}
			}
			between := r.Heads()[x.account]
			w.restore()
			eventually(t, "the second restore is noticed", func() bool {
				now := r.Heads()[x.account]
				return now != between && (!forward || now == ahead)
			})
			for range 2 {
				if d := x.decide(r); d.Allow || r.Standing(x.account) != replica.Diverged {
					t.Errorf("after the second restore: %s, %+v", r.Standing(x.account), d)
				}
				stop()
				check(t, r.Close())
				r, stop = w.follow(config)
				done := w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, "sa_unrelated", sallyport.NewID("ns_"), "read") })
				eventually(t, "a change arrives", func() bool { return r.Heads()[x.account] == done.Head })
			}
			_, err := w.journal.NewEpoch(t.Context(), sallyport.OperatorCaller(x.account, "test"), x.account, "restored on purpose")
			check(t, err)
			eventually(t, "the new epoch ends it", func() bool { return r.Standing(x.account) == replica.Held && x.decide(r).Allow })
			stop()
		})
	}
}

// TestDivergedReceipt: what is given while an authorizer holds another history
// is not enforced there before the new epoch, and its operation does not wait.
func TestDivergedReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready)
	w.backup()
	w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	w.reached(r, x.account)
	w.restore()
	eventually(t, "it is diverged", func() bool { return r.Standing(x.account) == replica.Diverged })
	done := w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, x.nsID, "admin") })
	w.enforced(c, x.account, done.Head.Revision)
	eventually(t, "the receipt says so", func() bool { return w.states(c, x.account, done.Head.Revision)[feed.Diverged] == 1 })
	receipt, err := c.Receipt(t.Context(), x.account, done.Head.Revision)
	check(t, err)
	if receipt.Everywhere() || x.decide(r).Allow {
		t.Errorf("got %+v", receipt)
	}
	_, err = w.journal.NewEpoch(t.Context(), sallyport.OperatorCaller(x.account, "test"), x.account, "restored on purpose")
	check(t, err)
	w.receipted(c, x.account, done.Head.Revision)
	if d := x.decide(r); !d.Allow {
		t.Errorf("in the new epoch: %s", d.Reason)
	}
}

// TestRestoredRegistrations: a database that does not know of an authorizer that
// follows learns of it again.
func TestRestoredRegistrations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, stop := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	w.receipted(c, x.account, 1)
	_, err := w.pool.Exec(t.Context(), "truncate feed_authorizers, feed_acks")
	check(t, err)
	w.receipted(c, x.account, 1)
	stop()
	done := w.commit(x.account, x.endKey)
	if states := w.states(c, x.account, done.Head.Revision); states[feed.Enforced] != 0 || len(states) != 1 {
		t.Errorf("got %v", states)
	}
}

// TestTakenOver: an instance whose disk copy another one took over has ended,
// unless it is heard of again: then that one has a copy of the copy.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	token := w.authorizer("c1")
	ended, stop := w.follow(w.config(c.address, token))
	w.reached(ended, x.account)
	live, stopLive := w.follow(w.config(c.address, token))
	w.reached(live, x.account)
	w.receipted(c, x.account, 1)
	stop()
	stream := w.dialAs(c, token)
	check(t, stream.Send(hello(func(h *feedv1.Hello) { h.PreviousInstances = []string{ended.Instance(), live.Instance()} })))
	instances := func() map[string]bool {
		receipt, err := c.Receipt(t.Context(), x.account, 1)
		check(t, err)
		got := map[string]bool{}
		for _, e := range receipt.Authorizers {
			got[e.Instance] = true
		}
		return got
	}
	eventually(t, "the ended one is gone and the live one is not", func() bool {
		got := instances()
		return !got[ended.Instance()] && got[live.Instance()] && len(got) == 2
	})
	stopLive()
	w.commit(x.account, x.endKey)
	if got := instances(); !got[live.Instance()] {
		t.Errorf("what may serve an old state is not in the receipt: %v", got)
	}
}
