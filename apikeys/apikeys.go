// Package apikeys holds the API keys of users and service accounts: making,
// rotating and ending them, proving a caller by one, and when each was last
// used. Of a key's token only the SHA-256 is kept; the token is shown once.
package apikeys

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/lastuse"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// CredentialKind is the Kind of a sallyport.Credential that is an API key.
const CredentialKind = "api-key"

// Config of Keys.
type Config struct {
	Journal *journal.Journal // required
	Pages   *page.Signer     // required
	// Standing reads how a principal of the account stands, NotFound if there is
	// none. Required.
	Standing func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (directory.Standing, error)
	// MaxUserKeys and MaxServiceAccountKeys bound the keys of one owner that
	// are neither expired nor retiring; zero: 10 and 20. Of those made within
	// 24 hours, and not deleted since, there may be five times as many.
	MaxUserKeys           int
	MaxServiceAccountKeys int
	MaxLife               time.Duration    // of a key; zero: two years (731 days)
	Now                   func() time.Time // nil: time.Now
	Logger                *slog.Logger     // nil: slog.Default()
}

// Keys makes, changes and checks API keys. It is safe for concurrent use. The
// account is always the caller's.
type Keys struct {
	journal               *journal.Journal
	pool                  *pgxpool.Pool
	pages                 *page.Signer
	standing              func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (directory.Standing, error)
	maxUserKeys           int
	maxServiceAccountKeys int
	maxLife               time.Duration
	now                   func() time.Time
	log                   *slog.Logger
	uses                  *lastuse.Uses
}

