package directory

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/journal"
)

// GroupKind says who keeps a group's members.
type GroupKind string

const (
	CloudGroup  GroupKind = "cloud"  // people, by hand
	GoogleGroup GroupKind = "google" // Google Workspace
	SCIMGroup   GroupKind = "scim"   // an identity provider through SCIM
)

// Group is users of an account that get access together.
type Group struct {
	ID string
	GroupParams
	Stamp
}

// GroupParams is what a client says of a group. Kind, Email and IDPID never
// change; empty in an update they are kept.
type GroupParams struct {
	Kind   GroupKind
	Name   string // of a cloud group: 3 to 64 of a-z0-9-_; others: as their keeper has it
	Email  string // of a Google group
	IDPID  string // of a SCIM group: its id at the identity provider
	Access Access
}

// Member is a user in a group.
type Member struct {
	User    string // id
	Created time.Time
}

var cloudGroupName = regexp.MustCompile(`^[a-z0-9_-]{3,64}$`)

func (p GroupParams) valid() error {
	switch {
	case p.Kind != GoogleGroup && p.Email != "":
		return sallyport.InvalidField("spec.google_group.email_address", "is only for Google groups")
	case p.Kind != SCIMGroup && p.IDPID != "":
		return sallyport.InvalidField("spec.scim_group.idp_id", "is only for SCIM groups")
	}
	switch p.Kind {
	case CloudGroup:
		if !cloudGroupName.MatchString(p.Name) {
			return sallyport.InvalidField("spec.display_name", "must have 3 to 64 characters of a-z, 0-9, - and _")
		}
		return nil
	case GoogleGroup:
		if err := validEmail("spec.google_group.email_address", p.Email); err != nil {
			return err
		}
	case SCIMGroup:
		if err := validText("spec.scim_group.idp_id", p.IDPID, 1, 255); err != nil {
			return err
		}
	default:
		return sallyport.InvalidField("spec.group_type", "is required: cloud_group, google_group or scim_group")
	}
	return validText("spec.display_name", p.Name, 1, 255)
}

func (g Group) record() map[string]any {
	return map[string]any{"kind": g.Kind, "name": g.Name, "email": g.Email, "idp_id": g.IDPID, "access": g.Access.record()}
}

// CreateGroup makes a group without members.
func (d *Directory) CreateGroup(ctx context.Context, caller sallyport.Caller, op journal.Operation, p GroupParams) (Group, journal.Committed, error) {
	return commit(ctx, d, caller, op, readGroup, func(tx *journal.Tx) (Group, error) {
		if err := check(tx.Caller(), authz.UserGroupCreate); err != nil {
			return Group{}, err
		}
		if err := mayGiveRole(tx.Caller(), 0, p.Access.Role); err != nil {
			return Group{}, err
		}
		if err := p.valid(); err != nil {
			return Group{}, err
		}
		g := Group{ID: sallyport.NewID(sallyport.GroupPrefix), GroupParams: p, Stamp: newStamp(tx)}
		if err := groupIsNew(ctx, tx, g); err != nil {
			return Group{}, err
		}
		count, err := count(ctx, tx, "user_groups", tx.Account())
		if err != nil {
			return Group{}, err
		}
		if err := atLimit(count, d.maxGroups, "groups"); err != nil {
			return Group{}, err
		}
		if err := insertGroup(ctx, tx, tx.Account(), g); err != nil {
			return Group{}, err
		}
		if _, err := setAccess(ctx, tx, holder{}, g.ID, p.Access); err != nil {
			return Group{}, err
		}
		if g, err = readGroup(ctx, tx, tx.Account(), g.ID); err != nil {
			return Group{}, err
		}
		tx.Target(g.ID)
		tx.Record(journal.Change{Type: "group", ID: g.ID, After: g.record()})
		return g, tx.Put(ctx, object.KindGroup, g.ID, object.Encode(object.Group{}))
	})
}

// groupIsNew answers AlreadyExists when another group has what must be one
// group's: the name of a cloud group, the address or id of the others.
func groupIsNew(ctx context.Context, tx *journal.Tx, g Group) error {
	taken, err := groupTaken(ctx, tx, tx.Account(), g)
	if err == nil && taken {
		err = sallyport.AlreadyExists.Errorf("a %s group like this exists in this account; its name, address or id must differ", g.Kind)
	}
	return err
}

// Group reads one group.
func (d *Directory) Group(ctx context.Context, caller sallyport.Caller, id string) (Group, error) {
	if err := check(caller, authz.UserGroupGet); err != nil {
		return Group{}, err
	}
	return readGroup(ctx, d.pool, caller.Account, id)
}

// GroupFilter narrows a list; empty fields do not.
type GroupFilter struct {
	Namespace string // name: those that give access to it
	Name      string
	Email     string // of a Google group
	IDPID     string // of a SCIM group
}

