package directory

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/journal"
)

// User is a person's membership in an account.
type User struct {
	ID     string
	Email  string // as it was given; compared without regard to case
	Status object.Status
	Access Access
	Epoch  int64 // credential epoch: credentials made under another one are dead
	// Invited is when the invitation was made, InvitationExpires until when it
	// can be accepted.
	Invited           time.Time
	InvitationExpires time.Time
	Stamp
}

// UserParams is what a client says of a user.
type UserParams struct {
	Email  string // never changes; empty in an update: kept
	Access Access
}

const invitationLife = 7 * 24 * time.Hour

func (u User) put(ctx context.Context, tx *journal.Tx) error {
	return tx.Put(ctx, object.KindPrincipal, u.ID, object.Encode(u.object()))
}

func (u User) object() object.Principal {
	return object.Principal{Kind: sallyport.User, Status: u.Status, Epoch: u.Epoch}
}

// record is the user for the audit record; the address only sealed.
func (u User) record(ctx context.Context, tx *journal.Tx) (map[string]any, error) {
	email, err := tx.Seal(ctx, u.ID, u.Email)
	if err != nil {
		return nil, err
	}
	return map[string]any{"email": email, "status": u.Status, "access": u.Access.record(), "credential_epoch": u.Epoch}, nil
}

func recordUser(ctx context.Context, tx *journal.Tx, before, after *User) error {
	c := journal.Change{Type: "user"}
	for _, side := range []struct {
		user *User
		into *any
	}{{before, &c.Before}, {after, &c.After}} {
		if side.user == nil {
			continue
		}
		r, err := side.user.record(ctx, tx)
		if err != nil {
			return err
		}
		c.ID, *side.into = side.user.ID, r
	}
	tx.Target(c.ID)
	tx.Record(c)
	return nil
}

// CreateUser invites a person. He counts as an active user at once.
func (d *Directory) CreateUser(ctx context.Context, caller sallyport.Caller, op journal.Operation, p UserParams) (User, journal.Committed, error) {
	return commit(ctx, d, caller, op, readUser, func(tx *journal.Tx) (User, error) {
		if err := check(tx.Caller(), authz.UserCreate); err != nil {
			return User{}, err
		}
		if err := mayGiveRole(tx.Caller(), 0, p.Access.Role); err != nil {
			return User{}, err
		}
		return d.createUser(ctx, tx, p)
	})
}

// createUser is CreateUser after the question who may.
func (d *Directory) createUser(ctx context.Context, tx *journal.Tx, p UserParams) (User, error) {
	if err := validEmail("spec.email", p.Email); err != nil {
		return User{}, err
	}
	count, err := countUsers(ctx, tx, tx.Account())
	if err != nil {
		return User{}, err
	}
	u := User{ID: sallyport.NewID(sallyport.UserPrefix), Email: p.Email, Status: object.Active, Epoch: 1,
		Invited: tx.Now(), InvitationExpires: tx.Now().Add(invitationLife), Stamp: newStamp(tx)}
	taken, err := emailTaken(ctx, tx, tx.Account(), u.Email)
	if err != nil {
		return User{}, err
	}
	if taken {
		return User{}, sallyport.AlreadyExists.Errorf("a user with this e-mail address exists in this account")
	}
	if err := atLimit(count, d.maxUsers, "users"); err != nil {
		return User{}, err
	}
	if err := insertUser(ctx, tx, tx.Account(), u); err != nil {
		return User{}, err
	}
	if _, err := setAccess(ctx, tx, holder{}, u.ID, p.Access); err != nil {
		return User{}, err
	}
	if u, err = readUser(ctx, tx, tx.Account(), u.ID); err != nil {
		return User{}, err
	}
	if err := recordUser(ctx, tx, nil, &u); err != nil {
		return User{}, err
	}
	return u, u.put(ctx, tx)
}

// mayGiveRole checks that the caller may make a direct account role of before
// into after: owners are changed by owners, and only they make owners and
// finance admins.
func mayGiveRole(caller sallyport.Caller, before, after sallyport.AccountRole) error {
	if before == sallyport.RoleOwner {
		if err := check(caller, authz.OwnerChange); err != nil {
			return err
		}
	}
	switch {
	case after == before:
		return nil
	case after == sallyport.RoleOwner:
		return check(caller, authz.OwnerGrant)
	case after == sallyport.RoleFinanceAdmin:
		return check(caller, authz.FinanceAdminGrant)
	}
	return nil
}

