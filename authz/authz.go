// Package authz is the policy: which roles and permissions each action takes.
// It is pure: it reads a resolved caller and does no I/O.
package authz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
)

// Resource says what an action is done to. An action on the account as a whole
// has neither Project nor Namespace.
type Resource struct {
	Account   sallyport.AccountID
	Project   string                // the project that the thing is in, or is
	Namespace sallyport.NamespaceID // the namespace that the thing is in, or is
	// Owner is whose thing it is, where that matters: of an API key its owner,
	// of a user or service account that principal itself.
	Owner sallyport.Principal
}

// Check answers nil when the caller may do the action to the resource:
// NotFound when he has no grant in the resource's account at all (he must not
// learn that it exists), PermissionDenied otherwise, with what it would take.
// The operator may do everything in his Account.
func Check(caller sallyport.Caller, a Action, r Resource) error {
	if caller.Account != r.Account {
		return sallyport.NotFound.Errorf("there is no such account, or you have no access to it")
	}
	if caller.Principal.Kind == sallyport.Operator {
		return nil
	}
	if isZero(caller.Access) {
		return sallyport.NotFound.Errorf("you have no access in this account; ask an owner or a global admin for a role")
	}
	need, ok := policy[a]
	if !ok {
		return sallyport.PermissionDenied.Errorf("%s is not an action that anybody may do", a)
	}
	if err := checkLimits(caller, a, need, r); err != nil {
		return err
	}
	if need.secret && r.Owner.Kind == sallyport.User && r.Owner != caller.Principal {
		return sallyport.PermissionDenied.Errorf("%s: only the user himself may make an API key of a user, because whoever has the key is that user", a)
	}
	if need.secret && r.Owner == caller.Principal {
		switch caller.Credential.Kind {
		case certificate:
			return sallyport.PermissionDenied.Errorf("%s: a client certificate cannot make others, nor API keys, for its own service account: they would outlive it and its revocation; renew it, or use an API key or another identity", a)
		case token:
			return sallyport.PermissionDenied.Errorf("%s: an access token cannot make credentials for its own service account: they would outlive it by far; use an API key or another identity", a)
		}
	}
	if need.allows(caller, r) {
		return nil
	}
	refusal := fmt.Sprintf("%s needs %s; you have %s", a, need, describe(caller.Access, r))
	if need.instead != "" {
		refusal += "; " + need.instead
	}
	return sallyport.PermissionDenied.Errorf("%s", refusal)
}

// certificate is the Kind of a Credential that is a client certificate. Its end
// and its revocation are those of all that its holder can do.
const certificate = "certificate"

// token is the Kind of a Credential that is an access token. It is good for
// minutes, and so must be all that whoever found it can do.
const token = "token"

func isZero(a sallyport.Access) bool {
	return a.Roles == 0 && len(a.Projects) == 0 && len(a.Namespaces) == 0
}

// checkLimits refuses what a narrowed credential may not do, whatever its principal may.
func checkLimits(caller sallyport.Caller, a Action, need rule, r Resource) error {
	l := caller.Limits
	switch narrowed := l.ReadOnly || l.Namespaces != nil || l.Sources != nil; {
	case l.ReadOnly && need.writes:
		return sallyport.PermissionDenied.Errorf("%s changes something and this credential is read-only; use one that is not", a)
	case narrowed && need.secret:
		return sallyport.PermissionDenied.Errorf("%s: a narrowed credential cannot make others; use one that is not narrowed", a)
	case l.Namespaces == nil, need.members, slices.Contains(l.Namespaces, r.Namespace):
		return nil
	case !need.writes && need.owns(caller, r):
		return nil // whoever has a key may see whose it is and what it may do
	case r.Namespace == "":
		return sallyport.PermissionDenied.Errorf("%s is not on a namespace and this credential is narrowed to some namespaces; use one that is not", a)
	}
	return sallyport.PermissionDenied.Errorf("%s: this credential is narrowed to other namespaces; use one that covers this one", a)
}

// allows is the union of what gives the action. There is no deny rule.
func (n rule) allows(caller sallyport.Caller, r Resource) bool {
	access := caller.Access
	switch {
	case n.members, access.Roles&n.roles != 0:
		return true
	case r.Project != "" && access.Projects[r.Project]&n.projects != 0:
		return true
	case r.Namespace != "" && n.permission != sallyport.NoPermission && access.Permission(r.Project, r.Namespace) >= n.permission:
		return true
	}
	return n.owns(caller, r)
}

// owns reports whether the resource is the caller's own, and that counts.
func (n rule) owns(caller sallyport.Caller, r Resource) bool {
	if r.Owner == (sallyport.Principal{}) || r.Owner != caller.Principal {
		return false
	}
	return n.own == anyone || n.own == users && caller.Principal.Kind == sallyport.User
}

// String says what gives the action: "the account role owner or admin, or the
// namespace permission admin".
func (n rule) String() string {
	var ways []string
	if n.roles != 0 {
		ways = append(ways, "the account role "+strings.Join(roleNames(n.roles), " or "))
	}
	if n.projects != 0 {
		ways = append(ways, "the project role "+strings.Join(projectRoleNames(n.projects), " or "))
	}
	if n.permission != sallyport.NoPermission {
		ways = append(ways, "the namespace permission "+n.permission.String())
	}
	switch n.own {
	case anyone:
		ways = append(ways, "that it is your own")
	case users:
		ways = append(ways, "that you are a user and it is your own")
	}
	if len(ways) == 0 {
		return "the operator of the service"
	}
	return strings.Join(ways, ", or ")
}

// describe says what the access holds that bears on the resource.
func describe(a sallyport.Access, r Resource) string {
	var held []string
	if names := roleNames(a.Roles); len(names) > 0 {
		held = append(held, "the account role "+strings.Join(names, " and "))
	}
	if names := projectRoleNames(a.Projects[r.Project]); r.Project != "" && len(names) > 0 {
		held = append(held, "the project role "+strings.Join(names, " and "))
	}
	if p := a.Namespaces[r.Namespace]; r.Namespace != "" && p != sallyport.NoPermission {
		held = append(held, fmt.Sprintf("the namespace permission %s", p))
	}
	if len(held) == 0 {
		return "none that counts here"
	}
	return strings.Join(held, ", ")
}

func roleNames(s sallyport.Roles) []string {
	var names []string
	for r := sallyport.RoleOwner; r <= sallyport.RoleMetricsRead; r <<= 1 {
		if s.Has(r) {
			names = append(names, r.String())
		}
	}
	return names
}

func projectRoleNames(s sallyport.ProjectRoles) []string {
	var names []string
	for r := sallyport.ProjectAdmin; r <= sallyport.ProjectDeveloper && r != 0; r <<= 1 {
		if s.Has(r) {
			names = append(names, r.String())
		}
	}
	return names
}