// Groups lists groups by name.
func (d *Directory) Groups(ctx context.Context, caller sallyport.Caller, f GroupFilter, p sallyport.Page) ([]Group, string, error) {
	if err := check(caller, authz.UserGroupList); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, fmt.Sprintf("groups %q", f), p)
	if err != nil {
		return nil, "", err
	}
	in, err := d.filterNamespace(ctx, caller.Account, f.Namespace)
	if err != nil {
		return nil, "", err
	}
	// Names of groups that identity providers keep are not unique: the key is
	// the name and the id, which has no slash.
	var name, id string
	if i := strings.LastIndexByte(cursor.After, '/'); i >= 0 {
		name, id = cursor.After[:i], cursor.After[i+1:]
	}
	groups, err := readGroups(ctx, d.pool, caller.Account, f, in, name, id, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	groups, next := page.Cut(cursor, groups, func(g Group) string { return g.Name + "/" + g.ID })
	return groups, next, nil
}

// UpdateGroup replaces a group's name and direct access. revision is the one
// that the client has seen.
func (d *Directory) UpdateGroup(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, p GroupParams) (Group, journal.Committed, error) {
	return commit(ctx, d, caller, op, readGroup, func(tx *journal.Tx) (Group, error) {
		before, err := groupFor(ctx, tx, authz.UserGroupUpdate, id, revision)
		if err != nil {
			return Group{}, err
		}
		if err := before.fixed(p); err != nil {
			return Group{}, err
		}
		if err := mayGiveRole(tx.Caller(), before.Access.Role, p.Access.Role); err != nil {
			return Group{}, err
		}
		after := before
		after.Name = p.Name
		if err := after.valid(); err != nil {
			return Group{}, err
		}
		if after.Name != before.Name && before.Kind == CloudGroup {
			if err := groupIsNew(ctx, tx, after); err != nil {
				return Group{}, err
			}
		}
		return changeGroup(ctx, tx, holder{}, before, after.Name, p.Access)
	})
}

// fixed checks that an update does not change what cannot change.
func (g Group) fixed(p GroupParams) error {
	switch {
	case p.Kind != "" && p.Kind != g.Kind:
		return sallyport.InvalidField("spec.group_type", "cannot change; make another group")
	case p.Email != "" && p.Email != g.Email:
		return sallyport.InvalidField("spec.google_group.email_address", "cannot change; make another group")
	case p.IDPID != "" && p.IDPID != g.IDPID:
		return sallyport.InvalidField("spec.scim_group.idp_id", "cannot change; make another group")
	case g.Kind == SCIMGroup && p.Name != g.Name:
		return sallyport.InvalidField("spec.display_name", "is kept by the identity provider; change it there")
	}
	return nil
}

func groupFor(ctx context.Context, tx *journal.Tx, a authz.Action, id string, revision int64) (Group, error) {
	if err := check(tx.Caller(), a); err != nil {
		return Group{}, err
	}
	g, err := readGroup(ctx, tx, tx.Account(), id)
	if err != nil {
		return Group{}, err
	}
	return g, g.stale(revision)
}

func changeGroup(ctx context.Context, tx *journal.Tx, h holder, before Group, name string, a Access) (Group, error) {
	changed, err := setAccess(ctx, tx, h, before.ID, a)
	if err != nil {
		return Group{}, err
	}
	if !changed && name == before.Name {
		return Group{}, nothingToChange()
	}
	if err := updateGroup(ctx, tx, tx.Account(), before.ID, name, tx.Revision(), tx.Now()); err != nil {
		return Group{}, err
	}
	after, err := readGroup(ctx, tx, tx.Account(), before.ID)
	if err != nil {
		return Group{}, err
	}
	tx.Target(after.ID)
	tx.Record(journal.Change{Type: "group", ID: after.ID, Before: before.record(), After: after.record()})
	return after, nil
}

// SetGroupNamespaceAccess sets one direct permission of a group, NoPermission
// removes it. It is for the namespace's admins; a group that holds the role owner
// is for owners.
func (d *Directory) SetGroupNamespaceAccess(ctx context.Context, caller sallyport.Caller, op journal.Operation, id, namespace string, revision int64, p sallyport.Permission) (Group, journal.Committed, error) {
	return commit(ctx, d, caller, op, readGroup, func(tx *journal.Tx) (Group, error) {
		n, err := namespaceFor(ctx, tx, tx.Caller(), authz.NamespaceSetGroupAccess, namespace)
		if err != nil {
			return Group{}, err
		}
		before, err := readGroup(ctx, tx, tx.Account(), id)
		if err != nil {
			return Group{}, err
		}
		if err := mayGiveRole(tx.Caller(), before.Access.Role, before.Access.Role); err != nil {
			return Group{}, err
		}
		if err := before.stale(revision); err != nil {
			return Group{}, err
		}
		return changeGroup(ctx, tx, holder{one: true}, before, before.Name, before.Access.withNamespace(n.Name, p))
	})
}

// reapAtOnce is how many memberships go in the transaction that deletes their
// group. Those of a larger group give nothing any more, and go after it.
const reapAtOnce = 1000

