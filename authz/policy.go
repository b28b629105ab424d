package authz

import (
	"maps"
	"slices"

	"github.com/sallyport-iam/sallyport"
)

// Action is something that a caller may be allowed. Names are Temporal
// Cloud's own where it has one, and in the same manner where it has not.
type Action string

const (
	IdentityGet       Action = "cloud.identity.get"
	AccountGet        Action = "cloud.account.get"
	AccountUpdate     Action = "cloud.account.update"
	AccountCreate     Action = "cloud.account.create"
	AccountSetStatus  Action = "cloud.account.setStatus"
	AsyncOperationGet Action = "cloud.asyncoperation.get"
	RegionGet         Action = "cloud.region.get"
	RegionList        Action = "cloud.region.list"
	UsageGet          Action = "cloud.usage.get"
	AuditLogList      Action = "cloud.auditlog.list"
	ReceiptGet        Action = "cloud.receipt.get"
	DecisionExplain   Action = "cloud.decision.explain"
	AuthorizerCreate  Action = "cloud.authorizer.create"
	AuthorizerList    Action = "cloud.authorizer.list"

	UserGet           Action = "cloud.user.get"
	UserList          Action = "cloud.user.list"
	UserCreate        Action = "cloud.user.create"
	UserUpdate        Action = "cloud.user.update"
	UserDelete        Action = "cloud.user.delete"
	OwnerChange       Action = "cloud.owner.change"       // change or delete an owner, his API keys, or a group that holds the role
	OwnerGrant        Action = "cloud.owner.grant"        // give the role owner
	FinanceAdminGrant Action = "cloud.financeadmin.grant" // give the role financeadmin

	UserGroupGet          Action = "cloud.usergroup.get"
	UserGroupList         Action = "cloud.usergroup.list"
	UserGroupGetMembers   Action = "cloud.usergroup.getMembers"
	UserGroupCreate       Action = "cloud.usergroup.create"
	UserGroupUpdate       Action = "cloud.usergroup.update"
	UserGroupDelete       Action = "cloud.usergroup.delete"
	UserGroupAddMember    Action = "cloud.usergroup.addMember"
	UserGroupRemoveMember Action = "cloud.usergroup.removeMember"

	ServiceAccountGet    Action = "cloud.serviceaccount.get"
	ServiceAccountList   Action = "cloud.serviceaccount.list"
	ServiceAccountCreate Action = "cloud.serviceaccount.create"
	ServiceAccountUpdate Action = "cloud.serviceaccount.update"
	ServiceAccountDelete Action = "cloud.serviceaccount.delete"

	APIKeyGet    Action = "cloud.apikey.get"
	APIKeyList   Action = "cloud.apikey.list"
	APIKeyCreate Action = "cloud.apikey.create"
	APIKeyUpdate Action = "cloud.apikey.update"
	APIKeyDelete Action = "cloud.apikey.delete"
	APIKeyRotate Action = "cloud.apikey.rotate"
	// APIKeyRotateSelf is a key's asking for its own successor, with the same
	// limits: the resource's Owner is the caller, the key the one it came with.
	APIKeyRotateSelf Action = "cloud.apikey.rotateSelf"

	// Certificates of the managed CA, and what is revoked.
	CertificateGet    Action = "cloud.certificate.get"
	CertificateList   Action = "cloud.certificate.list"
	CertificateIssue  Action = "cloud.certificate.issue"
	CertificateRevoke Action = "cloud.certificate.revoke"
	// CertificateRenewSelf is a certificate's asking for its own successor: the
	// resource's Owner is the caller, the certificate the one it came with.
	CertificateRenewSelf Action = "cloud.certificate.renewSelf"
	IssuerList           Action = "cloud.issuer.list"
	IssuerRevoke         Action = "cloud.issuer.revoke"
	RevocationList       Action = "cloud.revocation.list"
	RevocationCreate     Action = "cloud.revocation.create" // of what a customer's own CA issued

	// Federation rules of service accounts: from which workloads' tokens they take.
	FederationRuleGet    Action = "cloud.federationrule.get"
	FederationRuleList   Action = "cloud.federationrule.list"
	FederationRuleCreate Action = "cloud.federationrule.create"
	FederationRuleUpdate Action = "cloud.federationrule.update"
	FederationRuleDelete Action = "cloud.federationrule.delete"
	FederationRuleTest   Action = "cloud.federationrule.test"

	ProjectGet             Action = "cloud.project.get"
	ProjectList            Action = "cloud.project.list"
	NexusEndpointGet       Action = "cloud.nexusendpoint.get"
	NexusEndpointList      Action = "cloud.nexusendpoint.list"
	NexusEndpointCreate    Action = "cloud.nexusendpoint.create"
	NexusEndpointUpdate    Action = "cloud.nexusendpoint.update"
	NexusEndpointDelete    Action = "cloud.nexusendpoint.delete"
	ConnectivityRuleGet    Action = "cloud.connectivityrule.get"
	ConnectivityRuleList   Action = "cloud.connectivityrule.list"
	ConnectivityRuleCreate Action = "cloud.connectivityrule.create"
	ConnectivityRuleDelete Action = "cloud.connectivityrule.delete"

	NamespaceList             Action = "cloud.namespace.list" // the list holds those that NamespaceGet allows
	NamespaceCreate           Action = "cloud.namespace.create"
	NamespaceGet              Action = "cloud.namespace.get"
	NamespaceUpdate           Action = "cloud.namespace.update"
	NamespaceDelete           Action = "cloud.namespace.delete"
	NamespaceUpdateTags       Action = "cloud.namespace.updateTags"
	NamespaceRenameAttribute  Action = "cloud.namespace.renameCustomSearchAttribute"
	NamespaceSetUserAccess    Action = "cloud.namespace.setUserAccess"
	NamespaceSetGroupAccess   Action = "cloud.namespace.setUserGroupAccess"
	NamespaceSetSAAccess      Action = "cloud.namespace.setServiceAccountAccess"
	NamespaceUserAssignments  Action = "cloud.namespace.getUserNamespaceAssignments"
	NamespaceGroupAssignments Action = "cloud.namespace.getUserGroupNamespaceAssignments"
	NamespaceSAAssignments    Action = "cloud.namespace.getServiceAccountNamespaceAssignments"

	// DataRead and DataWrite stand for all data-plane methods; see MethodNeed.
	DataRead  Action = "temporal.read"
	DataWrite Action = "temporal.write"
)

