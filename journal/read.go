package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Pool is the database that the journal is in.
func (j *Journal) Pool() *pgxpool.Pool { return j.pool }

// Head is the account's position now. It answers NotFound for an unknown account.
func (j *Journal) Head(ctx context.Context, account sallyport.AccountID) (sallyport.Head, error) {
	return ReadHead(ctx, j.pool, account)
}

// ReadHead is Head within a transaction.
func ReadHead(ctx context.Context, q pg.Querier, account sallyport.AccountID) (sallyport.Head, error) {
	head, _, err := readHead(ctx, q, account)
	return head, err
}

// AccountHead is the position of one account.
type AccountHead struct {
	Account sallyport.AccountID
	Head    sallyport.Head
}

// Heads reads the position of every account, and the database's time before
// the read: everything committed before it is in the answer.
func (j *Journal) Heads(ctx context.Context) ([]AccountHead, time.Time, error) {
	return headsSince(ctx, j.pool, time.Time{})
}

// HeadsChangedSince reads the positions that moved at or after t by the
// database's clock, and its time before the read. A change that took long to
// commit may be missing: Heads finds it.
func (j *Journal) HeadsChangedSince(ctx context.Context, t time.Time) ([]AccountHead, time.Time, error) {
	return headsSince(ctx, j.pool, t)
}

// Batch is objects of one account: all live ones (a snapshot), or those newer
// than Follows (a delta), read at Head at one moment. Objects are ordered by
// kind and id.
type Batch struct {
	Account sallyport.AccountID
	Follows sallyport.Head // what a delta was asked after; zero for a snapshot
	Head    sallyport.Head
	Digest  object.Digest // of the account's live objects at Head
	Objects []object.Object
}

// Snapshot reads the account's live objects at one moment.
func (j *Journal) Snapshot(ctx context.Context, account sallyport.AccountID) (Batch, error) {
	var b Batch
	err := pg.Snapshot(ctx, j.pool, func(tx pgx.Tx) (err error) {
		b, err = ReadSnapshot(ctx, tx, account)
		return err
	})
	return b, err
}

// ReadSnapshot is Snapshot within a transaction, which must see one moment.
func ReadSnapshot(ctx context.Context, q pg.Querier, account sallyport.AccountID) (Batch, error) {
	b := Batch{Account: account}
	var err error
	if b.Head, b.Digest, err = readHead(ctx, q, account); err != nil {
		return b, err
	}
	b.Objects, err = liveObjects(ctx, q, account)
	return b, err
}

// Since reads the account's objects, deleted ones too, that changed after the
// revision. Follows is the account's head as it was at the revision, with the
// hash of this history; it is zero when there was no such revision.
func (j *Journal) Since(ctx context.Context, account sallyport.AccountID, revision int64) (Batch, error) {
	b := Batch{Account: account}
	err := pg.Snapshot(ctx, j.pool, func(tx pgx.Tx) (err error) {
		if b.Head, b.Digest, err = readHead(ctx, tx, account); err != nil {
			return err
		}
		if b.Follows, err = headAt(ctx, tx, account, revision); err != nil {
			return err
		}
		b.Objects, err = objectsSince(ctx, tx, account, revision)
		return err
	})
	return b, err
}

// HeadAt is the account's head as it was at the revision, zero if there was none.
func (j *Journal) HeadAt(ctx context.Context, account sallyport.AccountID, revision int64) (sallyport.Head, error) {
	return headAt(ctx, j.pool, account, revision)
}

// Operation finds the newest operation with the id in the account, whoever
// asked for it. It answers NotFound if there is none.
func (j *Journal) Operation(ctx context.Context, account sallyport.AccountID, operationID string) (Committed, error) {
	e, err := newestOperation(ctx, j.pool, account, operationID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Committed{}, sallyport.NotFound.Errorf("there is no operation with this id in the account")
	}
	if err != nil {
		return Committed{}, fmt.Errorf("reading an operation: %w", err)
	}
	return e.committed(), nil
}

// Entry is a committed change with its record as it was hashed (JSON).
type Entry struct {
	Committed
	Body []byte
}

// Entries reads at most limit entries after the revision, oldest first.
func (j *Journal) Entries(ctx context.Context, account sallyport.AccountID, after int64, limit int) ([]Entry, error) {
	list, err := entriesAfter(ctx, j.pool, account, after, limit)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(list))
	for i, e := range list {
		entries[i] = Entry{e.committed(), e.body}
	}
	return entries, nil
}

// Verify checks the chain of an account's successive entries: each body's hash
// over the previous one's, what the body says of its place, and that nothing is
// missing in between. start is the position before the first: the zero Head
// for the beginning. It returns the position after the last.
func Verify(entries []Entry, start sallyport.Head) (sallyport.Head, error) {
	at := start
	for _, e := range entries {
		var body entryBody
		if err := json.Unmarshal(e.Body, &body); err != nil {
			return at, fmt.Errorf("reading entry %d: %w", e.Head.Revision, err)
		}
		switch {
		case e.Head.Revision != at.Revision+1 || body.Revision != e.Head.Revision:
			return at, fmt.Errorf("entry %d does not follow entry %d", e.Head.Revision, at.Revision)
		case body.Epoch != e.Head.Epoch || body.Account != e.Account || e.Head.Epoch < at.Epoch:
			return at, fmt.Errorf("entry %d is not of this account and epoch", e.Head.Revision)
		case body.Previous != hexHash(at.Hash):
			return at, fmt.Errorf("entry %d names another predecessor", e.Head.Revision)
		case body.Operation != e.OperationID || body.Type != e.Type || body.Target != e.Target || !body.At.Equal(e.At):
			return at, fmt.Errorf("entry %d was altered: what is kept beside its record differs from it", e.Head.Revision)
		case hashEntry(at.Hash, e.Body) != e.Head.Hash:
			return at, fmt.Errorf("entry %d was altered: its hash differs", e.Head.Revision)
		}
		at = e.Head
	}
	return at, nil
}

