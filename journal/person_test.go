package journal_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// operatorKey wraps as internal/vault does, with a key of the test's own.
func operatorKey(t testing.TB, c journal.Config) journal.Config {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	c.Seal = func(plain, context []byte) ([]byte, error) { return aead.Seal(nil, nil, plain, context), nil }
	c.Unseal = func(sealed, context []byte) ([]byte, error) { return aead.Open(nil, nil, sealed, context) }
	return c
}

// sealName commits an entry with a personal field and gives its body.
func sealName(t testing.TB, j *journal.Journal, account sallyport.AccountID, operator sallyport.Caller, person, name string) ([]byte, error) {
	t.Helper()
	done, err := j.Commit(t.Context(), operator, account, journal.Operation{Type: "Name"}, func(tx *journal.Tx) error {
		sealed, err := tx.Seal(t.Context(), person, name)
		tx.Record(journal.Change{Type: "user", ID: person, After: sealed})
		return err
	})
	if err != nil {
		return nil, err
	}
	entries, err := j.Entries(t.Context(), account, done.Head.Revision-1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return entries[0].Body, nil
}

func readable(t testing.TB, j *journal.Journal, account sallyport.AccountID, body []byte) string {
	t.Helper()
	plain, err := j.Unseal(t.Context(), account, body)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestPersonsKeysAreSealed(t *testing.T) {
	t.Parallel()
	config := operatorKey(t, journal.Config{})
	j := newJournal(t, config)
	account, operator := newAccount(t, j)
	first, err := sealName(t, j, account, operator, "u_ann", "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	again := newJournal(t, config) // the service restarted, or another copy
	second, err := sealName(t, again, account, operator, "u_ann", "ann@example.org")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(first, []byte("ann@")) || !strings.Contains(readable(t, again, account, first), "ann@example.com") ||
		!strings.Contains(readable(t, j, account, second), "ann@example.org") {
		t.Errorf("the sealed fields are not what was written:\n%s\n%s", first, second)
	}
	var kept []byte
	err = pgtest.DB(t).QueryRow(t.Context(), `select key from person_keys where account_id = $1 and person = 'u_ann'`, account).Scan(&kept)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := config.Unseal(kept, []byte("person-key/"+string(account)+"/u_ann")); err != nil || len(key) != 32 || bytes.Contains(kept, key) {
		t.Errorf("the key is not kept sealed for its person: %v", err)
	}
	if err := j.Erase(t.Context(), operator, account, "u_ann"); err != nil {
		t.Fatal(err)
	}
	if text := readable(t, j, account, first); strings.Contains(text, "ann@") || !strings.Contains(text, "erased") {
		t.Errorf("after the erasure: %s", text)
	}
	if _, err := j.VerifyAccount(t.Context(), account); err != nil {
		t.Error(err)
	}
}

func TestASealedKeyIsOfNoUseElsewhere(t *testing.T) {
	t.Parallel()
	config := operatorKey(t, journal.Config{Pool: pgtest.Clone(t)})
	j := newJournal(t, config)
	account, operator := newAccount(t, j)
	other, otherOperator := newAccount(t, j)
	for _, write := range []struct {
		account sallyport.AccountID
		caller  sallyport.Caller
		person  string
	}{{account, operator, "u_ann"}, {account, operator, "u_bob"}, {other, otherOperator, "u_ann"}} {
		if _, err := sealName(t, j, write.account, write.caller, write.person, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	bobs, err := sealName(t, j, account, operator, "u_bob", "bob@example.com")
	if err != nil {
		t.Fatal(err)
	}
	// Somebody who can write to the table puts another's key in the place of bob's.
	for _, from := range []struct {
		account sallyport.AccountID
		person  string
	}{{account, "u_ann"}, {other, "u_ann"}} {
		_, err := config.Pool.Exec(t.Context(), `
			update person_keys
			set key = (select key from person_keys where account_id = $1 and person = $2)
			where account_id = $3 and person = 'u_bob'`, from.account, from.person, account)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Unseal(t.Context(), account, bobs); sallyport.KindOf(err) != sallyport.Unavailable {
			t.Errorf("with the key of %s of %s: got %v, want Unavailable", from.person, from.account, err)
		}
		if _, err := sealName(t, j, account, operator, "u_bob", "x"); sallyport.KindOf(err) != sallyport.Unavailable {
			t.Errorf("sealing with the key of %s of %s: got %v, want Unavailable", from.person, from.account, err)
		}
	}
}

func TestTheWrongOperatorKeyOpensNothing(t *testing.T) {
	t.Parallel()
	j := newJournal(t, operatorKey(t, journal.Config{}))
	account, operator := newAccount(t, j)
	body, err := sealName(t, j, account, operator, "u_ann", "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	plain := newJournal(t, journal.Config{})
	plainAccount, plainOperator := newAccount(t, plain)
	plainBody, err := sealName(t, plain, plainAccount, plainOperator, "u_ann", "ann@example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		journal *journal.Journal
		account sallyport.AccountID
		caller  sallyport.Caller
		body    []byte
	}{
		{"another key", newJournal(t, operatorKey(t, journal.Config{})), account, operator, body},
		{"no key", plain, account, operator, body},
		{"a key where the keys were kept plain", j, plainAccount, plainOperator, plainBody},
	} {
		if _, err := test.journal.Unseal(t.Context(), test.account, test.body); sallyport.KindOf(err) != sallyport.Unavailable {
			t.Errorf("%s: reading gives %v, want Unavailable", test.name, err)
		}
		if _, err := sealName(t, test.journal, test.account, test.caller, "u_ann", "x"); sallyport.KindOf(err) != sallyport.Unavailable {
			t.Errorf("%s: writing gives %v, want Unavailable", test.name, err)
		}
		if _, err := test.journal.VerifyAccount(t.Context(), test.account); err != nil {
			t.Errorf("%s: the chain does not verify: %v", test.name, err)
		}
	}
	half := operatorKey(t, journal.Config{Pool: pgtest.DB(t), Resolve: keepCaller})
	half.Unseal = nil
	if _, err := journal.New(half); err == nil {
		t.Error("a journal that can seal and not open was made")
	}
}

func TestTransactionIsTheChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJournal(t, journal.Config{})
	account, operator := newAccount(t, j)
	refused := sallyport.Conflict.Errorf("no")
	count := func() (n int) {
		err := pgtest.DB(t).QueryRow(ctx, `select count(*) from person_keys where account_id = $1`, account).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	insert := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into person_keys (account_id, person, key) values ($1, 'u_1', '')`, account)
		return err
	}
	if _, err := j.Commit(ctx, operator, account, journal.Operation{Type: "X"}, func(tx *journal.Tx) error {
		if err := insert(tx.Transaction()); err != nil {
			return err
		}
		return refused
	}); !errors.Is(err, refused) || count() != 0 {
		t.Errorf("got %v, and %d rows stayed", err, count())
	}
	if _, err := j.Commit(ctx, operator, account, journal.Operation{Type: "X"}, func(tx *journal.Tx) error { return insert(tx.Transaction()) }); err != nil || count() != 1 {
		t.Errorf("got %v, and %d rows", err, count())
	}
}