// rule is a row of the policy: any one of roles, projects, permission, own and
// members gives the action. A rule with none of them is the operator's.
type rule struct {
	roles      sallyport.Roles        // on the account
	projects   sallyport.ProjectRoles // on the resource's project
	permission sallyport.Permission   // in the resource's namespace, or a stronger one
	own        owners                 // when the resource is the caller's own
	members    bool                   // everybody with any grant in the account, with any credential

	writes bool // refused to read-only credentials
	secret bool // makes a credential: refused to narrowed ones, and for other users

	instead string // what those can do whom the role fails; "": nothing
}

type owners uint8

const (
	nobody owners = iota
	users
	anyone
)

// Sets of account and project roles, as the policy's columns name them.
const (
	none  = sallyport.Roles(0)
	o     = sallyport.Roles(sallyport.RoleOwner)
	ao    = sallyport.Roles(sallyport.RoleAdmin) | o
	fao   = sallyport.Roles(sallyport.RoleFinanceAdmin) | ao
	dao   = sallyport.Roles(sallyport.RoleDeveloper) | ao
	rdfao = sallyport.Roles(sallyport.RoleRead) | sallyport.Roles(sallyport.RoleFinanceAdmin) | dao
	all   = sallyport.Roles(sallyport.RoleMetricsRead) | rdfao

	projectAny   = sallyport.ProjectRoles(sallyport.ProjectAdmin | sallyport.ProjectWrite | sallyport.ProjectRead | sallyport.ProjectList | sallyport.ProjectContribute | sallyport.ProjectMember | sallyport.ProjectDeveloper)
	projectMakes = sallyport.ProjectRoles(sallyport.ProjectAdmin | sallyport.ProjectContribute | sallyport.ProjectDeveloper)
	projectAdmin = sallyport.ProjectRoles(sallyport.ProjectAdmin)
)

const (
	read  = sallyport.PermissionRead
	write = sallyport.PermissionWrite
	admin = sallyport.PermissionAdmin
)

// shutOut: a revocation holds in the whole account, and a namespace's admin
// answers for his own.
const shutOut = "an admin of a namespace can keep a client certificate out of it by certificate filters (sallyport filter), or by removing its CA (sallyport ca remove)"