// keepsOwner answers Conflict when the change took the account's last active
// owner away. Only users that hold the role directly count: a group may empty.
func keepsOwner(ctx context.Context, tx *journal.Tx, before User) error {
	if before.Access.Role != sallyport.RoleOwner || before.Status != object.Active {
		return nil
	}
	count, err := countOwners(ctx, tx, tx.Account())
	if err == nil && count == 0 {
		err = sallyport.Conflict.Errorf("this is the last active owner of the account; make another user an owner first")
	}
	return err
}

// User reads one user.
func (d *Directory) User(ctx context.Context, caller sallyport.Caller, id string) (User, error) {
	r := authz.Resource{Account: caller.Account, Owner: sallyport.Principal{Kind: sallyport.User, ID: id}}
	if err := authz.Check(caller, authz.UserGet, r); err != nil {
		return User{}, err
	}
	return readUser(ctx, d.pool, caller.Account, id)
}

// UserFilter narrows a list; empty fields do not.
type UserFilter struct {
	Email     string
	Namespace string // name: those who have access to it, directly or not
}

// Users lists users by id.
func (d *Directory) Users(ctx context.Context, caller sallyport.Caller, f UserFilter, p sallyport.Page) ([]User, string, error) {
	if err := check(caller, authz.UserList); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, fmt.Sprintf("users %q %q", f.Email, f.Namespace), p)
	if err != nil {
		return nil, "", err
	}
	in, err := d.filterNamespace(ctx, caller.Account, f.Namespace)
	if err != nil {
		return nil, "", err
	}
	users, err := readUsers(ctx, d.pool, caller.Account, f.Email, in, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	users, next := page.Cut(cursor, users, func(u User) string { return u.ID })
	return users, next, nil
}

// UpdateUser replaces a user's direct access. revision is the one that the
// client has seen.
func (d *Directory) UpdateUser(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, p UserParams) (User, journal.Committed, error) {
	return commit(ctx, d, caller, op, readUser, func(tx *journal.Tx) (User, error) {
		before, err := userFor(ctx, tx, authz.UserUpdate, id, revision)
		if err != nil {
			return User{}, err
		}
		if p.Email != "" && emailKey(p.Email) != emailKey(before.Email) {
			return User{}, sallyport.InvalidField("spec.email", "cannot change; delete this user and invite the other address")
		}
		if err := mayGiveRole(tx.Caller(), before.Access.Role, p.Access.Role); err != nil {
			return User{}, err
		}
		return changeUserAccess(ctx, tx, holder{}, before, p.Access)
	})
}

// userFor is the beginning of every change of a user by those who manage users.
func userFor(ctx context.Context, tx *journal.Tx, a authz.Action, id string, revision int64) (User, error) {
	if err := check(tx.Caller(), a); err != nil {
		return User{}, err
	}
	return changeableUser(ctx, tx, id, revision)
}

// changeableUser reads a user that is to be changed. One who holds the role
// owner, be it through a group, is changed by owners only.
func changeableUser(ctx context.Context, tx *journal.Tx, id string, revision int64) (User, error) {
	u, err := readUser(ctx, tx, tx.Account(), id)
	if err != nil {
		return User{}, err
	}
	s, _, err := readStanding(ctx, tx, tx.Account(), sallyport.Principal{Kind: sallyport.User, ID: id})
	if err != nil {
		return User{}, err
	}
	if s.Owner {
		if err := check(tx.Caller(), authz.OwnerChange); err != nil {
			return User{}, err
		}
	}
	return u, u.stale(revision)
}

