package apikeys

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Authenticate proves a caller by the token of a key. The caller has no access
// yet. Every refusal is Unauthenticated; until the token has proved to be the
// key's, all refusals say the same, so that nobody learns which keys there are.
// A malformed or mistyped token does not reach the database.
func (k *Keys) Authenticate(ctx context.Context, q pg.Querier, token string, from netip.Addr) (sallyport.Caller, error) {
	claimed, hash, err := credential.ParseAPIKey(token)
	if err != nil {
		return sallyport.Caller{}, err
	}
	s, err := find(ctx, q, claimed.Account, claimed.ID)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return sallyport.Caller{}, err
	}
	if subtle.ConstantTimeCompare(hash[:], s.hash[:]) != 1 || err != nil {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("there is no such API key: it was deleted, or never existed; create a new one")
	}
	return k.stand(ctx, q, s.Key, from)
}

// Reauthenticate finds out whether a caller that was proved by a key earlier
// still is, within the transaction q. The caller it gives has no access yet.
func (k *Keys) Reauthenticate(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	s, err := find(ctx, q, caller.Account, caller.Credential.ID)
	if errors.Is(err, sallyport.NotFound) || err == nil && s.Owner != caller.Principal {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the API key was deleted; create a new one")
	}
	if err != nil {
		return sallyport.Caller{}, err
	}
	return k.stand(ctx, q, s.Key, caller.From)
}

// Ends is when a key ends by itself; it may be ended before. NotFound if there is none.
func (k *Keys) Ends(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (time.Time, error) {
	s, err := find(ctx, q, account, id)
	if err == nil && !s.Retires.IsZero() && s.Retires.Before(s.Expires) {
		return s.Retires, nil
	}
	return s.Expires, err
}

// stand checks what may have ended the key since it was made.
func (k *Keys) stand(ctx context.Context, q pg.Querier, key Key, from netip.Addr) (sallyport.Caller, error) {
	owner, err := k.ownerOf(ctx, q, key)
	if err != nil {
		return sallyport.Caller{}, err
	}
	key.Ended = key.ended(owner)
	if err := key.usable(owner, from.Unmap(), k.now()); err != nil {
		return sallyport.Caller{}, err
	}
	return sallyport.Caller{
		Account: key.Account, Principal: key.Owner, Limits: key.Limits, From: from,
		Credential: sallyport.Credential{Kind: CredentialKind, ID: key.ID},
	}, nil
}

// usable says why the key lets nobody in. Only the bearer of the key reads it.
func (k Key) usable(owner directory.Standing, from netip.Addr, now time.Time) error {
	if owner.Status != object.Active && owner.Status != "" {
		return sallyport.Unauthenticated.Errorf("the %s that owns the API key %s is %s; ask an owner or admin of the account", noun(k.Owner), k.ID, owner.Status)
	}
	switch k.State(now) {
	case Active, Retiring:
	case Disabled:
		return sallyport.Unauthenticated.Errorf("the API key %s is disabled; have it enabled, or use another one", k.ID)
	case Expired:
		return sallyport.Unauthenticated.Errorf("the API key %s expired at %s; create a new one", k.ID, k.Expires.Format(time.RFC3339))
	case Retired:
		return sallyport.Unauthenticated.Errorf("the API key %s was replaced by %s and retired at %s; use that one", k.ID, k.Successor, k.Retires.Format(time.RFC3339))
	case Ended:
		return sallyport.Unauthenticated.Errorf("the API key %s was ended together with all credentials of its owner; create a new one", k.ID)
	}
	switch {
	case owner.Account == object.Disabled:
		return sallyport.Unauthenticated.Errorf("the account %s is closed", k.Account)
	case k.Limits.Sources != nil && !slices.ContainsFunc(k.Limits.Sources, func(p netip.Prefix) bool { return p.Contains(from) }):
		return sallyport.Unauthenticated.Errorf("the API key %s may not be used from the address %s; use it from the networks that it is limited to", k.ID, from)
	}
	return nil
}
