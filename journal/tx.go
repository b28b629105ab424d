package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Tx is a change in the making, inside the account's lock. Its Querier is the
// transaction: every query sees what was committed before the lock was taken.
type Tx struct {
	pg.Querier
	db      pgx.Tx // the same, for Transaction
	journal *Journal
	caller  sallyport.Caller
	account sallyport.AccountID
	head    sallyport.Head // before the change
	digest  object.Digest
	now     time.Time
	target  string
	changes []Change
	objects []objectChange
}

// Caller is the caller, resolved at the head that is locked.
func (tx *Tx) Caller() sallyport.Caller { return tx.caller }

// Transaction is the database's transaction itself, for what is enqueued with
// the change. Committing it or rolling it back is the journal's alone.
func (tx *Tx) Transaction() pgx.Tx { return tx.db }

// Account is the account that changes.
func (tx *Tx) Account() sallyport.AccountID { return tx.account }

// Now is the time of the change: UTC, microseconds.
func (tx *Tx) Now() time.Time { return tx.now }

// Revision is the one that the change will have.
func (tx *Tx) Revision() int64 { return tx.head.Revision + 1 }

// Target sets the id of what the operation made or changed, for the entry and
// for the answer to a repetition.
func (tx *Tx) Target(id string) { tx.target = id }

// Change is one resource's change, for the audit record. Before and After are
// marshalled as JSON; nil for not there. Names and e-mails of people go in as
// Sealed only; secrets never.
type Change struct {
	Type   string `json:"type"` // "user", "api-key", "namespace"
	ID     string `json:"id"`
	Before any    `json:"before,omitempty"`
	After  any    `json:"after,omitempty"`
}

// Record adds a change to the entry.
func (tx *Tx) Record(c Change) { tx.changes = append(tx.changes, c) }

type objectChange struct {
	Kind    object.Kind `json:"kind"`
	ID      string      `json:"id"`
	Deleted bool        `json:"deleted,omitempty"`
	Hash    string      `json:"sha256,omitempty"` // of the data
}

// Put makes the object's newest state known to authorizers.
func (tx *Tx) Put(ctx context.Context, kind object.Kind, id string, data []byte) error {
	return tx.set(ctx, object.Object{Kind: kind, ID: id, Data: data})
}

// Remove ends the object. Removing what is not there changes nothing.
func (tx *Tx) Remove(ctx context.Context, kind object.Kind, id string) error {
	return tx.set(ctx, object.Object{Kind: kind, ID: id, Deleted: true})
}

func (tx *Tx) set(ctx context.Context, o object.Object) error {
	old, exists, err := liveObject(ctx, tx, tx.account, o.Kind, o.ID)
	if err != nil {
		return err
	}
	if o.Deleted && !exists {
		return nil
	}
	if err := putObject(ctx, tx, tx.account, tx.Revision(), o); err != nil {
		return err
	}
	if exists {
		tx.digest.Toggle(o.Kind, o.ID, old, false)
	}
	change := objectChange{Kind: o.Kind, ID: o.ID, Deleted: o.Deleted}
	if !o.Deleted {
		tx.digest.Toggle(o.Kind, o.ID, o.Data, true)
		sum := sha256.Sum256(o.Data)
		change.Hash = hex.EncodeToString(sum[:])
	}
	tx.objects = append(tx.objects, change)
	return nil
}

// Sealed is a personal value, encrypted under the person's key (AES-256-GCM,
// the account and the person as additional data).
type Sealed struct {
	Person string `json:"person"`
	Cipher []byte `json:"cipher"`
}

// Seal encrypts a personal value of the person (a user's id) for the entry. The
// person's key is made when it is first needed.
func (tx *Tx) Seal(ctx context.Context, person, value string) (Sealed, error) {
	key, err := tx.journal.personKey(ctx, tx, tx.account, person)
	if errors.Is(err, pgx.ErrNoRows) {
		key, err = tx.journal.makePersonKey(ctx, tx, tx.account, person)
	}
	if err != nil {
		return Sealed{}, err
	}
	aead, err := personAEAD(key)
	if err != nil {
		return Sealed{}, err
	}
	//nolint:gosec // G407: the AEAD makes a random nonce itself and takes none
	cipher := aead.Seal(nil, nil, []byte(value), personContext(tx.account, person))
	return Sealed{person, cipher}, nil
}

// entryBody is the audit record as it is hashed and stored, JSON.
type entryBody struct {
	Account   sallyport.AccountID `json:"account"`
	Epoch     int64               `json:"epoch"`
	Revision  int64               `json:"revision"`
	Previous  string              `json:"previous"` // hash of the entry before, hex
	At        time.Time           `json:"at"`
	Operation string              `json:"operation"`
	Type      string              `json:"type"`
	Target    string              `json:"target,omitempty"`
	Caller    callerBody          `json:"caller"`
	Changes   []Change            `json:"changes,omitempty"`
	Objects   []objectChange      `json:"objects,omitempty"`
	Digest    string              `json:"digest"` // of the account's live objects after the change, hex
}

type callerBody struct {
	Kind           sallyport.PrincipalKind `json:"kind"`
	ID             string                  `json:"id"`
	Account        sallyport.AccountID     `json:"account,omitempty"` // when another than the entry's
	CredentialKind string                  `json:"credential_kind,omitempty"`
	CredentialID   string                  `json:"credential_id,omitempty"`
	From           string                  `json:"from,omitempty"`
	SealedFrom     *Sealed                 `json:"sealed_from,omitempty"` // a person's address is personal
	RequestID      string                  `json:"request_id,omitempty"`
}

func (tx *Tx) callerBody(ctx context.Context) (callerBody, error) {
	c := tx.caller
	body := callerBody{Kind: c.Principal.Kind, ID: c.Principal.ID, CredentialKind: c.Credential.Kind,
		CredentialID: c.Credential.ID, RequestID: c.RequestID}
	if c.Account != tx.account {
		body.Account = c.Account
	}
	switch {
	case !c.From.IsValid():
	case c.Principal.Kind == sallyport.User && c.Account == tx.account:
		sealed, err := tx.Seal(ctx, c.Principal.ID, c.From.String())
		if err != nil {
			return body, err
		}
		body.SealedFrom = &sealed
	default:
		body.From = c.From.String()
	}
	return body, nil
}

// append writes the entry and moves the head.
func (tx *Tx) append(ctx context.Context, op Operation, requestHash [32]byte) (Committed, error) {
	caller, err := tx.callerBody(ctx)
	if err != nil {
		return Committed{}, err
	}
	head := sallyport.Head{Epoch: tx.head.Epoch, Revision: tx.head.Revision + 1}
	body, err := json.Marshal(entryBody{
		Account: tx.account, Epoch: head.Epoch, Revision: head.Revision, Previous: hexHash(tx.head.Hash),
		At: tx.now, Operation: op.ID, Type: op.Type, Target: tx.target, Caller: caller,
		Changes: tx.changes, Objects: tx.objects, Digest: hexHash(tx.digest),
	})
	if err != nil {
		return Committed{}, fmt.Errorf("encoding the entry: %w", err)
	}
	head.Hash = hashEntry(tx.head.Hash, body)
	e := entry{account: tx.account, head: head, operationID: op.ID, caller: callerKey(tx.caller), kind: op.Type,
		target: tx.target, requestHash: requestHash[:], at: tx.now, body: body}
	if err := insertEntry(ctx, tx, e); err != nil {
		return Committed{}, err
	}
	if err := moveHead(ctx, tx, tx.account, head, tx.digest); err != nil {
		return Committed{}, err
	}
	return e.committed(), nil
}
