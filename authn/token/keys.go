package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	// rotateAfter is how long a key signs. The next one is published all that time.
	rotateAfter = 30 * 24 * time.Hour
	// keepRetiring is how long a key stays published after it signed last: until
	// every token of it has expired, whatever the clocks are a little off.
	keepRetiring = maxLife + 10*time.Minute
	// keepRevoked is how long it can be seen that a key was revoked.
	keepRevoked = 30 * 24 * time.Hour
)

// KeyState is where a signing key stands.
type KeyState string

const (
	KeyNext     KeyState = "next"     // published, not used yet
	KeyActive   KeyState = "active"   // signs
	KeyRetiring KeyState = "retiring" // published until the last token that it signed has expired
	KeyRevoked  KeyState = "revoked"  // what it signed is dead
)

// SigningKey is a key that signs tokens. Times are UTC, microseconds.
type SigningKey struct {
	ID        string // kid: the RFC 7638 thumbprint
	State     KeyState
	Issuer    string
	Audiences []string
	Created   time.Time
	Activated time.Time // zero: not yet
	Retired   time.Time // zero: not yet
	Revoked   time.Time // zero: not
	Problem   string    // why it cannot sign although it should; "": it can
}

// errNothingDue keeps an empty entry out of the journal.
var errNothingDue = errors.New("no token key is due")

// Keys lists the signing keys, the newest first.
func (i *Issuer) Keys(ctx context.Context) ([]SigningKey, error) {
	rows, err := tokenKeys(ctx, i.pool)
	if err != nil {
		return nil, err
	}
	keys := make([]SigningKey, 0, len(rows))
	for _, row := range rows {
		key := row.SigningKey
		if key.State == KeyActive || key.State == KeyNext {
			if _, err := i.open(row); err != nil {
				key.Problem = "its private key does not open with the operator's key, or is another's"
			}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// RotateKey makes the next key the active one now, and another the next. The
// caller is the operator of account 00000.
func (i *Issuer) RotateKey(ctx context.Context, caller sallyport.Caller) (SigningKey, journal.Committed, error) {
	if err := i.operatorOnly(caller); err != nil {
		return SigningKey{}, journal.Committed{}, err
	}
	var active SigningKey
	done, err := i.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: "RotateTokenKey"}, func(tx *journal.Tx) error {
		rows, err := tokenKeys(ctx, tx)
		if err != nil {
			return err
		}
		if err := i.opens(rows); err != nil {
			return err
		}
		active, err = i.advance(ctx, tx, rows)
		tx.Target(active.ID)
		return err
	})
	return active, done, err
}

// RevokeKey ends a key at once, and with it all tokens that it signed, on all
// authorizers: the commit's receipt says when. If it was the active one the next
// takes its place. The caller is the operator of account 00000.
func (i *Issuer) RevokeKey(ctx context.Context, caller sallyport.Caller, id string) (SigningKey, journal.Committed, error) {
	if err := i.operatorOnly(caller); err != nil {
		return SigningKey{}, journal.Committed{}, err
	}
	var revoked SigningKey
	done, err := i.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: "RevokeTokenKey", Request: []byte(id)}, func(tx *journal.Tx) error {
		rows, err := tokenKeys(ctx, tx)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(rows, func(r keyRow) bool { return r.ID == id })
		switch {
		case at < 0:
			return sallyport.NotFound.Errorf("there is no such key; see: sallyportd token-key list")
		case rows[at].State == KeyRevoked:
			return sallyport.Conflict.Errorf("the key was revoked at %s", rows[at].Revoked.Format(time.RFC3339))
		}
		tx.Target(id)
		before := rows[at]
		row := before
		row.State, row.Revoked, row.sealed = KeyRevoked, tx.Now(), nil
		revoked = row.SigningKey
		if err := i.putKey(ctx, tx, before, row); err != nil {
			return err
		}
		rows[at] = row
		switch before.State {
		case KeyActive:
			_, err = i.advance(ctx, tx, rows)
		case KeyNext:
			_, err = i.makeKey(ctx, tx, KeyNext)
		}
		return err
	})
	return revoked, done, err
}

func (i *Issuer) operatorOnly(caller sallyport.Caller) error {
	if caller.Principal.Kind != sallyport.Operator || caller.Account != sallyport.SystemAccount {
		return sallyport.PermissionDenied.Errorf("only the operator may change the keys of tokens")
	}
	if i.url == "" {
		return errNoTokens
	}
	return nil
}