// New makes Keys. Run must be running for last uses to be kept and for ended
// keys to go.
func New(c Config) (*Keys, error) {
	if c.Journal == nil || c.Pages == nil || c.Standing == nil {
		return nil, errors.New("apikeys: Config needs Journal, Pages and Standing")
	}
	if c.MaxUserKeys == 0 {
		c.MaxUserKeys = 10
	}
	if c.MaxServiceAccountKeys == 0 {
		c.MaxServiceAccountKeys = 20
	}
	if c.MaxLife == 0 {
		c.MaxLife = 731 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Keys{
		journal: c.Journal, pool: c.Journal.Pool(), pages: c.Pages, standing: c.Standing,
		maxUserKeys: c.MaxUserKeys, maxServiceAccountKeys: c.MaxServiceAccountKeys, maxLife: c.MaxLife,
		now: c.Now, log: c.Logger, uses: lastuse.New("API keys", c.Logger, writeUses(c.Journal.Pool())),
	}, nil
}

// Key is an API key without its secret. Times are UTC, microseconds.
type Key struct {
	Account     sallyport.AccountID
	ID          string // 16 characters of a-z2-7, part of the token
	Owner       sallyport.Principal
	DisplayName string
	Description string
	Disabled    bool
	Limits      sallyport.Limits // below the owner; set when the key is made
	Epoch       int64            // the owner's credential epoch when the key was made
	CreatedBy   string           // principal's id
	Created     time.Time
	Expires     time.Time // cut to microseconds
	Modified    time.Time // zero: never
	Retires     time.Time // zero: was not rotated
	Successor   string    // the key that it was rotated to, "" if none
	LastUsed    time.Time // to the minute, some seconds late; zero: never
	Revision    int64     // the account's revision at which the key last changed
	Ended       bool      // all credentials of the owner from before some moment were ended, this one with them
}

// State is what a key is good for at a moment.
type State string

const (
	Active   State = "active"
	Disabled State = "disabled" // until it is enabled again
	Retiring State = "retiring" // rotated, and good until Retires
	Retired  State = "retired"  // rotated, and no longer good
	Expired  State = "expired"
	Ended    State = "ended" // with all of its owner's credentials
)

// State of the key at a moment. Only Active and Retiring keys let anybody in,
// and only while their owner is active.
func (k Key) State(now time.Time) State {
	switch {
	case k.Ended:
		return Ended
	case !now.Before(k.Expires):
		return Expired
	case !k.Retires.IsZero() && !now.Before(k.Retires):
		return Retired
	case k.Disabled:
		return Disabled
	case !k.Retires.IsZero():
		return Retiring
	}
	return Active
}

// Get reads a key of the caller's account. A principal may read its own keys,
// owners and admins any, and the admin of a project or namespace those of the
// service accounts bound to it.
func (k *Keys) Get(ctx context.Context, caller sallyport.Caller, id string) (Key, error) {
	key, _, err := k.permitted(ctx, k.pool, caller, authz.APIKeyGet, id)
	return key, err
}

// Filter narrows a list; zero fields do not.
type Filter struct {
	Owner     string // principal's id
	OwnerKind sallyport.PrincipalKind
}

// List gives the keys that the caller may read, by ascending id.
func (k *Keys) List(ctx context.Context, caller sallyport.Caller, f Filter, p sallyport.Page) (keys []Key, next string, err error) {
	own := authz.Resource{Account: caller.Account, Owner: caller.Principal}
	if err := authz.Check(caller, authz.APIKeyList, own); err != nil {
		return nil, "", err
	}
	cursor, err := k.pages.Cursor(caller.Account, "api-keys/"+string(f.OwnerKind)+"/"+f.Owner, p)
	if err != nil {
		return nil, "", err
	}
	all := authz.Check(caller, authz.APIKeyGet, authz.Resource{Account: caller.Account}) == nil
	if !all && !administers(caller.Access) {
		// Nothing but his own: the others need not be read.
		if f.Owner != "" && f.Owner != caller.Principal.ID || f.OwnerKind != "" && f.OwnerKind != caller.Principal.Kind {
			return nil, "", nil
		}
		f.Owner = caller.Principal.ID
	}
	owners := ownerCache{}
	for after := cursor.After; ; {
		rows, err := list(ctx, k.pool, caller.Account, f, after, cursor.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, key := range rows {
			owner, err := owners.of(ctx, k, key)
			if err != nil {
				return nil, "", err
			}
			if all || authz.Check(caller, authz.APIKeyGet, resource(caller.Account, key.Owner, owner)) == nil {
				key.Ended = key.ended(owner)
				keys = append(keys, key)
			}
		}
		if len(keys) >= cursor.Limit || len(rows) < cursor.Limit {
			keys, next = page.Cut(cursor, keys[:min(len(keys), cursor.Limit)], func(key Key) string { return key.ID })
			return keys, next, nil
		}
		after = rows[len(rows)-1].ID
	}
}

// administers reports whether the access might give more than the principal's own keys.
func administers(a sallyport.Access) bool {
	for _, p := range a.Namespaces {
		if p == sallyport.PermissionAdmin {
			return true
		}
	}
	for _, r := range a.Projects {
		if r.Has(sallyport.ProjectAdmin) {
			return true
		}
	}
	return false
}

// ownerCache reads each owner once a list.
type ownerCache map[sallyport.Principal]directory.Standing

func (c ownerCache) of(ctx context.Context, k *Keys, key Key) (directory.Standing, error) {
	owner, ok := c[key.Owner]
	if ok {
		return owner, nil
	}
	owner, err := k.ownerOf(ctx, k.pool, key)
	if err == nil {
		c[key.Owner] = owner
	}
	return owner, err
}

// ownerOf reads the key's owner. One that has ended since has the zero Standing,
// under which every key has ended.
func (k *Keys) ownerOf(ctx context.Context, q pg.Querier, key Key) (directory.Standing, error) {
	owner, err := k.standing(ctx, q, key.Account, key.Owner)
	if errors.Is(err, sallyport.NotFound) {
		return directory.Standing{}, nil
	}
	return owner, err
}

func (k Key) ended(owner directory.Standing) bool {
	return owner.Status == "" || owner.Epoch != k.Epoch
}

// resource is what permission on keys of the principal is asked for: the
// admins of the project or namespace that it is bound to manage them.
func resource(account sallyport.AccountID, p sallyport.Principal, s directory.Standing) authz.Resource {
	return authz.Resource{Account: account, Project: s.Project, Namespace: s.Namespace, Owner: p}
}

// permitted reads a key that the caller may do the action to. A caller without
// access to the account is told that there is no such account. The keys of a
// user who holds the role owner are changed by himself and by owners.
func (k *Keys) permitted(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, id string) (Key, directory.Standing, error) {
	if err := authz.Check(caller, authz.IdentityGet, authz.Resource{Account: caller.Account}); err != nil {
		return Key{}, directory.Standing{}, err
	}
	stored, err := find(ctx, q, caller.Account, id)
	if err != nil {
		return Key{}, directory.Standing{}, err
	}
	key := stored.Key
	owner, err := k.ownerOf(ctx, q, key)
	if err != nil {
		return Key{}, directory.Standing{}, err
	}
	key.Ended = key.ended(owner)
	if a == authz.APIKeyRotate && caller.Principal == key.Owner && caller.Credential == (sallyport.Credential{Kind: CredentialKind, ID: id}) {
		a = authz.APIKeyRotateSelf
	}
	if err := authz.Check(caller, a, resource(caller.Account, key.Owner, owner)); err != nil {
		return Key{}, directory.Standing{}, err
	}
	if a != authz.APIKeyGet && owner.Owner && caller.Principal != key.Owner {
		err = authz.Check(caller, authz.OwnerChange, authz.Resource{Account: caller.Account})
	}
	return key, owner, err
}

// Objects rebuilds the account's replicated keys from the table, by id.
func (k *Keys) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	rows, err := allStored(ctx, q, account)
	if err != nil {
		return nil, err
	}
	objects := make([]object.Object, 0, len(rows))
	for _, s := range rows {
		objects = append(objects, object.Object{Kind: object.KindKey, ID: s.ID, Data: object.Encode(s.object())})
	}
	return objects, nil
}

// object is what authorizers know of the key.
func (s stored) object() object.Key {
	o := object.Key{
		Owner: s.Owner.ID, Hash: s.hash, Status: object.Active, Epoch: s.Epoch,
		Expires: s.Expires.UnixMicro(), ReadOnly: s.Limits.ReadOnly,
	}
	if s.Disabled {
		o.Status = object.Disabled
	}
	if !s.Retires.IsZero() {
		o.Retires = s.Retires.UnixMicro()
	}
	for _, n := range s.Limits.Namespaces {
		o.Namespaces = append(o.Namespaces, string(n))
	}
	for _, p := range s.Limits.Sources {
		o.Sources = append(o.Sources, p.String())
	}
	return o
}
