// Package journal is the one way to change anything. A committed change of an
// account is one entry: audit record, feed item and the operation that clients
// poll. Entries of an account are ordered without gaps and hash-chained;
// accounts never wait for each other.
package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Config of a Journal.
type Config struct {
	Pool *pgxpool.Pool // required
	// Resolve reads the caller's standing and access again, within the
	// transaction that holds the account's lock. Required. It answers
	// Unauthenticated when the credential or the principal has ended.
	Resolve func(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error)
	// Seal and Unseal wrap the keys of persons under the operator's key before
	// they are kept; context is what a key is for, and one that was wrapped for
	// something else does not open. Both or neither. Neither: the keys are kept
	// as they are, and whoever reads the whole database reads the personal
	// fields; for tests and for programs that touch no personal field only.
	Seal   func(plain, context []byte) ([]byte, error)
	Unseal func(sealed, context []byte) ([]byte, error)
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: slog.Default()
}

// Journal commits changes and reads them back. It is safe for concurrent use.
type Journal struct {
	pool    *pgxpool.Pool
	resolve func(context.Context, pg.Querier, sallyport.Caller) (sallyport.Caller, error)
	seal    func(plain, context []byte) ([]byte, error) // nil: persons' keys are kept plain
	unseal  func(sealed, context []byte) ([]byte, error)
	now     func() time.Time
	log     *slog.Logger
	wake    chan struct{}
	denied  denials
}