// DeleteGroup ends a group with the access it gave and its memberships.
func (d *Directory) DeleteGroup(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64) (journal.Committed, error) {
	done, err := d.run(ctx, caller, op, func(tx *journal.Tx) error {
		before, err := groupFor(ctx, tx, authz.UserGroupDelete, id, revision)
		if err != nil {
			return err
		}
		if err := mayGiveRole(tx.Caller(), before.Access.Role, 0); err != nil {
			return err
		}
		if err := removeGrants(ctx, tx, id); err != nil {
			return err
		}
		if err := reap(ctx, tx, id); err != nil {
			return err
		}
		if err := deleteGroup(ctx, tx, tx.Account(), id); err != nil {
			return err
		}
		tx.Target(id)
		tx.Record(journal.Change{Type: "group", ID: id, Before: before.record()})
		return tx.Remove(ctx, object.KindGroup, id)
	})
	if err != nil {
		return done, err
	}
	for {
		left, err := readMembers(ctx, d.pool, caller.Account, id, "", 1)
		if err != nil || len(left) == 0 {
			return done, nil // what is left after an error gives nothing, and goes with its users
		}
		reaping := journal.Operation{Type: "ReapMemberships", Request: []byte(id)}
		_, err = d.run(ctx, sallyport.OperatorCaller(caller.Account, "sallyportd"), reaping, func(tx *journal.Tx) error {
			return reap(ctx, tx, id)
		})
		if err != nil {
			return done, nil
		}
	}
}

// reap ends at most reapAtOnce memberships of a group that goes.
func reap(ctx context.Context, tx *journal.Tx, group string) error {
	members, err := readMembers(ctx, tx, tx.Account(), group, "", reapAtOnce)
	if err != nil {
		return err
	}
	tx.Target(group)
	for _, m := range members {
		if err := endMembership(ctx, tx, group, m.User); err != nil {
			return err
		}
	}
	return nil
}

// Members lists a group's members by user id.
func (d *Directory) Members(ctx context.Context, caller sallyport.Caller, group string, p sallyport.Page) ([]Member, string, error) {
	if err := check(caller, authz.UserGroupGetMembers); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, fmt.Sprintf("members %q", group), p)
	if err != nil {
		return nil, "", err
	}
	if _, err := readGroup(ctx, d.pool, caller.Account, group); err != nil {
		return nil, "", err
	}
	members, err := readMembers(ctx, d.pool, caller.Account, group, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	members, next := page.Cut(cursor, members, func(m Member) string { return m.User })
	return members, next, nil
}

// AddMember puts a user into a cloud group; AlreadyExists when he is in it.
func (d *Directory) AddMember(ctx context.Context, caller sallyport.Caller, op journal.Operation, group, user string) (journal.Committed, error) {
	return d.run(ctx, caller, op, func(tx *journal.Tx) error {
		g, err := groupFor(ctx, tx, authz.UserGroupAddMember, group, 0)
		if err != nil {
			return err
		}
		// Putting somebody into a group gives him its role.
		if err := mayGiveRole(tx.Caller(), 0, g.Access.Role); err != nil {
			return err
		}
		if err := g.byHand(); err != nil {
			return err
		}
		if _, err := readUser(ctx, tx, tx.Account(), user); err != nil {
			return err
		}
		added, err := insertMember(ctx, tx, tx.Account(), group, user, tx.Now())
		if err != nil {
			return err
		}
		if !added {
			return sallyport.AlreadyExists.Errorf("the user is a member of the group already")
		}
		tx.Target(group)
		tx.Record(journal.Change{Type: "membership", ID: object.MembershipID(group, user), After: map[string]string{"group": group, "user": user}})
		return tx.Put(ctx, object.KindMembership, object.MembershipID(group, user), object.Encode(object.Membership{Group: group, User: user}))
	})
}

// RemoveMember takes a user out of a cloud group; NotFound when he is not in it.
func (d *Directory) RemoveMember(ctx context.Context, caller sallyport.Caller, op journal.Operation, group, user string) (journal.Committed, error) {
	return d.run(ctx, caller, op, func(tx *journal.Tx) error {
		g, err := groupFor(ctx, tx, authz.UserGroupRemoveMember, group, 0)
		if err != nil {
			return err
		}
		if err := mayGiveRole(tx.Caller(), g.Access.Role, 0); err != nil {
			return err
		}
		if err := g.byHand(); err != nil {
			return err
		}
		member, err := isMember(ctx, tx, tx.Account(), group, user)
		if err != nil {
			return err
		}
		if !member {
			return notThere("member of the group", user)
		}
		tx.Target(group)
		return endMembership(ctx, tx, group, user)
	})
}

// byHand refuses changes of members that somebody else keeps.
func (g Group) byHand() error {
	switch g.Kind {
	case SCIMGroup:
		return sallyport.Conflict.Errorf("the members of this group are kept by the identity provider through SCIM; change them there")
	case GoogleGroup:
		return sallyport.Conflict.Errorf("the members of this group are kept by Google; change them there")
	}
	return nil
}

func endMembership(ctx context.Context, tx *journal.Tx, group, user string) error {
	if err := deleteMember(ctx, tx, tx.Account(), group, user); err != nil {
		return err
	}
	id := object.MembershipID(group, user)
	tx.Record(journal.Change{Type: "membership", ID: id, Before: map[string]string{"group": group, "user": user}})
	return tx.Remove(ctx, object.KindMembership, id)
}
