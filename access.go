package sallyport

// AccountRole is a predefined role on a whole account. The values are the bits
// of Roles; they are not ordered by power.
type AccountRole uint8

const (
	RoleOwner AccountRole = 1 << iota
	RoleAdmin             // Temporal Cloud's "Global Admin"
	RoleDeveloper
	RoleFinanceAdmin
	RoleRead
	RoleMetricsRead
)

var accountRoleNames = map[AccountRole]string{
	RoleOwner: "owner", RoleAdmin: "admin", RoleDeveloper: "developer",
	RoleFinanceAdmin: "financeadmin", RoleRead: "read", RoleMetricsRead: "metricsread",
}

// String is the role's name as Temporal Cloud spells it, "none" for zero.
func (r AccountRole) String() string {
	if name, ok := accountRoleNames[r]; ok {
		return name
	}
	return "none"
}

// ParseAccountRole is the inverse of String; ok is false for unknown names.
func ParseAccountRole(name string) (role AccountRole, ok bool) {
	for r, n := range accountRoleNames {
		if n == name {
			return r, true
		}
	}
	return 0, name == "none" || name == ""
}

// Roles is a set of account roles: one held directly and those of groups.
type Roles uint8

// Has reports whether the set holds any of the given roles.
func (s Roles) Has(roles ...AccountRole) bool {
	for _, r := range roles {
		if s&Roles(r) != 0 {
			return true
		}
	}
	return false
}

// Permission is what a principal may do in a namespace. Each includes the ones
// before it.
type Permission uint8

const (
	NoPermission Permission = iota
	PermissionRead
	PermissionWrite
	PermissionAdmin
)

var permissionNames = [...]string{"none", "read", "write", "admin"}

// String is the permission's name as Temporal Cloud spells it.
func (p Permission) String() string {
	if int(p) < len(permissionNames) {
		return permissionNames[p]
	}
	return "none"
}

// ParsePermission is the inverse of String; ok is false for unknown names.
func ParsePermission(name string) (permission Permission, ok bool) {
	for i, n := range permissionNames {
		if n == name {
			return Permission(i), true
		}
	}
	return NoPermission, name == ""
}

// ProjectRole is a predefined role on a project and the namespaces in it. The
// values are the bits of ProjectRoles.
type ProjectRole uint8

const (
	ProjectAdmin ProjectRole = 1 << iota
	ProjectWrite
	ProjectRead
	ProjectList
	ProjectContribute
	ProjectMember
	ProjectDeveloper
)

var projectRoleNames = map[ProjectRole]string{
	ProjectAdmin: "admin", ProjectWrite: "write", ProjectRead: "read", ProjectList: "list",
	ProjectContribute: "contribute", ProjectMember: "member", ProjectDeveloper: "developer",
}

// String is the role's name as Temporal Cloud spells it, "none" for zero.
func (r ProjectRole) String() string {
	if name, ok := projectRoleNames[r]; ok {
		return name
	}
	return "none"
}

// ParseProjectRole is the inverse of String; ok is false for unknown names.
func ParseProjectRole(name string) (role ProjectRole, ok bool) {
	for r, n := range projectRoleNames {
		if n == name {
			return r, true
		}
	}
	return 0, name == "none" || name == ""
}

// ProjectRoles is a set of project roles.
type ProjectRoles uint8

// Has reports whether the set holds any of the given roles.
func (s ProjectRoles) Has(roles ...ProjectRole) bool {
	for _, r := range roles {
		if s&ProjectRoles(r) != 0 {
			return true
		}
	}
	return false
}

// Permission is what the roles give in every namespace of the project.
func (s ProjectRoles) Permission() Permission {
	switch {
	case s.Has(ProjectAdmin):
		return PermissionAdmin
	case s.Has(ProjectWrite):
		return PermissionWrite
	case s.Has(ProjectRead):
		return PermissionRead
	}
	return NoPermission
}

// Access is all that a principal holds in its account, the union of direct
// grants and those of its groups. The zero value is no access.
type Access struct {
	Roles      Roles
	Projects   map[string]ProjectRoles // by project id
	Namespaces map[NamespaceID]Permission
	Cells      []string // whose feed it may follow; in SystemAccount only
}

// Permission is the strongest permission that the access gives in a namespace
// of the project: by role (owners and admins are admin everywhere), by project,
// or by grant. The read and developer roles give none.
func (a Access) Permission(project string, namespace NamespaceID) Permission {
	if a.Roles.Has(RoleOwner, RoleAdmin) {
		return PermissionAdmin
	}
	return max(a.Namespaces[namespace], a.Projects[project].Permission())
}

// Scope says what kind of thing a grant is on.
type Scope string

const (
	ScopeAccount   Scope = "account"
	ScopeProject   Scope = "project"
	ScopeNamespace Scope = "namespace"
	// ScopeCell is for authorizers, in SystemAccount only.
	ScopeCell Scope = "cell"
)

// Grant gives its subject (a user, service account or group id) a role on one
// thing. There is at most one per subject, scope and target.
type Grant struct {
	Subject string
	Scope   Scope
	Target  string // account, project or namespace id, or the cell's id
	Role    string // a name as the String methods give it; "authorizer" for a cell
}