// keepKeys does what is due: there is an active key and a next one, the active is
// not older than 30 days, and what has retired goes. reconfigured asks for a new
// active key when the one there is was made for another issuer or other audiences.
// Several may run at once: one of them does it.
func (i *Issuer) keepKeys(ctx context.Context, reconfigured bool) error {
	if i.url == "" {
		return nil
	}
	rows, err := tokenKeys(ctx, i.pool)
	if err != nil {
		return err
	}
	if !i.due(rows, sallyport.Micros(i.now()), reconfigured) {
		return nil
	}
	_, err = i.journal.Commit(ctx, service(sallyport.SystemAccount), sallyport.SystemAccount, journal.Operation{Type: "KeepTokenKeys"}, func(tx *journal.Tx) error {
		rows, err := tokenKeys(ctx, tx)
		if err != nil {
			return err
		}
		if !i.due(rows, tx.Now(), reconfigured) {
			return errNothingDue
		}
		if err := i.opens(rows); err != nil {
			return err
		}
		for _, row := range rows {
			if row.over(tx.Now()) {
				if err := i.forgetKey(ctx, tx, row); err != nil {
					return err
				}
			}
		}
		switch active := inState(rows, KeyActive); {
		case active == nil || i.stale(*active, tx.Now(), reconfigured):
			_, err = i.advance(ctx, tx, rows)
		case inState(rows, KeyNext) == nil:
			_, err = i.makeKey(ctx, tx, KeyNext)
		}
		return err
	})
	if errors.Is(err, errNothingDue) {
		return nil
	}
	return err
}

// opens fails when the operator's key is another than the one that the keys there
// are were sealed with: who has that must not make keys that nobody else can use.
// RevokeKey works nevertheless, and so gets rid of keys that nobody can open.
func (i *Issuer) opens(rows []keyRow) error {
	for _, row := range rows {
		if row.State != KeyActive && row.State != KeyNext {
			continue
		}
		if _, err := i.open(row); err != nil {
			return &sallyport.Error{Kind: sallyport.Conflict, Err: err, Msg: "the token key " + row.ID +
				" does not open with this operator's key; give the one that the service has, or revoke the key if that is lost"}
		}
	}
	return nil
}

func (i *Issuer) due(rows []keyRow, now time.Time, reconfigured bool) bool {
	active := inState(rows, KeyActive)
	return active == nil || inState(rows, KeyNext) == nil || i.stale(*active, now, reconfigured) ||
		slices.ContainsFunc(rows, func(r keyRow) bool { return r.over(now) })
}

// stale reports whether the active key's time is over.
func (i *Issuer) stale(active keyRow, now time.Time, reconfigured bool) bool {
	return !now.Before(active.Activated.Add(rotateAfter)) ||
		reconfigured && (active.Issuer != i.url || !slices.Equal(active.Audiences, i.audiences))
}

// over reports whether the key can be forgotten.
func (r keyRow) over(now time.Time) bool {
	return r.State == KeyRetiring && !now.Before(r.Retired.Add(keepRetiring)) || r.State == KeyRevoked && !now.Before(r.Revoked.Add(keepRevoked))
}

func inState(rows []keyRow, s KeyState) *keyRow {
	if at := slices.IndexFunc(rows, func(r keyRow) bool { return r.State == s }); at >= 0 {
		return &rows[at]
	}
	return nil
}

// advance retires the active key, makes the next one active and another the next.
func (i *Issuer) advance(ctx context.Context, tx *journal.Tx, rows []keyRow) (SigningKey, error) {
	if active := inState(rows, KeyActive); active != nil {
		retiring := *active
		retiring.State, retiring.Retired, retiring.sealed = KeyRetiring, tx.Now(), nil
		if err := i.putKey(ctx, tx, *active, retiring); err != nil {
			return SigningKey{}, err
		}
	}
	next := inState(rows, KeyNext)
	if next == nil {
		active, err := i.makeKey(ctx, tx, KeyActive)
		if err != nil {
			return SigningKey{}, err
		}
		_, err = i.makeKey(ctx, tx, KeyNext)
		return active.SigningKey, err
	}
	active := *next
	active.State, active.Activated, active.Issuer, active.Audiences = KeyActive, tx.Now(), i.url, i.audiences
	if err := i.putKey(ctx, tx, *next, active); err != nil {
		return SigningKey{}, err
	}
	_, err := i.makeKey(ctx, tx, KeyNext)
	return active.SigningKey, err
}

func (i *Issuer) makeKey(ctx context.Context, tx *journal.Tx, s KeyState) (keyRow, error) {
	key, id, err := newKey()
	if err != nil {
		return keyRow{}, err
	}
	row := keyRow{SigningKey: SigningKey{State: s, Issuer: i.url, Audiences: i.audiences, Created: tx.Now()}}
	if s == KeyActive {
		row.Activated = tx.Now()
	}
	row.ID = id
	if row.public, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return keyRow{}, fmt.Errorf("encoding a token key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return keyRow{}, fmt.Errorf("encoding a token key: %w", err)
	}
	defer clear(der)
	if row.sealed, err = i.vault.Seal(der, keyContext(row.ID)); err != nil {
		return keyRow{}, err
	}
	return row, i.putKey(ctx, tx, keyRow{}, row)
}