// policy is the matrix of Temporal Cloud's roles and permissions (read,
// developer, finance admin, global admin, owner; namespace read, write, admin),
// with our own actions in its spirit. It is never written to.
var policy = map[Action]rule{
	IdentityGet:       {members: true},
	AsyncOperationGet: {members: true},
	ReceiptGet:        {members: true},
	RegionGet:         {members: true},
	RegionList:        {members: true},
	AccountGet:        {roles: all},
	AccountUpdate:     {roles: ao, writes: true},
	AccountCreate:     {writes: true},
	AccountSetStatus:  {writes: true},
	UsageGet:          {roles: fao},
	AuditLogList:      {roles: ao},
	DecisionExplain:   {roles: ao, permission: admin, own: anyone},
	AuthorizerCreate:  {writes: true},
	AuthorizerList:    {},

	UserGet:           {roles: rdfao, own: anyone},
	UserList:          {roles: rdfao},
	UserCreate:        {roles: ao, writes: true},
	UserUpdate:        {roles: ao, writes: true},
	UserDelete:        {roles: ao, writes: true},
	OwnerChange:       {roles: o, writes: true},
	OwnerGrant:        {roles: o, writes: true},
	FinanceAdminGrant: {roles: o, writes: true},

	UserGroupGet:          {roles: rdfao},
	UserGroupList:         {roles: rdfao},
	UserGroupGetMembers:   {roles: rdfao},
	UserGroupCreate:       {roles: ao, writes: true},
	UserGroupUpdate:       {roles: ao, writes: true},
	UserGroupDelete:       {roles: ao, writes: true},
	UserGroupAddMember:    {roles: ao, writes: true},
	UserGroupRemoveMember: {roles: ao, writes: true},

	ServiceAccountGet:    {roles: rdfao, projects: projectAdmin, permission: admin, own: anyone},
	ServiceAccountList:   {roles: rdfao},
	ServiceAccountCreate: {roles: ao, projects: projectAdmin, permission: admin, writes: true},
	ServiceAccountUpdate: {roles: ao, projects: projectAdmin, permission: admin, writes: true},
	ServiceAccountDelete: {roles: ao, projects: projectAdmin, permission: admin, writes: true},

	APIKeyGet:        {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	APIKeyList:       {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	APIKeyCreate:     {roles: ao, projects: projectAdmin, permission: admin, own: anyone, writes: true, secret: true},
	APIKeyUpdate:     {roles: ao, projects: projectAdmin, permission: admin, own: users, writes: true},
	APIKeyDelete:     {roles: ao, projects: projectAdmin, permission: admin, own: users, writes: true},
	APIKeyRotate:     {roles: ao, projects: projectAdmin, permission: admin, own: users, writes: true, secret: true},
	APIKeyRotateSelf: {members: true},

	CertificateGet:       {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	CertificateList:      {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	CertificateIssue:     {roles: ao, projects: projectAdmin, permission: admin, own: anyone, writes: true, secret: true},
	CertificateRevoke:    {roles: ao, projects: projectAdmin, permission: admin, own: anyone, writes: true},
	CertificateRenewSelf: {members: true},
	IssuerList:           {members: true},
	IssuerRevoke:         {roles: ao, writes: true, instead: shutOut},
	RevocationList:       {roles: ao},
	RevocationCreate:     {roles: ao, writes: true, instead: shutOut},

	FederationRuleGet:    {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	FederationRuleList:   {roles: ao, projects: projectAdmin, permission: admin, own: anyone},
	FederationRuleCreate: {roles: ao, projects: projectAdmin, permission: admin, writes: true, secret: true},
	FederationRuleUpdate: {roles: ao, projects: projectAdmin, permission: admin, writes: true, secret: true},
	FederationRuleDelete: {roles: ao, projects: projectAdmin, permission: admin, writes: true},
	FederationRuleTest:   {roles: ao, projects: projectAdmin, permission: admin, own: anyone},

	ProjectGet:  {roles: rdfao, projects: projectAny},
	ProjectList: {members: true},

	NexusEndpointGet:       {roles: rdfao, projects: projectAny},
	NexusEndpointList:      {roles: rdfao, projects: projectAny},
	NexusEndpointCreate:    {roles: dao, projects: projectMakes, writes: true},
	NexusEndpointUpdate:    {roles: dao, projects: projectMakes, writes: true},
	NexusEndpointDelete:    {roles: dao, projects: projectMakes, writes: true},
	ConnectivityRuleGet:    {roles: dao},
	ConnectivityRuleList:   {roles: dao},
	ConnectivityRuleCreate: {roles: ao, writes: true},
	ConnectivityRuleDelete: {roles: ao, writes: true},

	NamespaceList:             {members: true},
	NamespaceCreate:           {roles: dao, projects: projectMakes, writes: true},
	NamespaceGet:              {permission: read},
	NamespaceUpdate:           {permission: admin, writes: true},
	NamespaceDelete:           {permission: admin, writes: true},
	NamespaceUpdateTags:       {roles: ao, writes: true},
	NamespaceRenameAttribute:  {permission: admin, writes: true},
	NamespaceSetUserAccess:    {permission: admin, writes: true},
	NamespaceSetGroupAccess:   {permission: admin, writes: true},
	NamespaceSetSAAccess:      {permission: admin, writes: true},
	NamespaceUserAssignments:  {roles: rdfao, permission: admin},
	NamespaceGroupAssignments: {roles: rdfao, permission: admin},
	NamespaceSAAssignments:    {roles: rdfao, permission: admin},

	DataRead:  {permission: read},
	DataWrite: {permission: write, writes: true},
}

// Actions lists every action there is, sorted.
func Actions() []Action { return slices.Sorted(maps.Keys(policy)) }