func changeUserAccess(ctx context.Context, tx *journal.Tx, h holder, before User, a Access) (User, error) {
	changed, err := setAccess(ctx, tx, h, before.ID, a)
	if err != nil {
		return User{}, err
	}
	if !changed {
		return User{}, nothingToChange()
	}
	if err := updateUser(ctx, tx, tx.Account(), before.ID, before.Status, before.Epoch, tx.Revision(), tx.Now()); err != nil {
		return User{}, err
	}
	if err := keepsOwner(ctx, tx, before); err != nil {
		return User{}, err
	}
	after, err := readUser(ctx, tx, tx.Account(), before.ID)
	if err != nil {
		return User{}, err
	}
	return after, recordUser(ctx, tx, &before, &after)
}

// SetUserNamespaceAccess sets one direct permission of a user, NoPermission
// removes it. It is for the namespace's admins; who holds the role owner is for
// owners.
func (d *Directory) SetUserNamespaceAccess(ctx context.Context, caller sallyport.Caller, op journal.Operation, id, namespace string, revision int64, p sallyport.Permission) (User, journal.Committed, error) {
	return commit(ctx, d, caller, op, readUser, func(tx *journal.Tx) (User, error) {
		n, err := namespaceFor(ctx, tx, tx.Caller(), authz.NamespaceSetUserAccess, namespace)
		if err != nil {
			return User{}, err
		}
		before, err := changeableUser(ctx, tx, id, revision)
		if err != nil {
			return User{}, err
		}
		return changeUserAccess(ctx, tx, holder{one: true}, before, before.Access.withNamespace(n.Name, p))
	})
}

// SetUserStatus disables a user or lets him in again. Disabling ends all his
// credentials for good: after enabling he needs new ones.
func (d *Directory) SetUserStatus(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, status object.Status) (User, journal.Committed, error) {
	return commit(ctx, d, caller, op, readUser, func(tx *journal.Tx) (User, error) {
		before, err := userFor(ctx, tx, authz.UserUpdate, id, revision)
		if err != nil {
			return User{}, err
		}
		switch {
		case status != object.Active && status != object.Disabled:
			return User{}, sallyport.InvalidField("status", "must be %s or %s", object.Active, object.Disabled)
		case status == before.Status:
			return User{}, nothingToChange()
		}
		after := before
		after.Status = status
		if status == object.Disabled {
			after.Epoch++
		}
		after.Revision, after.Modified = tx.Revision(), tx.Now()
		if err := updateUser(ctx, tx, tx.Account(), id, after.Status, after.Epoch, after.Revision, after.Modified); err != nil {
			return User{}, err
		}
		if err := keepsOwner(ctx, tx, before); err != nil {
			return User{}, err
		}
		if err := recordUser(ctx, tx, &before, &after); err != nil {
			return User{}, err
		}
		return after, after.put(ctx, tx)
	})
}

// DeleteUser ends a membership with everything it has: access, memberships in
// groups and credentials. revision is the one that the client has seen.
func (d *Directory) DeleteUser(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64) (journal.Committed, error) {
	return d.run(ctx, caller, op, func(tx *journal.Tx) error {
		before, err := userFor(ctx, tx, authz.UserDelete, id, revision)
		if err != nil {
			return err
		}
		if err := d.principalEnded(ctx, tx, id); err != nil {
			return fmt.Errorf("ending the credentials of user %s: %w", id, err)
		}
		groups, err := groupsOf(ctx, tx, tx.Account(), id)
		if err != nil {
			return err
		}
		for _, group := range groups {
			if err := endMembership(ctx, tx, group, id); err != nil {
				return err
			}
		}
		if err := removeGrants(ctx, tx, id); err != nil {
			return err
		}
		if err := tx.Remove(ctx, object.KindPrincipal, id); err != nil {
			return err
		}
		if err := deleteUser(ctx, tx, tx.Account(), id); err != nil {
			return err
		}
		if err := keepsOwner(ctx, tx, before); err != nil {
			return err
		}
		return recordUser(ctx, tx, &before, nil)
	})
}

// filterNamespace finds what a list is filtered by; no name: no filter.
func (d *Directory) filterNamespace(ctx context.Context, account sallyport.AccountID, name string) (*Namespace, error) {
	if name == "" {
		return nil, nil
	}
	n, found, err := findNamespace(ctx, d.pool, account, name)
	if err == nil && !found {
		err = notThere("namespace", name)
	}
	return &n, err
}