func keyContext(id string) []byte { return []byte("token-key/" + id) }

// newKey makes a key with an id that a command line does not take for a flag.
func newKey() (*ecdsa.PrivateKey, string, error) {
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, "", fmt.Errorf("making a token key: %w", err)
		}
		id, err := keyID(&key.PublicKey)
		if err != nil || !strings.HasPrefix(id, "-") {
			return key, id, err
		}
	}
}

// keyID is the RFC 7638 thumbprint.
func keyID(public *ecdsa.PublicKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("naming a token key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// putKey keeps the key as it now is, makes it known to authorizers and records it.
// A zero before is a new key.
func (i *Issuer) putKey(ctx context.Context, tx *journal.Tx, before, after keyRow) error {
	after.revision = tx.Revision()
	if err := upsertKey(ctx, tx, after); err != nil {
		return err
	}
	change := journal.Change{Type: "token-key", ID: after.ID, After: after.recorded()}
	if before.ID != "" {
		change.Before = before.recorded()
	}
	tx.Record(change)
	if after.State == KeyRevoked {
		return tx.Remove(ctx, object.KindTokenKey, after.ID)
	}
	return tx.Put(ctx, object.KindTokenKey, after.ID, after.object())
}

func (i *Issuer) forgetKey(ctx context.Context, tx *journal.Tx, row keyRow) error {
	if err := deleteKey(ctx, tx, row.ID); err != nil {
		return err
	}
	tx.Record(journal.Change{Type: "token-key", ID: row.ID, Before: row.recorded()})
	return tx.Remove(ctx, object.KindTokenKey, row.ID)
}

func (r keyRow) object() []byte {
	return object.Encode(object.TokenKey{Key: r.public, Issuer: r.Issuer, Audiences: r.Audiences})
}

func (r keyRow) recorded() map[string]any {
	return map[string]any{"state": r.State, "issuer": r.Issuer, "audiences": r.Audiences}
}

// check is the key as tokens are checked with it.
func (r keyRow) check() (credential.TokenKey, error) {
	public, err := x509.ParsePKIXPublicKey(r.public)
	if err != nil {
		return credential.TokenKey{}, fmt.Errorf("reading the token key %s: %w", r.ID, err)
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return credential.TokenKey{}, fmt.Errorf("the token key %s is not an ECDSA key", r.ID)
	}
	return credential.TokenKey{Public: key, Issuer: r.Issuer, Audiences: r.Audiences}, nil
}

// signers keeps the key that was opened last.
type signers struct {
	mu     sync.Mutex
	id     string
	signer crypto.Signer
}

// signer makes the active key usable.
func (i *Issuer) signer(row keyRow) (crypto.Signer, error) {
	i.signers.mu.Lock()
	defer i.signers.mu.Unlock()
	if i.signers.id == row.ID {
		return i.signers.signer, nil
	}
	signer, err := i.open(row)
	if err == nil {
		i.signers.id, i.signers.signer = row.ID, signer
	}
	return signer, err
}

// open is the one place that opens a stored key: one that is kept elsewhere (a
// KMS) would be reached from here. It fails when the key does not open or is not
// the one of the row.
func (i *Issuer) open(row keyRow) (crypto.Signer, error) {
	der, err := i.vault.Open(row.sealed, keyContext(row.ID))
	if err != nil {
		return nil, fmt.Errorf("opening the token key %s: %w", row.ID, err)
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("the token key %s cannot be read", row.ID) // the cause might say something of the key
	}
	if id, err := keyID(&key.PublicKey); err != nil || id != row.ID {
		return nil, fmt.Errorf("the token key %s is another's", row.ID)
	}
	return key, nil
}

// activeKey is the key that signs now. Its error is Unavailable when there is none.
func activeKey(ctx context.Context, q pg.Querier) (keyRow, error) {
	rows, err := tokenKeys(ctx, q)
	if err != nil {
		return keyRow{}, err
	}
	active := inState(rows, KeyActive)
	if active == nil {
		return keyRow{}, sallyport.Unavailable.Errorf("there is no key yet that signs tokens; try again")
	}
	return *active, nil
}

// keyObjects rebuilds what authorizers know of the keys, by id.
func keyObjects(ctx context.Context, q pg.Querier) ([]object.Object, error) {
	rows, err := tokenKeys(ctx, q)
	if err != nil {
		return nil, err
	}
	var objects []object.Object
	for _, row := range rows {
		if row.State != KeyRevoked {
			objects = append(objects, object.Object{Kind: object.KindTokenKey, ID: row.ID, Data: row.object()})
		}
	}
	return objects, nil
}
