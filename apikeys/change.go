package apikeys

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// Made is a key together with its token, which nobody can read again.
type Made struct {
	Key   Key
	Token credential.Secret
}

// Create makes a key. Everybody may make keys for himself; owners and admins
// for any service account; the admin of a project or namespace for the service
// accounts bound to it. The keys of an owner are limited: Conflict when there
// are too many, Exhausted when too many were made in a day. A repeated
// operation is AlreadyExists, because the token cannot be shown again.
func (k *Keys) Create(ctx context.Context, caller sallyport.Caller, op journal.Operation, p CreateParams) (Made, journal.Committed, error) {
	var made Made
	done, err := k.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		if err := p.check(tx.Now(), k.maxLife); err != nil {
			return err
		}
		owner, err := k.mayCreate(ctx, tx, p.Owner)
		if err != nil {
			return err
		}
		if err := k.checkLimit(ctx, tx, p.Owner, owner.Epoch, false); err != nil {
			return err
		}
		made, err = k.make(ctx, tx, p, owner.Epoch)
		tx.Target(made.Key.ID)
		return err
	})
	return onlyOnce(made, done, err)
}

// onlyOnce turns a repeated operation into AlreadyExists. That the journal
// found another key than the one just made is a repetition too: of two at once.
func onlyOnce(made Made, done journal.Committed, err error) (Made, journal.Committed, error) {
	if err != nil {
		return Made{}, journal.Committed{}, err
	}
	if done.Replayed || done.Target != made.Key.ID {
		return Made{}, done, sallyport.AlreadyExists.Errorf(
			"the API key %s was made by an earlier request with this operation id, and its token cannot be shown again; delete it and create a new one", done.Target)
	}
	return made, done, nil
}

// mayCreate checks the caller's permission to make keys of the owner, and that
// the owner can have any.
func (k *Keys) mayCreate(ctx context.Context, tx *journal.Tx, p sallyport.Principal) (directory.Standing, error) {
	owner, err := k.standing(ctx, tx, tx.Account(), p)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return directory.Standing{}, err
	}
	if denied := authz.Check(tx.Caller(), authz.APIKeyCreate, resource(tx.Account(), p, owner)); denied != nil {
		return directory.Standing{}, denied
	}
	switch {
	case err != nil:
		return directory.Standing{}, &sallyport.Error{Kind: sallyport.NotFound, Field: "spec.owner_id", Msg: "there is no such " + noun(p) + " in this account"}
	case owner.Status != object.Active:
		return directory.Standing{}, &sallyport.Error{Kind: sallyport.Conflict, Field: "spec.owner_id", Msg: "the " + noun(p) + " is " + string(owner.Status) + " and cannot have new keys"}
	}
	return owner, nil
}

func noun(p sallyport.Principal) string {
	if p.Kind == sallyport.User {
		return "user"
	}
	return "service account"
}

// checkLimit counts the owner's good keys, inside the account's lock. Retiring
// ones do not count, so that whoever has all his keys can rotate them; a
// rotation is refused only when they, too, have become too many. Keys that have
// ended keep their rows for a while, so their making is limited by the day.
func (k *Keys) checkLimit(ctx context.Context, tx *journal.Tx, p sallyport.Principal, epoch int64, rotation bool) error {
	most := k.maxServiceAccountKeys
	if p.Kind == sallyport.User {
		most = k.maxUserKeys
	}
	n, err := countKeys(ctx, tx, tx.Account(), p.ID, epoch, tx.Now())
	switch {
	case err != nil:
		return err
	case !rotation && n.good >= most:
		return sallyport.Conflict.Errorf("the %s has %d API keys that are not expired, and may have %d; delete one that is not used any more", noun(p), n.good, most)
	case rotation && n.good+n.retiring >= 2*most:
		return sallyport.Conflict.Errorf("the %s has %d API keys that are still retiring; delete one, or wait until one has retired", noun(p), n.retiring)
	case n.today >= 5*most:
		return sallyport.Exhausted.Errorf("the %s had %d API keys made within 24 hours, and may have %d; delete those that have ended, or wait", noun(p), n.today, 5*most)
	}
	return nil
}

// make inserts a key, puts its object and records it.
func (k *Keys) make(ctx context.Context, tx *journal.Tx, p CreateParams, epoch int64) (Made, error) {
	id := sallyport.NewID("")
	token, hash := credential.NewAPIKey(tx.Account(), id)
	s := stored{hash: hash, Key: Key{
		Account: tx.Account(), ID: id, Owner: p.Owner, DisplayName: p.DisplayName, Description: p.Description,
		Disabled: p.Disabled, Limits: p.Limits, Epoch: epoch, CreatedBy: tx.Caller().Principal.ID,
		Created: tx.Now(), Expires: p.Expires, Revision: tx.Revision(),
	}}
	if err := insert(ctx, tx, s); err != nil {
		return Made{}, err
	}
	return Made{s.Key, token}, k.publish(ctx, tx, Key{}, s)
}

// publish puts the key's object and records the change from before, which is
// zero for a new key.
func (k *Keys) publish(ctx context.Context, tx *journal.Tx, before Key, s stored) error {
	if err := tx.Put(ctx, object.KindKey, s.ID, object.Encode(s.object())); err != nil {
		return err
	}
	return record(ctx, tx, before, s.Key)
}

