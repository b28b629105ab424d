package apikeys_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

// TestMadeInADay: a key that rotates itself on and on, and its owner with it,
// comes to an end that passes with the day.
func TestMadeInADay(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, user := t.Context(), a.User(t, role(sallyport.RoleRead))
	key := a.Key(t, user, sallyport.Limits{ReadOnly: true})
	first, made := key.Key.ID, 1
	for ; made < 100; made++ {
		next, _, err := a.Keys.Rotate(ctx, a.With(t, key), op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{})
		if err != nil {
			wantKind(t, "rotating on and on", err, sallyport.Exhausted, "within 24 hours")
			break
		}
		key = next
	}
	if made != 50 {
		t.Errorf("%d keys were made, want 50", made)
	}
	_, _, err := a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), params(a, user))
	wantKind(t, "making one beside", err, sallyport.Exhausted, "within 24 hours")
	if _, err := a.Keys.Delete(ctx, a.Operator, op("DeleteApiKey"), first, 0); err != nil {
		t.Fatal(err)
	}
	if key, _, err = a.Keys.Rotate(ctx, a.With(t, key), op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{}); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
	a.Advance(24*time.Hour + time.Second)
	if _, _, err = a.Keys.Rotate(ctx, a.With(t, key), op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{}); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// TestReap ends keys in every way, and lets several copies of the service reap.
func TestReap(t *testing.T) {
	t.Parallel()
	w := authntest.NewOn(t, pgtest.Clone(t))
	a, b := w.Tenant(t), w.Tenant(t)
	ctx, sa := t.Context(), robot(t, a)
	keyOf := func(a *authntest.Tenant, owner sallyport.Principal, life time.Duration) apikeys.Key {
		t.Helper()
		p := params(a, owner)
		p.Expires = a.Now().Add(life)
		made, _, err := a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), p)
		if err != nil {
			t.Fatal(err)
		}
		return made.Key
	}
	rotate := func(key apikeys.Key, overlap time.Duration) apikeys.Key {
		t.Helper()
		next, _, err := a.Keys.Rotate(ctx, a.Operator, op("RotateApiKey"), key.ID, apikeys.RotateParams{Overlap: overlap})
		if err != nil {
			t.Fatal(err)
		}
		return next.Key
	}
	expired, theirs := keyOf(a, sa, time.Hour), keyOf(b, robot(t, b), time.Hour)
	ofUser := keyOf(a, a.User(t, role(sallyport.RoleRead)), time.Hour)
	retired := keyOf(a, sa, 12*month)
	live := rotate(retired, 0)
	retiring := keyOf(a, sa, 12*month)
	rotate(retiring, 11*month)
	late := keyOf(a, sa, 3*time.Hour)
	gone := func(key apikeys.Key) bool {
		t.Helper()
		_, err := a.Keys.Get(ctx, sallyport.OperatorCaller(key.Account, "test"), key.ID)
		if err != nil && !errors.Is(err, sallyport.NotFound) {
			t.Fatal(err)
		}
		return err != nil
	}

	if err := w.Keys.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	a.Advance(month + 2*time.Hour)
	head, err := w.Journal.Head(ctx, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := w.Keys.Reap(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range []apikeys.Key{expired, theirs, ofUser, retired} {
		if !gone(key) {
			t.Errorf("the key %s is still there a month after its end: %+v", key.ID, key)
		}
	}
	for _, key := range []apikeys.Key{live, retiring, late} {
		if gone(key) {
			t.Errorf("the key %s was reaped before its time: %+v", key.ID, key)
		}
	}
	sameAsJournal(t, a)
	sameAsJournal(t, b)
	entries, err := w.Journal.Entries(ctx, a.ID, head.Revision, 10)
	if err != nil || len(entries) != 1 || entries[0].Type != "ReapApiKeys" {
		t.Errorf("got the entries %+v, %v; want one reaping", entries, err)
	}
}

// TestReapMany reaps more than one entry holds.
func TestReapMany(t *testing.T) {
	t.Parallel()
	a := authntest.NewOn(t, pgtest.Clone(t)).Tenant(t)
	ctx := t.Context()
	for range 12 {
		sa := robot(t, a)
		for range 20 {
			p := params(a, sa)
			p.Expires = a.Now().Add(time.Hour)
			if _, _, err := a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), p); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.Advance(month + 2*time.Hour)
	head, err := a.Journal.Head(ctx, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Keys.Reap(ctx); err != nil {
		t.Fatal(err)
	}
	if now, err := a.Journal.Head(ctx, a.ID); err != nil || now.Revision != head.Revision+3 {
		t.Errorf("the head moved from %d to %d, %v; want three entries", head.Revision, now.Revision, err)
	}
	if left := sameAsJournal(t, a); len(left) != 1 { // the owner's, which ended less long ago
		t.Errorf("%d keys are left, want 1", len(left))
	}
}

// TestRunReaps: it does not take a call to Reap.
func TestRunReaps(t *testing.T) {
	t.Parallel()
	a := authntest.NewOn(t, pgtest.Clone(t)).Tenant(t)
	key := a.Key(t, robot(t, a), sallyport.Limits{}).Key
	a.Advance(2*month + time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Keys.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := a.Keys.Get(ctx, a.Operator, key.ID)
		if errors.Is(err, sallyport.NotFound) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Errorf("the ended key was not reaped: %v", err)
			break
		}
	}
	cancel()
	wg.Wait()
	if log := a.Log.String(); log != "" {
		t.Errorf("it was logged: %s", log)
	}
}