// New makes a Journal. Run must be running for followers on other copies of
// the service to be woken at once and for denials to be kept.
func New(c Config) (*Journal, error) {
	if c.Pool == nil || c.Resolve == nil {
		return nil, errors.New("journal: Config needs Pool and Resolve")
	}
	if (c.Seal == nil) != (c.Unseal == nil) {
		return nil, errors.New("journal: Config needs both Seal and Unseal, or neither")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Journal{
		pool: c.Pool, resolve: c.Resolve, seal: c.Seal, unseal: c.Unseal, now: c.Now, log: c.Logger,
		wake: make(chan struct{}, 1), denied: denials{counts: map[denialKey]int64{}},
	}, nil
}

// Operation is one request to change something.
type Operation struct {
	// ID makes the request idempotent for its caller: with the same ID it is
	// carried out once. Empty: one is made. At most 128 bytes.
	ID   string
	Type string // "CreateApiKey"
	// Request is what a repetition is compared with: the request's
	// deterministic bytes, without the ID and without secrets.
	Request []byte
	// NewAccount begins the account's journal with this operation.
	NewAccount bool
}

// Committed is an operation that is done.
type Committed struct {
	Account     sallyport.AccountID
	OperationID string
	Type        string
	Target      string // the id that the change set with Tx.Target
	Caller      string
	At          time.Time // UTC, microseconds
	Head        sallyport.Head
	Replayed    bool // done by an earlier request with the same ID; nothing was changed now
}

const maxOperationID = 128

// Commit carries out one change of the account. It locks the account's head,
// answers a repetition of an operation with what was done then, resolves the
// caller anew if the account moved since, runs change, appends the entry and
// moves the head. change checks, in this order: permission, existence,
// resource version, no-op, limits; it may run more than once and must not have
// effects outside the transaction.
//
// When the outcome of the commit is not known (the connection broke), it is
// looked up; when that cannot be done either the answer is Unavailable, and
// asking again with the same operation id is safe.
func (j *Journal) Commit(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, op Operation, change func(*Tx) error) (Committed, error) {
	if len(op.ID) > maxOperationID {
		return Committed{}, sallyport.InvalidField("async_operation_id", "is longer than %d bytes", maxOperationID)
	}
	if op.ID == "" {
		op.ID = sallyport.NewID(sallyport.OperationPrefix)
	}
	for attempt := 0; ; attempt++ {
		done, err := j.try(ctx, caller, account, op, change)
		switch {
		case err == nil:
			j.Wake()
			return done, nil
		case errors.Is(err, errUnknown):
			return j.lookUp(ctx, caller, account, op, err)
		case pg.Retryable(err) && attempt < 5:
			continue
		case errors.Is(err, sallyport.PermissionDenied):
			j.Denied(account, caller, op.Type, err.Error())
		}
		return Committed{}, err
	}
}

// errUnknown wraps a failure of COMMIT itself: it may or may not have happened.
var errUnknown = errors.New("the outcome of the commit is unknown")

func (j *Journal) try(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, op Operation, change func(*Tx) error) (Committed, error) {
	dbtx, err := j.pool.Begin(ctx)
	if err != nil {
		return Committed{}, unavailable(err)
	}
	defer dbtx.Rollback(context.WithoutCancel(ctx))
	head, digest, err := j.lock(ctx, dbtx, account, op.NewAccount)
	if err != nil {
		return Committed{}, err
	}
	requestHash := sha256.Sum256(append([]byte(op.Type+"\x00"), op.Request...))
	if done, found, err := replay(ctx, dbtx, account, caller, op.ID, requestHash, head); err != nil || found {
		if err == nil {
			err = commit(ctx, dbtx)
		}
		return done, err
	}
	if caller.Principal.Kind != sallyport.Operator && caller.Account == account && caller.Head != head {
		if caller, err = j.resolve(ctx, dbtx, caller); err != nil {
			return Committed{}, err
		}
	}
	tx := &Tx{Querier: dbtx, db: dbtx, journal: j, caller: caller, account: account, head: head, digest: digest, now: sallyport.Micros(j.now())}
	if err := change(tx); err != nil {
		return Committed{}, err
	}
	done, err := tx.append(ctx, op, requestHash)
	if err != nil {
		return Committed{}, err
	}
	return done, commit(ctx, dbtx)
}

// commit tells apart a commit that PostgreSQL refused (it is rolled back) from
// one whose outcome is unknown.
func commit(ctx context.Context, tx pgx.Tx) error {
	err := pg.Commit(ctx, tx)
	if err == nil || pg.Retryable(err) || errors.Is(err, pgx.ErrTxCommitRollback) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}

func (j *Journal) lock(ctx context.Context, tx pgx.Tx, account sallyport.AccountID, create bool) (sallyport.Head, object.Digest, error) {
	if create {
		if err := insertHead(ctx, tx, account, sallyport.Micros(j.now())); err != nil {
			return sallyport.Head{}, object.Digest{}, err
		}
	}
	return lockHead(ctx, tx, account)
}

// replay answers an operation that was done before. The caller's next commit
// makes sure that what it found is as durable as a change.
func replay(ctx context.Context, q pg.Querier, account sallyport.AccountID, caller sallyport.Caller, id string, requestHash [32]byte, head sallyport.Head) (Committed, bool, error) {
	e, found, err := operationOf(ctx, q, account, id, callerKey(caller))
	if err != nil || !found {
		return Committed{}, false, err
	}
	if !bytes.Equal(e.requestHash, requestHash[:]) {
		return Committed{}, false, sallyport.InvalidField("async_operation_id", "was used for another request; use a new id for a new request")
	}
	done := e.committed()
	done.Replayed = true
	return done, true, nil
}

// lookUp finds out what became of a commit whose outcome is unknown. Taking
// the account's lock waits until the commit is over, one way or the other.
func (j *Journal) lookUp(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, op Operation, cause error) (Committed, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	unknown := &sallyport.Error{Kind: sallyport.Unavailable, Err: cause,
		Msg: fmt.Sprintf("it is not known whether the change was made; ask again with the operation id %s", op.ID)}
	requestHash := sha256.Sum256(append([]byte(op.Type+"\x00"), op.Request...))
	for {
		done, found, err := j.tryLookUp(ctx, caller, account, op, requestHash)
		switch {
		case err == nil && found:
			j.Wake()
			done.Replayed = false
			return done, nil
		case err == nil:
			return Committed{}, &sallyport.Error{Kind: sallyport.Unavailable, Err: cause, Msg: "the change was not made; try again"}
		}
		select {
		case <-ctx.Done():
			return Committed{}, unknown
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (j *Journal) tryLookUp(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, op Operation, requestHash [32]byte) (Committed, bool, error) {
	tx, err := j.pool.Begin(ctx)
	if err != nil {
		return Committed{}, false, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	head, _, err := lockHead(ctx, tx, account)
	if op.NewAccount && errors.Is(err, sallyport.NotFound) {
		return Committed{}, false, nil
	}
	if err != nil {
		return Committed{}, false, err
	}
	done, found, err := replay(ctx, tx, account, caller, op.ID, requestHash, head)
	if err != nil {
		return Committed{}, false, err
	}
	return done, found, commit(ctx, tx)
}

// Wake tells followers, here and on other copies, that something was
// committed. It is a hint and may get lost; it never blocks.
func (j *Journal) Wake() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Channel is the PostgreSQL notification channel of wake-ups.
const Channel = "sallyport_heads"

// Notify wakes followers on all copies at once: for programs in which Run does
// not run.
func (j *Journal) Notify(ctx context.Context) error { return notify(ctx, j.pool) }

// Run sends wake-ups and keeps denials until the context ends. NOTIFY goes on
// a connection of its own and after the commit: inside the transaction it
// would take a lock that orders all commits of the server.
func (j *Journal) Run(ctx context.Context) error {
	flush, trim := time.NewTicker(2*time.Second), time.NewTicker(time.Hour)
	defer flush.Stop()
	defer trim.Stop()
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			j.flushDenials(final)
			return nil
		case <-j.wake:
			if err := j.Notify(ctx); err != nil && ctx.Err() == nil {
				j.log.WarnContext(ctx, "waking followers", "error", err)
			}
		case <-flush.C:
			j.flushDenials(ctx)
		case <-trim.C:
			j.trimDenials(ctx)
		}
	}
}

func unavailable(err error) error {
	return &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the database cannot be reached; try again", Err: err}
}

// callerKey names the caller in operations: an operation id is the caller's own.
func callerKey(c sallyport.Caller) string { return string(c.Principal.Kind) + ":" + c.Principal.ID }

// NewEpoch begins a new epoch of the account. It is the operator's word, after
// a restore of the database to an older state, that what it now holds is right:
// authorizers that hold a newer history keep the stricter of both until then.
func (j *Journal) NewEpoch(ctx context.Context, caller sallyport.Caller, account sallyport.AccountID, reason string) (Committed, error) {
	if caller.Principal.Kind != sallyport.Operator {
		return Committed{}, sallyport.PermissionDenied.Errorf("only the operator may begin a new epoch")
	}
	return j.Commit(ctx, caller, account, Operation{Type: "NewEpoch", Request: []byte(reason)}, func(tx *Tx) error {
		// Not just the next number: after a second restore of the same backup it
		// would be one that authorizers know already.
		tx.head.Epoch = max(tx.head.Epoch+1, tx.now.Unix())
		tx.Record(Change{Type: "account", ID: string(account), After: map[string]any{"epoch": tx.head.Epoch, "reason": reason}})
		return nil
	})
}

func hashEntry(previous [32]byte, body []byte) [32]byte {
	h := sha256.New()
	h.Write(previous[:])
	h.Write(body)
	return [32]byte(h.Sum(nil))
}

func hexHash(h [32]byte) string { return hex.EncodeToString(h[:]) }