// Update changes the names of a key, disables or enables it. revision is what
// the client has seen, zero for whatever it is now. A user may update his own
// keys; otherwise it is as for Create, but a service account's right to make
// keys for itself does not reach this far, and the keys of an owner of the
// account are for owners.
func (k *Keys) Update(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, p UpdateParams) (Key, journal.Committed, error) {
	var key Key
	done, err := k.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		before, _, err := k.permitted(ctx, tx, tx.Caller(), authz.APIKeyUpdate, id)
		if err != nil {
			return err
		}
		if err := before.stale(revision); err != nil {
			return err
		}
		if err := p.check(before, tx.Now()); err != nil {
			return err
		}
		tx.Target(id)
		after, err := update(ctx, tx, change{id: id, displayName: p.DisplayName, description: p.Description, disabled: p.Disabled,
			retires: before.Retires, successor: before.Successor})
		key = after.Key
		if err != nil {
			return err
		}
		return k.publish(ctx, tx, before, after)
	})
	if err != nil || !done.Replayed {
		return key, done, err
	}
	// A repetition is answered as it was even if the key is gone by now.
	s, err := find(ctx, k.pool, done.Account, done.Target)
	if errors.Is(err, sallyport.NotFound) {
		return Key{Account: done.Account, ID: done.Target}, done, nil
	}
	return s.Key, done, err
}

// stale answers Conflict when the client has seen another revision.
func (k Key) stale(seen int64) error {
	if seen == 0 || seen == k.Revision {
		return nil
	}
	return &sallyport.Error{Kind: sallyport.Conflict, Field: "resource_version",
		Msg: "the API key has changed since it was read; read it again and repeat the change"}
}

// Delete ends a key for ever. revision and permission are as for Update.
func (k *Keys) Delete(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64) (journal.Committed, error) {
	return k.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		key, _, err := k.permitted(ctx, tx, tx.Caller(), authz.APIKeyDelete, id)
		if err != nil {
			return err
		}
		if err := key.stale(revision); err != nil {
			return err
		}
		tx.Target(id)
		if err := remove(ctx, tx, tx.Account(), id); err != nil {
			return err
		}
		return k.ended(ctx, tx, key)
	})
}

func (k *Keys) ended(ctx context.Context, tx *journal.Tx, key Key) error {
	if err := tx.Remove(ctx, object.KindKey, key.ID); err != nil {
		return err
	}
	return record(ctx, tx, key, Key{})
}

// RemoveOwned ends all keys of a principal (its id) inside the change that ends
// the principal.
func (k *Keys) RemoveOwned(ctx context.Context, tx *journal.Tx, owner string) error {
	keys, err := removeOwned(ctx, tx, tx.Account(), owner)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := k.ended(ctx, tx, key); err != nil {
			return err
		}
	}
	return nil
}

// Rotate makes the successor of a key, with the same owner and limits, and
// retires the old key after an overlap. Every key may rotate itself. A key that
// is not good any more, or was rotated already, cannot be rotated (Conflict).
func (k *Keys) Rotate(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, p RotateParams) (Made, journal.Committed, error) {
	var made Made
	done, err := k.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		old, owner, err := k.permitted(ctx, tx, tx.Caller(), authz.APIKeyRotate, id)
		if err != nil {
			return err
		}
		switch state := old.State(tx.Now()); {
		case owner.Status != object.Active:
			return sallyport.Conflict.Errorf("the %s that owns the key is %s and cannot have new keys", noun(old.Owner), owner.Status)
		case state == Retiring || state == Retired:
			return sallyport.Conflict.Errorf("the API key is %s already; rotate its successor %s", state, old.Successor)
		case state != Active:
			return sallyport.Conflict.Errorf("the API key is %s and cannot be rotated; create another one", state)
		}
		self := tx.Caller().Credential == sallyport.Credential{Kind: CredentialKind, ID: id}
		params, err := p.successor(old, tx.Now(), k.maxLife, self)
		if err != nil {
			return err
		}
		if err := k.checkLimit(ctx, tx, old.Owner, owner.Epoch, true); err != nil {
			return err
		}
		if made, err = k.make(ctx, tx, params, owner.Epoch); err != nil {
			return err
		}
		tx.Target(made.Key.ID)
		return k.retire(ctx, tx, old, made.Key.ID, p.Overlap)
	})
	return onlyOnce(made, done, err)
}

// retire lets the old key go after the overlap. Without one it is disabled as
// well, so that its end does not hang on the authorizers' clocks.
func (k *Keys) retire(ctx context.Context, tx *journal.Tx, old Key, successor string, overlap time.Duration) error {
	retires := old.Expires
	if overlap < old.Expires.Sub(tx.Now()) {
		retires = sallyport.Micros(tx.Now().Add(overlap))
	}
	after, err := update(ctx, tx, change{id: old.ID, displayName: old.DisplayName, description: old.Description, disabled: overlap == 0,
		retires: retires, successor: successor})
	if err != nil {
		return err
	}
	return k.publish(ctx, tx, old, after)
}