// VerifyAccount checks the account's whole chain up to its head, and that the
// objects' digest is the one that the last entry states.
func (j *Journal) VerifyAccount(ctx context.Context, account sallyport.AccountID) (sallyport.Head, error) {
	batch, err := j.Snapshot(ctx, account)
	if err != nil {
		return sallyport.Head{}, err
	}
	var at sallyport.Head
	var last entryBody
	for at.Revision < batch.Head.Revision {
		entries, err := j.Entries(ctx, account, at.Revision, int(min(500, batch.Head.Revision-at.Revision)))
		if err != nil {
			return at, err
		}
		if len(entries) == 0 {
			return at, fmt.Errorf("entry %d is missing", at.Revision+1)
		}
		if at, err = Verify(entries, at); err != nil {
			return at, err
		}
		if err := json.Unmarshal(entries[len(entries)-1].Body, &last); err != nil {
			return at, fmt.Errorf("reading entry %d: %w", at.Revision, err)
		}
	}
	if at.Revision > 0 && at != batch.Head {
		return at, errors.New("the head differs from the last entry")
	}
	var digest object.Digest
	for _, o := range batch.Objects {
		digest.Toggle(o.Kind, o.ID, o.Data, true)
	}
	if digest != batch.Digest || (at.Revision > 0 && hexHash(digest) != last.Digest) {
		return at, errors.New("the objects differ from what the journal says of them")
	}
	return at, nil
}

// Unseal gives an entry's body with its personal fields readable: each Sealed
// value becomes its text, or "erased" when the person's key was destroyed.
func (j *Journal) Unseal(ctx context.Context, account sallyport.AccountID, body []byte) ([]byte, error) {
	var tree any
	if err := json.Unmarshal(body, &tree); err != nil {
		return nil, fmt.Errorf("reading an entry: %w", err)
	}
	keys := map[string][]byte{}
	tree, err := unsealTree(tree, func(s Sealed) (string, error) {
		key, known := keys[s.Person]
		if !known {
			var err error
			key, err = j.personKey(ctx, j.pool, account, s.Person)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return "", err
			}
			keys[s.Person] = key
		}
		if key == nil {
			return "erased", nil
		}
		return s.open(account, key)
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(tree)
}

func (s Sealed) open(account sallyport.AccountID, key []byte) (string, error) {
	aead, err := personAEAD(key)
	if err != nil {
		return "", err
	}
	plain, err := aead.Open(nil, nil, s.Cipher, personContext(account, s.Person))
	if err != nil {
		return "", fmt.Errorf("opening a personal field: %w", err)
	}
	return string(plain), nil
}

func unsealTree(node any, open func(Sealed) (string, error)) (any, error) {
	var err error
	switch n := node.(type) {
	case []any:
		for i := range n {
			if n[i], err = unsealTree(n[i], open); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if person, ok := n["person"].(string); ok && len(n) == 2 && n["cipher"] != nil {
			raw, err := json.Marshal(n)
			if err != nil {
				return nil, err
			}
			s := Sealed{Person: person}
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, fmt.Errorf("reading a personal field: %w", err)
			}
			return open(s)
		}
		for k := range n {
			if n[k], err = unsealTree(n[k], open); err != nil {
				return nil, err
			}
		}
	}
	return node, nil
}

// Denial is a refused attempt, counted by the minute.
type Denial struct {
	Minute time.Time // UTC
	Caller string    // kind and id, "" for many
	Type   string    // of the operation
	Reason string
	Count  int64
}

// Denials reads the account's refused attempts since the time, newest first, at
// most limit. They are kept for thirty days.
func (j *Journal) Denials(ctx context.Context, account sallyport.AccountID, since time.Time, limit int) ([]Denial, error) {
	return denialsSince(ctx, j.pool, account, since, limit)
}

// Erase destroys the person's key in the account: the personal fields of all
// entries become unreadable, and the chain still verifies. The hashes of the
// requests that held them go too, since they would confirm a guessed address; a
// repetition of such a request is then refused. It is for a person whose user
// was deleted.
func (j *Journal) Erase(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, person string) error {
	if caller.Principal.Kind != sallyport.Operator {
		return sallyport.PermissionDenied.Errorf("only the operator may erase a person")
	}
	_, err := j.Commit(ctx, caller, account, Operation{Type: "ErasePerson", Request: []byte(person)}, func(tx *Tx) error {
		tx.Record(Change{Type: "person", ID: person})
		if err := deletePersonKey(ctx, tx, account, person); err != nil {
			return err
		}
		return blankRequests(ctx, tx, account, person)
	})
	return err
}
