package apikeys_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

// flush writes what is pending, as the end of the service does.
func flush(t *testing.T, a *authntest.Tenant) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Keys.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func lastUsed(t *testing.T, a *authntest.Tenant, id string) time.Time {
	t.Helper()
	key, err := a.Keys.Get(t.Context(), a.Operator, id)
	if err != nil {
		t.Fatal(err)
	}
	return key.LastUsed
}

// version names the version of the key's row: each write makes another.
func version(t *testing.T, id string) (v string) {
	t.Helper()
	if err := pgtest.DB(t).QueryRow(t.Context(), "select xmin::text || ctid::text from api_keys where id = $1", id).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLastUse(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	made, unused := a.Key(t, robot(t, a), sallyport.Limits{}), a.Key(t, robot(t, a), sallyport.Limits{})
	id, before := made.Key.ID, version(t, made.Key.ID)
	noon := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				a.Keys.MarkUsed(a.ID, id, noon.Add(time.Duration(i)*time.Millisecond))
			}
		})
	}
	wg.Wait()
	if version(t, id) != before || !lastUsed(t, a, id).IsZero() {
		t.Error("a use was written before the flush")
	}
	head, err := a.Journal.Head(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	flush(t, a)
	if got := lastUsed(t, a, id); !got.Equal(noon) {
		t.Errorf("last use: got %s, want %s", got, noon)
	}
	if got := lastUsed(t, a, unused.Key.ID); !got.IsZero() {
		t.Errorf("last use of a key that was not used: %s", got)
	}

	// The same minute costs nothing more, and time does not go back: not in
	// this copy of the service, and not in another.
	written := version(t, id)
	for _, other := range []*authntest.Tenant{a, {World: authntest.New(t), ID: a.ID, Operator: a.Operator}} {
		other.Keys.MarkUsed(a.ID, id, noon.Add(30*time.Second))
		flush(t, other)
		other.Keys.MarkUsed(a.ID, id, noon.Add(-time.Hour))
		flush(t, other)
	}
	if version(t, id) != written {
		t.Error("the row was written again")
	}
	a.Keys.MarkUsed(a.ID, id, noon.Add(61*time.Second))
	flush(t, a)
	if got := lastUsed(t, a, id); !got.Equal(noon.Add(time.Minute)) {
		t.Errorf("last use: got %s, want a minute later", got)
	}

	// No journal entry, and the replicated object stays as it is.
	if now, err := a.Journal.Head(t.Context(), a.ID); err != nil || now != head {
		t.Errorf("the head moved from %v to %v, %v", head, now, err)
	}
	sameAsJournal(t, a)
}

func TestLastUseOfMany(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	noon := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	gone := a.Key(t, robot(t, a), sallyport.Limits{})
	if _, err := a.Keys.Delete(t.Context(), a.Operator, op("DeleteApiKey"), gone.Key.ID, 0); err != nil {
		t.Fatal(err)
	}
	made := a.Key(t, robot(t, a), sallyport.Limits{})
	a.Keys.MarkUsed(a.ID, gone.Key.ID, noon)
	a.Keys.MarkUsed(a.ID, made.Key.ID, noon)
	for range 200_000 { // more than are held
		a.Keys.MarkUsed(a.ID, sallyport.NewID(""), noon)
	}
	late := a.Key(t, robot(t, a), sallyport.Limits{})
	a.Keys.MarkUsed(a.ID, late.Key.ID, noon)
	for range 10 { // a flush at the end has two seconds; what it did not write waits
		flush(t, a)
	}
	if got := lastUsed(t, a, made.Key.ID); !got.Equal(noon) {
		t.Errorf("last use: got %s, want %s", got, noon)
	}
	if got := lastUsed(t, a, late.Key.ID); !got.IsZero() {
		t.Errorf("a use was kept past the bound: %s", got)
	}
	a.Keys.MarkUsed(a.ID, late.Key.ID, noon)
	flush(t, a)
	if got := lastUsed(t, a, late.Key.ID); !got.Equal(noon) {
		t.Errorf("last use after the flood: got %s, want %s", got, noon)
	}
}

// TestUsesWhileKeysEnd flushes uses of keys while they are changed and their
// owner is deleted: neither waits for the other for ever.
func TestUsesWhileKeysEnd(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	sa := robot(t, a)
	var ids []string
	for range 20 {
		ids = append(ids, a.Key(t, sa, sallyport.Limits{}).Key.ID)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for at := time.Now(); ; at = at.Add(time.Minute) {
			select {
			case <-stop:
				return
			default:
			}
			for _, id := range ids {
				a.Keys.MarkUsed(a.ID, id, at)
			}
			flush(t, a)
		}
	})
	for _, id := range ids[:10] {
		if _, err := a.Keys.Delete(t.Context(), a.Operator, op("DeleteApiKey"), id, 0); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Directory.DeleteServiceAccount(t.Context(), a.Operator, op("DeleteServiceAccount"), sa.ID, 0); err != nil {
		t.Error(err)
	}
	close(stop)
	wg.Wait()
	if log := a.Log.String(); log != "" {
		t.Errorf("it was logged: %s", log)
	}
}
