package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func keepCaller(_ context.Context, _ pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
	return c, nil
}

func newJournal(t testing.TB, c journal.Config) *journal.Journal {
	t.Helper()
	if c.Pool == nil {
		c.Pool = pgtest.DB(t)
	}
	if c.Resolve == nil {
		c.Resolve = keepCaller
	}
	j, err := journal.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// newAccount begins the journal of a fresh account.
func newAccount(t testing.TB, j *journal.Journal) (sallyport.AccountID, sallyport.Caller) {
	t.Helper()
	account := sallyport.AccountID(sallyport.NewID("")[:10])
	operator := sallyport.OperatorCaller(account, "test")
	_, err := j.Commit(t.Context(), operator, account, journal.Operation{Type: "CreateAccount", NewAccount: true},
		func(tx *journal.Tx) error {
			return tx.Put(t.Context(), object.KindAccount, string(account), object.Encode(object.Account{Status: object.Active}))
		})
	if err != nil {
		t.Fatal(err)
	}
	return account, operator
}

func put(ctx context.Context, id, value string) func(*journal.Tx) error {
	return func(tx *journal.Tx) error {
		tx.Target(id)
		tx.Record(journal.Change{Type: "thing", ID: id, After: value})
		return tx.Put(ctx, object.KindGroup, id, []byte(value))
	}
}

func TestCommitMovesTheHead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	before, err := j.Head(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	done, err := j.Commit(ctx, operator, account, journal.Operation{Type: "Put"}, put(ctx, "g_1", "one"))
	if err != nil {
		t.Fatal(err)
	}
	if done.Head.Revision != before.Revision+1 || done.Target != "g_1" || done.OperationID == "" || done.Replayed {
		t.Errorf("got %+v after head %+v", done, before)
	}
	batch, err := j.Since(ctx, account, before.Revision)
	if err != nil {
		t.Fatal(err)
	}
	want := journal.Batch{Account: account, Follows: before, Head: done.Head, Digest: batch.Digest,
		Objects: []object.Object{{Kind: object.KindGroup, ID: "g_1", Data: []byte("one")}}}
	if diff := cmp.Diff(want, batch); diff != "" {
		t.Errorf("Since (-want +got):\n%s", diff)
	}
	if at, err := j.VerifyAccount(ctx, account); err != nil || at != done.Head {
		t.Errorf("VerifyAccount = %+v, %v; want %+v", at, err, done.Head)
	}
	if b, err := j.Since(ctx, account, done.Head.Revision+7); err != nil || b.Follows != (sallyport.Head{}) {
		t.Errorf("Since a revision that never was: Follows %+v, %v", b.Follows, err)
	}
}

func TestRemovedObjectsAndDigest(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	start, err := j.Snapshot(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	steps := []func(*journal.Tx) error{
		put(ctx, "g_1", "one"), put(ctx, "g_2", "two"), put(ctx, "g_1", "changed"),
		func(tx *journal.Tx) error {
			return errors.Join(tx.Remove(ctx, object.KindGroup, "g_1"), tx.Remove(ctx, object.KindGroup, "g_2"), tx.Remove(ctx, object.KindGroup, "never"))
		},
	}
	for _, step := range steps {
		if _, err := j.Commit(ctx, operator, account, journal.Operation{Type: "Put"}, step); err != nil {
			t.Fatal(err)
		}
		if _, err := j.VerifyAccount(ctx, account); err != nil {
			t.Fatal(err)
		}
	}
	end, err := j.Snapshot(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	if end.Digest != start.Digest {
		t.Error("the digest of the same objects differs")
	}
	delta, err := j.Since(ctx, account, start.Head.Revision)
	if err != nil {
		t.Fatal(err)
	}
	want := []object.Object{{Kind: object.KindGroup, ID: "g_1", Deleted: true, Data: []byte{}}, {Kind: object.KindGroup, ID: "g_2", Deleted: true, Data: []byte{}}}
	if diff := cmp.Diff(want, delta.Objects); diff != "" {
		t.Errorf("tombstones (-want +got):\n%s", diff)
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	op := journal.Operation{ID: "once", Type: "Put", Request: []byte("a")}
	first, err := j.Commit(ctx, operator, account, op, put(ctx, "g_1", "one"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := j.Commit(ctx, operator, account, op, func(*journal.Tx) error {
		t.Error("a repeated operation ran again")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := first
	want.Replayed = true
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("replay (-want +got):\n%s", diff)
	}
	op.Request = []byte("b")
	if _, err := j.Commit(ctx, operator, account, op, put(ctx, "g_1", "two")); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("the same id for another request: %v, want Invalid", err)
	}
	other := sallyport.OperatorCaller(account, "another")
	if done, err := j.Commit(ctx, other, account, op, put(ctx, "g_1", "two")); err != nil || done.Replayed {
		t.Errorf("the same id of another caller: %+v, %v", done, err)
	}
	op.ID = strings.Repeat("x", 129)
	if _, err := j.Commit(ctx, operator, account, op, put(ctx, "g_1", "two")); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("too long an id: %v, want Invalid", err)
	}
}

func TestIdempotencyRaced(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	var fresh, replayed int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			done, err := j.Commit(ctx, operator, account, journal.Operation{ID: "raced", Type: "Put"}, put(ctx, "g_1", "one"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if done.Replayed {
				replayed++
			} else {
				fresh++
			}
		})
	}
	wg.Wait()
	if fresh != 1 || replayed != 11 {
		t.Errorf("%d did it and %d were told so, want 1 and 11", fresh, replayed)
	}
}

func TestWritersOfManyAccounts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	var accounts []sallyport.AccountID
	for range 4 {
		account, _ := newAccount(t, j)
		accounts = append(accounts, account)
	}
	const writers, each = 8, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			account := accounts[w%len(accounts)]
			for i := range each {
				id := fmt.Sprintf("g_%d_%d", w, i%5)
				if _, err := j.Commit(ctx, sallyport.OperatorCaller(account, "w"), account, journal.Operation{Type: "Put"}, put(ctx, id, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, account := range accounts {
		head, err := j.VerifyAccount(ctx, account)
		if err != nil {
			t.Error(err)
		}
		if want := int64(1 + writers/len(accounts)*each); head.Revision != want {
			t.Errorf("revision %d, want %d: one for each change", head.Revision, want)
		}
	}
}

// A caller resolved before the account moved is resolved again inside the lock:
// a revoked admin's change cannot land after his revocation.
func TestStaleCallerIsResolvedAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	revoked := sallyport.Unauthenticated.Errorf("this key was revoked")
	j := newJournal(t, journal.Config{Resolve: func(context.Context, pg.Querier, sallyport.Caller) (sallyport.Caller, error) {
		return sallyport.Caller{}, revoked
	}})
	account, operator := newAccount(t, j)
	head, err := j.Head(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	admin := sallyport.Caller{Account: account, Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_admin"}, Head: head}
	if _, err := j.Commit(ctx, admin, account, journal.Operation{Type: "Put"}, put(ctx, "g_1", "one")); err != nil {
		t.Fatalf("at the head it was resolved at: %v", err)
	}
	if _, err := j.Commit(ctx, operator, account, journal.Operation{Type: "Revoke"}, put(ctx, "g_2", "two")); err != nil {
		t.Fatal(err)
	}
	_, err = j.Commit(ctx, admin, account, journal.Operation{Type: "Put"}, func(*journal.Tx) error {
		t.Error("a revoked caller's change ran")
		return nil
	})
	if !errors.Is(err, revoked) {
		t.Errorf("got %v, want %v", err, revoked)
	}
}

func TestAFailedChangeChangesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	before, err := j.Head(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Commit(ctx, operator, account, journal.Operation{Type: "Put"}, func(tx *journal.Tx) error {
		if err := tx.Put(ctx, object.KindGroup, "g_1", []byte("one")); err != nil {
			return err
		}
		return sallyport.Conflict.Errorf("no")
	})
	if !errors.Is(err, sallyport.Conflict) {
		t.Errorf("got %v, want Conflict", err)
	}
	batch, err := j.Snapshot(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	if batch.Head != before || len(batch.Objects) != 1 {
		t.Errorf("got head %+v and %d objects, want %+v and the account's own", batch.Head, len(batch.Objects), before)
	}
	if _, err := j.Commit(ctx, operator, "zzzzz", journal.Operation{Type: "Put"}, put(ctx, "g_1", "one")); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("an unknown account: %v, want NotFound", err)
	}
}

func TestPersonalFieldsAndErasure(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	op := journal.Operation{ID: "make ann", Type: "CreateUser", Request: []byte("ann@example.com")}
	_, err := j.Commit(ctx, operator, account, op, func(tx *journal.Tx) error {
		email, err := tx.Seal(ctx, "u_ann", "ann@example.com")
		tx.Record(journal.Change{Type: "user", ID: "u_ann", After: map[string]any{"email": email}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := j.Entries(ctx, account, 1, 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if strings.Contains(string(entries[0].Body), "ann@example.com") {
		t.Error("the e-mail is readable in the stored entry")
	}
	email := func() string {
		t.Helper()
		plain, err := j.Unseal(ctx, account, entries[0].Body)
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Changes []struct{ After struct{ Email string } }
		}
		if err := json.Unmarshal(plain, &body); err != nil {
			t.Fatal(err)
		}
		return body.Changes[0].After.Email
	}
	if got := email(); got != "ann@example.com" {
		t.Errorf("unsealed e-mail %q", got)
	}
	if err := j.Erase(ctx, operator, account, "u_ann"); err != nil {
		t.Fatal(err)
	}
	if got := email(); got != "erased" {
		t.Errorf("e-mail after erasure %q", got)
	}
	var hashes int
	if err := j.Pool().QueryRow(ctx, `select count(*) from entries where account_id = $1 and operation_id = 'make ann' and request_hash <> ''`, account).Scan(&hashes); err != nil || hashes != 0 {
		t.Errorf("%d hashes of requests with the address are left, %v", hashes, err)
	}
	if _, err := j.Commit(ctx, operator, account, op, put(ctx, "g_1", "one")); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("repeating an erased request: %v, want Invalid", err)
	}
	if _, err := j.VerifyAccount(ctx, account); err != nil {
		t.Errorf("after erasure: %v", err)
	}
}

func TestVerifyNoticesTampering(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	for i := range 3 {
		if _, err := j.Commit(ctx, operator, account, journal.Operation{Type: "Put"}, put(ctx, "g_1", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	read := func() []journal.Entry {
		entries, err := j.Entries(ctx, account, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	if _, err := journal.Verify(read(), sallyport.Head{}); err != nil {
		t.Fatal(err)
	}
	tampered := map[string][]journal.Entry{}
	altered := read()
	altered[1].Body = []byte(strings.Replace(string(altered[1].Body), `"after":"0"`, `"after":"9"`, 1))
	tampered["an altered body"] = altered
	tampered["a missing entry"] = append(read()[:1], read()[2:]...)
	swapped := read()
	swapped[1], swapped[2] = swapped[2], swapped[1]
	tampered["swapped entries"] = swapped
	moved := read()
	moved[3].Head.Epoch++
	tampered["another epoch"] = moved
	for name, entries := range tampered {
		if _, err := journal.Verify(entries, sallyport.Head{}); err == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
	for _, column := range []string{"type = 'Other'", "target = 'other'", "operation_id = 'other'", "at = at - interval '1 day'"} {
		tx, err := j.Pool().Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, `update entries set `+column+` where account_id = $1 and revision = 2`, account); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Verify(read(), sallyport.Head{}); err == nil {
			t.Errorf("%s was not noticed", column)
		}
		fresh, freshOperator := newAccount(t, j)
		for i := range 3 {
			if _, err := j.Commit(ctx, freshOperator, fresh, journal.Operation{Type: "Put"}, put(ctx, "g_1", fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		account = fresh
	}
	if _, err := j.Pool().Exec(ctx, `update objects set data = 'other' where account_id = $1 and kind = 'group'`, account); err != nil {
		t.Fatal(err)
	}
	if _, err := j.VerifyAccount(ctx, account); err == nil {
		t.Error("an altered object was not noticed")
	}
}

func TestDeniedAttemptsAreKeptOutsideTheChain(t *testing.T) {
	t.Parallel()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { j.Run(ctx) })
	for range 3 {
		_, err := j.Commit(ctx, operator, account, journal.Operation{Type: "DeleteUser"}, func(*journal.Tx) error {
			return sallyport.PermissionDenied.Errorf("needs the owner role")
		})
		if !errors.Is(err, sallyport.PermissionDenied) {
			t.Errorf("got %v", err)
		}
	}
	cancel()
	wg.Wait()
	var count, rows int
	err := j.Pool().QueryRow(t.Context(), `select coalesce(sum(count), 0), count(*) from denials where account_id = $1 and type = 'DeleteUser'`, account).Scan(&count, &rows)
	if err != nil || count != 3 || rows > 2 {
		t.Errorf("%d denials in %d rows, %v; want 3 coalesced", count, rows, err)
	}
	list, err := j.Denials(t.Context(), account, time.Now().Add(-time.Hour), 10)
	if err != nil || len(list) != rows || list[0].Type != "DeleteUser" || list[0].Reason != "needs the owner role" {
		t.Errorf("Denials: %+v, %v", list, err)
	}
	if head, err := j.VerifyAccount(t.Context(), account); err != nil || head.Revision != 1 {
		t.Errorf("head %+v, %v: a denial must not move it", head, err)
	}
}

// TestDenialsOfAnyText: a reason that PostgreSQL would refuse takes no other
// tenant's denials with it.
func TestDenialsOfAnyText(t *testing.T) {
	t.Parallel()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	victim, _ := newAccount(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	j.Denied(account, operator, "Exchange", "a"+strings.Repeat("é", 150)) // the cut is within a letter
	j.Denied(account, operator, "Exchange", "sub is not \xff")
	j.Denied(account, operator, "Exchange", "aud is not \x00")
	j.Denied(victim, operator, "Exchange", "no")
	cancel()
	j.Run(ctx)
	for id, want := range map[sallyport.AccountID]int{account: 3, victim: 1} {
		if list, err := j.Denials(t.Context(), id, time.Now().Add(-time.Hour), 10); err != nil || len(list) != want {
			t.Errorf("%d denials, %v; want %d", len(list), err, want)
		}
	}
}

func TestANewEpochIsTheOperators(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	user := sallyport.Caller{Account: account, Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_1"}}
	if _, err := j.NewEpoch(ctx, user, account, "why not"); !errors.Is(err, sallyport.PermissionDenied) {
		t.Errorf("a user began an epoch: %v", err)
	}
	done, err := j.NewEpoch(ctx, operator, account, "restored the backup of Monday")
	if err != nil || done.Head.Epoch <= 1 {
		t.Errorf("got %+v, %v", done, err)
	}
	// The same backup restored again knows nothing of that epoch; another second
	// has another number.
	if _, err := j.Pool().Exec(ctx, `delete from entries where account_id = $1 and revision = 2`, account); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Pool().Exec(ctx, `update heads set epoch = 1, revision = 1, hash = (select hash from entries where account_id = $1 and revision = 1) where account_id = $1`, account); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(time.Unix(done.Head.Epoch+1, 0)))
	again, err := j.NewEpoch(ctx, operator, account, "restored it once more")
	if err != nil || again.Head.Epoch <= done.Head.Epoch {
		t.Errorf("the epoch after another restore is %d, %v; authorizers hold %d", again.Head.Epoch, err, done.Head.Epoch)
	}
	if _, err := j.VerifyAccount(ctx, account); err != nil {
		t.Error(err)
	}
}

func TestHeadsChangedSince(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{Pool: pgtest.Clone(t)})
	quiet, _ := newAccount(t, j)
	time.Sleep(2 * time.Millisecond)
	_, at, err := j.Heads(ctx)
	if err != nil {
		t.Fatal(err)
	}
	busy, _ := newAccount(t, j)
	heads, _, err := j.HeadsChangedSince(ctx, at)
	if err != nil || len(heads) != 1 || heads[0].Account != busy {
		t.Errorf("got %+v, %v; want %s alone, not %s", heads, err, busy, quiet)
	}
	if all, _, err := j.Heads(ctx); err != nil || len(all) != 2 {
		t.Errorf("got %d heads, %v", len(all), err)
	}
}
