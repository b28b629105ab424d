package cloudapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
)

// maxAccesses bounds the entries of one access map in a request.
const maxAccesses = 1000

func roleText(r identity.AccountAccess_Role) string {
	return strings.ReplaceAll(enumText(r, "ROLE_"), "_", "")
}

func permissionText(p identity.NamespaceAccess_Permission) string { return enumText(p, "PERMISSION_") }

func projectRoleText(r identity.ProjectAccess_ProjectRole) string {
	return enumText(r, "PROJECT_ROLE_")
}

// accessOf reads an access; nil is none.
func (c call) accessOf(field string, a *identity.Access) (directory.Access, error) {
	var access directory.Access
	var err error
	if len(a.GetCustomRolesDeprecated()) > 0 {
		return access, noCustomRoles(field + ".custom_roles_deprecated")
	}
	if access.Role, err = accountRole(field+".account_access", a.GetAccountAccess()); err != nil {
		return access, err
	}
	if access.Namespaces, err = c.namespacesOf(field+".namespace_accesses", a.GetNamespaceAccesses()); err != nil {
		return access, err
	}
	if n := len(a.GetProjectAccesses()); n > maxAccesses {
		return access, sallyport.InvalidField(field+".project_accesses", "has %d entries; at most %d are possible", n, maxAccesses)
	}
	for _, id := range slices.Sorted(maps.Keys(a.GetProjectAccesses())) {
		entry := fmt.Sprintf("%s.project_accesses[%.80q]", field, id)
		if err := checkID(entry, id); err != nil {
			return access, err
		}
		role, err := projectRole(entry, a.GetProjectAccesses()[id])
		if err != nil {
			return access, err
		}
		if access.Projects == nil {
			access.Projects = map[string]sallyport.ProjectRole{}
		}
		access.Projects[id] = role
	}
	return access, nil
}

func noCustomRoles(field string) error {
	return sallyport.InvalidField(field, "must be empty: there are no custom roles in this version")
}

// accountRole reads a role; nil and unspecified are none.
func accountRole(field string, a *identity.AccountAccess) (sallyport.AccountRole, error) {
	if len(a.GetCustomRoles()) > 0 {
		return 0, noCustomRoles(field + ".custom_roles")
	}
	value, err := enumOf(field+".role", a.GetRole(), a.GetRoleDeprecated(), roleText)
	if err != nil {
		return 0, err
	}
	role, _ := sallyport.ParseAccountRole(roleText(value))
	return role, nil
}

// permissionOf reads a permission; NoPermission when it is not given.
func permissionOf(field string, a *identity.NamespaceAccess) (sallyport.Permission, error) {
	value, err := enumOf(field+".permission", a.GetPermission(), a.GetPermissionDeprecated(), permissionText)
	if err != nil {
		return 0, err
	}
	p, _ := sallyport.ParsePermission(permissionText(value))
	return p, nil
}

func projectRole(field string, a *identity.ProjectAccess) (sallyport.ProjectRole, error) {
	value, err := enumOf(field+".role", a.GetRole(), "", projectRoleText)
	if err != nil {
		return 0, err
	}
	if value == 0 {
		return 0, sallyport.InvalidField(field+".role", "is required")
	}
	role, _ := sallyport.ParseProjectRole(projectRoleText(value))
	return role, nil
}

// namespacesOf reads a map of permissions by full namespace name.
func (c call) namespacesOf(field string, m map[string]*identity.NamespaceAccess) (map[string]sallyport.Permission, error) {
	if len(m) > maxAccesses {
		return nil, sallyport.InvalidField(field, "has %d entries; at most %d are possible", len(m), maxAccesses)
	}
	var namespaces map[string]sallyport.Permission
	for _, full := range slices.Sorted(maps.Keys(m)) {
		entry := fmt.Sprintf("%s[%.80q]", field, full)
		name, err := c.namespaceName(entry, full)
		if err != nil {
			return nil, err
		}
		p, err := permissionOf(entry, m[full])
		if err != nil {
			return nil, err
		}
		if p == sallyport.NoPermission {
			return nil, sallyport.InvalidField(entry+".permission", "is required; leave the namespace out of the map to give none")
		}
		if namespaces == nil {
			namespaces = map[string]sallyport.Permission{}
		}
		namespaces[name] = p
	}
	return namespaces, nil
}

// access is what a user or group holds directly, on the wire.
func (c call) access(a directory.Access) *identity.Access {
	wire := &identity.Access{AccountAccess: c.accountAccess(a.Role), NamespaceAccesses: c.namespaceAccesses(a.Namespaces)}
	for id, role := range a.Projects {
		if wire.ProjectAccesses == nil {
			wire.ProjectAccesses = map[string]*identity.ProjectAccess{}
		}
		wire.ProjectAccesses[id] = projectAccess(role)
	}
	return wire
}

func (c call) accountAccess(role sallyport.AccountRole) *identity.AccountAccess {
	wire := &identity.AccountAccess{Role: wireRole(role)}
	if c.upTo(textEnums()) {
		wire.RoleDeprecated = roleText(wire.GetRole())
	}
	return wire
}

func (c call) namespaceAccesses(m map[string]sallyport.Permission) map[string]*identity.NamespaceAccess {
	var wire map[string]*identity.NamespaceAccess
	for name, p := range m {
		if wire == nil {
			wire = map[string]*identity.NamespaceAccess{}
		}
		wire[c.fullName(name)] = c.namespaceAccess(p)
	}
	return wire
}

// namespaceAccess is nil for no permission.
func (c call) namespaceAccess(p sallyport.Permission) *identity.NamespaceAccess {
	if p == sallyport.NoPermission {
		return nil
	}
	wire := &identity.NamespaceAccess{Permission: identity.NamespaceAccess_Permission(identity.NamespaceAccess_Permission_value["PERMISSION_"+strings.ToUpper(p.String())])}
	if c.upTo(textEnums()) {
		wire.PermissionDeprecated = permissionText(wire.GetPermission())
	}
	return wire
}

func projectAccess(role sallyport.ProjectRole) *identity.ProjectAccess {
	return &identity.ProjectAccess{Role: identity.ProjectAccess_ProjectRole(identity.ProjectAccess_ProjectRole_value["PROJECT_ROLE_"+strings.ToUpper(role.String())])}
}

// wireRole finds the role by its text, which both sides share.
func wireRole(role sallyport.AccountRole) identity.AccountAccess_Role {
	for number := range identity.AccountAccess_Role_name {
		if r := identity.AccountAccess_Role(number); r != 0 && roleText(r) == role.String() {
			return r
		}
	}
	return identity.AccountAccess_ROLE_UNSPECIFIED
}

// stateOf is a principal's or account's state. Whoever was invited and has not
// come yet is active too: access can be given.
func stateOf(s object.Status) resource.ResourceState {
	if s == object.Active {
		return resource.ResourceState_RESOURCE_STATE_ACTIVE
	}
	return resource.ResourceState_RESOURCE_STATE_SUSPENDED
}

// oldState is the state as text, for old clients only.
func (c call) oldState(s resource.ResourceState) string {
	if !c.upTo(textEnums()) {
		return ""
	}
	return strings.ReplaceAll(enumText(s, "RESOURCE_STATE_"), "_", "")
}
