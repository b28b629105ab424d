package authz_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
)

const (
	account   = sallyport.AccountID("f45a2")
	project   = "p_one"
	namespace = sallyport.NamespaceID("ns_one")
)

var (
	accountRoles = []sallyport.AccountRole{sallyport.RoleRead, sallyport.RoleDeveloper, sallyport.RoleFinanceAdmin, sallyport.RoleAdmin, sallyport.RoleOwner, sallyport.RoleMetricsRead}
	permissions  = []sallyport.Permission{sallyport.PermissionRead, sallyport.PermissionWrite, sallyport.PermissionAdmin}
	projectRoles = []sallyport.ProjectRole{sallyport.ProjectAdmin, sallyport.ProjectWrite, sallyport.ProjectRead, sallyport.ProjectList, sallyport.ProjectContribute, sallyport.ProjectMember, sallyport.ProjectDeveloper}
	user         = sallyport.Principal{Kind: sallyport.User, ID: "u_me"}
	robot        = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_me"}
	other        = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_other"}
)

// matrix is the policy, written by hand from Temporal Cloud's documentation
// (account roles; permissions; API keys; projects). Columns:
//
//	account role        Read Developer Finance Admin(global) Owner Metrics
//	namespace           read write admin, without an account role
//	project             Admin Write Read List Contribute Member Developer, without an account role
//	own                 User's own, Service account's own, with the account role metricsread only
//	credential          W: refused to read-only ones; S: makes a secret, refused to narrowed ones
const matrix = `
action                                              RDFAOM rwa AWRLCMD US WS

cloud.identity.get                                  RDFAOM rwa AWRLCMD US ..
cloud.asyncoperation.get                            RDFAOM rwa AWRLCMD US ..
cloud.receipt.get                                   RDFAOM rwa AWRLCMD US ..
cloud.region.get                                    RDFAOM rwa AWRLCMD US ..
cloud.region.list                                   RDFAOM rwa AWRLCMD US ..
cloud.account.get                                   RDFAOM ... ....... US ..
cloud.account.update                                ...AO. ... ....... .. W.
cloud.account.create                                ...... ... ....... .. W.
cloud.account.setStatus                             ...... ... ....... .. W.
cloud.usage.get                                     ..FAO. ... ....... .. ..
cloud.auditlog.list                                 ...AO. ... ....... .. ..
cloud.decision.explain                              ...AO. ..a A...... US ..
cloud.authorizer.create                             ...... ... ....... .. W.
cloud.authorizer.list                               ...... ... ....... .. ..

cloud.user.get                                      RDFAO. ... ....... US ..
cloud.user.list                                     RDFAO. ... ....... .. ..
cloud.user.create                                   ...AO. ... ....... .. W.
cloud.user.update                                   ...AO. ... ....... .. W.
cloud.user.delete                                   ...AO. ... ....... .. W.
cloud.owner.change                                  ....O. ... ....... .. W.
cloud.owner.grant                                   ....O. ... ....... .. W.
cloud.financeadmin.grant                            ....O. ... ....... .. W.

cloud.usergroup.get                                 RDFAO. ... ....... .. ..
cloud.usergroup.list                                RDFAO. ... ....... .. ..
cloud.usergroup.getMembers                          RDFAO. ... ....... .. ..
cloud.usergroup.create                              ...AO. ... ....... .. W.
cloud.usergroup.update                              ...AO. ... ....... .. W.
cloud.usergroup.delete                              ...AO. ... ....... .. W.
cloud.usergroup.addMember                           ...AO. ... ....... .. W.
cloud.usergroup.removeMember                        ...AO. ... ....... .. W.

cloud.serviceaccount.get                            RDFAO. ..a A...... US ..
cloud.serviceaccount.list                           RDFAO. ... ....... .. ..
cloud.serviceaccount.create                         ...AO. ..a A...... .. W.
cloud.serviceaccount.update                         ...AO. ..a A...... .. W.
cloud.serviceaccount.delete                         ...AO. ..a A...... .. W.

cloud.apikey.get                                    ...AO. ..a A...... US ..
cloud.apikey.list                                   ...AO. ..a A...... US ..
cloud.apikey.create                                 ...AO. ..a A...... US WS
cloud.apikey.update                                 ...AO. ..a A...... U. W.
cloud.apikey.delete                                 ...AO. ..a A...... U. W.
cloud.apikey.rotate                                 ...AO. ..a A...... U. WS
cloud.apikey.rotateSelf                             RDFAOM rwa AWRLCMD US ..

cloud.certificate.get                               ...AO. ..a A...... US ..
cloud.certificate.list                              ...AO. ..a A...... US ..
cloud.certificate.issue                             ...AO. ..a A...... US WS
cloud.certificate.revoke                            ...AO. ..a A...... US W.
cloud.certificate.renewSelf                         RDFAOM rwa AWRLCMD US ..
cloud.issuer.list                                   RDFAOM rwa AWRLCMD US ..
cloud.issuer.revoke                                 ...AO. ... ....... .. W.
cloud.revocation.list                               ...AO. ... ....... .. ..
cloud.revocation.create                             ...AO. ... ....... .. W.

cloud.federationrule.get                            ...AO. ..a A...... US ..
cloud.federationrule.list                           ...AO. ..a A...... US ..
cloud.federationrule.create                         ...AO. ..a A...... .. WS
cloud.federationrule.update                         ...AO. ..a A...... .. WS
cloud.federationrule.delete                         ...AO. ..a A...... .. W.
cloud.federationrule.test                           ...AO. ..a A...... US ..

cloud.project.get                                   RDFAO. ... AWRLCMD .. ..
cloud.project.list                                  RDFAOM rwa AWRLCMD US ..
cloud.nexusendpoint.get                             RDFAO. ... AWRLCMD .. ..
cloud.nexusendpoint.list                            RDFAO. ... AWRLCMD .. ..
cloud.nexusendpoint.create                          .D.AO. ... A...C.D .. W.
cloud.nexusendpoint.update                          .D.AO. ... A...C.D .. W.
cloud.nexusendpoint.delete                          .D.AO. ... A...C.D .. W.
cloud.connectivityrule.get                          .D.AO. ... ....... .. ..
cloud.connectivityrule.list                         .D.AO. ... ....... .. ..
cloud.connectivityrule.create                       ...AO. ... ....... .. W.
cloud.connectivityrule.delete                       ...AO. ... ....... .. W.

cloud.namespace.list                                RDFAOM rwa AWRLCMD US ..
cloud.namespace.create                              .D.AO. ... A...C.D .. W.
cloud.namespace.get                                 ...AO. rwa AWR.... .. ..
cloud.namespace.update                              ...AO. ..a A...... .. W.
cloud.namespace.delete                              ...AO. ..a A...... .. W.
cloud.namespace.updateTags                          ...AO. ... ....... .. W.
cloud.namespace.renameCustomSearchAttribute         ...AO. ..a A...... .. W.
cloud.namespace.setUserAccess                       ...AO. ..a A...... .. W.
cloud.namespace.setUserGroupAccess                  ...AO. ..a A...... .. W.
cloud.namespace.setServiceAccountAccess             ...AO. ..a A...... .. W.
cloud.namespace.getUserNamespaceAssignments         RDFAO. ..a A...... .. ..
cloud.namespace.getUserGroupNamespaceAssignments    RDFAO. ..a A...... .. ..
cloud.namespace.getServiceAccountNamespaceAssignments RDFAO. ..a A...... .. ..

temporal.read                                       ...AO. rwa AWR.... .. ..
temporal.write                                      ...AO. .wa AW..... .. W.
`

func TestMatrix(t *testing.T) {
	var want, got []string
	var actions []authz.Action
	for line := range strings.Lines(matrix) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "action" {
			want = append(want, strings.Join(fields, " "))
			actions = append(actions, authz.Action(fields[0]))
		}
	}
	for _, a := range actions {
		got = append(got, string(a)+" "+row(a))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the policy is not the documented one (-want +got):\n%s", diff)
	}
	listed := map[authz.Action]bool{}
	for _, a := range actions {
		listed[a] = true
	}
	for _, a := range authz.Actions() {
		if !listed[a] {
			t.Errorf("%s is in the policy and not in the matrix", a)
		}
	}
}

// row asks Check for each column of an action.
func row(a authz.Action) string {
	thing := authz.Resource{Account: account, Project: project, Namespace: namespace, Owner: other}
	var b strings.Builder
	mark := func(letter byte, yes bool) {
		if !yes {
			letter = '.'
		}
		b.WriteByte(letter)
	}
	may := func(access sallyport.Access, p sallyport.Principal, r authz.Resource) bool {
		return authz.Check(sallyport.Caller{Account: account, Principal: p, Access: access}, a, r) == nil
	}
	for i, role := range accountRoles {
		mark("RDFAOM"[i], may(sallyport.Access{Roles: sallyport.Roles(role)}, user, thing))
	}
	b.WriteByte(' ')
	for i, p := range permissions {
		mark("rwa"[i], may(sallyport.Access{Namespaces: map[sallyport.NamespaceID]sallyport.Permission{namespace: p}}, user, thing))
	}
	b.WriteByte(' ')
	for i, role := range projectRoles {
		mark("AWRLCMD"[i], may(sallyport.Access{Projects: map[string]sallyport.ProjectRoles{project: sallyport.ProjectRoles(role)}}, user, thing))
	}
	b.WriteByte(' ')
	for i, p := range []sallyport.Principal{user, robot} {
		own := thing
		own.Owner = p
		mark("US"[i], may(sallyport.Access{Roles: sallyport.Roles(sallyport.RoleMetricsRead)}, p, own))
	}
	b.WriteByte(' ')
	owner := sallyport.Caller{Account: account, Principal: user, Access: sallyport.Access{Roles: sallyport.Roles(sallyport.RoleOwner)}}
	mark('W', refuses(owner, a, thing, sallyport.Limits{ReadOnly: true}, "read-only"))
	mark('S', refuses(owner, a, thing, sallyport.Limits{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "narrowed"))
	return b.String()
}

func refuses(c sallyport.Caller, a authz.Action, r authz.Resource, l sallyport.Limits, word string) bool {
	c.Limits = l
	err := authz.Check(c, a, r)
	return err != nil && strings.Contains(err.Error(), word)
}

func TestCheck(t *testing.T) {
	owner := sallyport.Access{Roles: sallyport.Roles(sallyport.RoleOwner)}
	admin := sallyport.Access{Namespaces: map[sallyport.NamespaceID]sallyport.Permission{namespace: sallyport.PermissionAdmin}}
	in := authz.Resource{Account: account, Project: project, Namespace: namespace}
	elsewhere := authz.Resource{Account: account, Project: "p_two", Namespace: "ns_two"}
	whole := authz.Resource{Account: account}
	someUser := authz.Resource{Account: account, Owner: sallyport.Principal{Kind: sallyport.User, ID: "u_else"}}
	mine := authz.Resource{Account: account, Owner: user}
	caller := func(a sallyport.Access, l sallyport.Limits) sallyport.Caller {
		return sallyport.Caller{Account: account, Principal: user, Access: a, Limits: l}
	}
	narrowed := sallyport.Limits{Namespaces: []sallyport.NamespaceID{namespace}}
	byCertificate := sallyport.Caller{Account: account, Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_one"},
		Credential: sallyport.Credential{Kind: "certificate", ID: "cert_one"}, Access: owner}
	byToken := byCertificate
	byToken.Credential = sallyport.Credential{Kind: "token", ID: "tok_one"}
	byNarrowToken := byToken
	byNarrowToken.Limits.ReadOnly = true
	somebody := authz.Resource{Account: account, Owner: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_else"}}
	itself := authz.Resource{Account: account, Owner: byCertificate.Principal}
	tests := []struct {
		name   string
		caller sallyport.Caller
		action authz.Action
		on     authz.Resource
		want   sallyport.Kind // "" for allowed
		text   string
	}{
		{"another account", caller(owner, sallyport.Limits{}), authz.UserList, authz.Resource{Account: "zzzzz"}, sallyport.NotFound, ""},
		{"another account, operator", sallyport.OperatorCaller(account, "root"), authz.UserList, authz.Resource{Account: "zzzzz"}, sallyport.NotFound, ""},
		{"the operator", sallyport.OperatorCaller(account, "root"), authz.AccountSetStatus, whole, "", ""},
		{"the system's things are nobody's", caller(owner, sallyport.Limits{}), authz.AuthorizerCreate, whole, sallyport.PermissionDenied, "needs the operator of the service"},
		{"no grant at all", caller(sallyport.Access{}, sallyport.Limits{}), authz.IdentityGet, whole, sallyport.NotFound, ""},
		{"empty maps are no grant", caller(sallyport.Access{Namespaces: map[sallyport.NamespaceID]sallyport.Permission{}}, sallyport.Limits{}), authz.IdentityGet, whole, sallyport.NotFound, ""},
		{"unknown action", caller(owner, sallyport.Limits{}), "cloud.moon.land", whole, sallyport.PermissionDenied, "not an action"},
		{"namespace admin on his own", caller(admin, sallyport.Limits{}), authz.ServiceAccountCreate, in, "", ""},
		{"namespace admin on another", caller(admin, sallyport.Limits{}), authz.ServiceAccountCreate, elsewhere, sallyport.PermissionDenied, ""},
		{"namespace admin on the account", caller(admin, sallyport.Limits{}), authz.ServiceAccountCreate, whole, sallyport.PermissionDenied, "the account role owner or admin"},
		{"denial says what else there is", caller(admin, sallyport.Limits{}), authz.RevocationCreate, whole, sallyport.PermissionDenied, "certificate filters (sallyport filter)"},
		{"denial of a whole CA, too", caller(admin, sallyport.Limits{}), authz.IssuerRevoke, whole, sallyport.PermissionDenied, "removing its CA (sallyport ca remove)"},
		{"denial names what is held", caller(admin, sallyport.Limits{}), authz.UserCreate, in, sallyport.PermissionDenied, "you have the namespace permission admin"},
		{"owners read where they have no grant", caller(owner, sallyport.Limits{}), authz.NamespaceGet, elsewhere, "", ""},
		{"narrowed, inside", caller(owner, narrowed), authz.NamespaceUpdate, in, "", ""},
		{"narrowed, outside", caller(owner, narrowed), authz.NamespaceGet, elsewhere, sallyport.PermissionDenied, "other namespaces"},
		{"narrowed, on the account", caller(owner, narrowed), authz.UserList, whole, sallyport.PermissionDenied, "not on a namespace"},
		{"narrowed to nothing", caller(owner, sallyport.Limits{Namespaces: []sallyport.NamespaceID{}}), authz.NamespaceGet, in, sallyport.PermissionDenied, ""},
		{"narrowed, who am I", caller(owner, narrowed), authz.IdentityGet, whole, "", ""},
		{"narrowed, its own user", caller(owner, narrowed), authz.UserGet, mine, "", ""},
		{"narrowed, itself", caller(owner, narrowed), authz.APIKeyGet, mine, "", ""},
		{"narrowed, deleting itself", caller(owner, narrowed), authz.APIKeyDelete, mine, sallyport.PermissionDenied, "not on a namespace"},
		{"narrowed, another's key", caller(owner, narrowed), authz.APIKeyGet, someUser, sallyport.PermissionDenied, "not on a namespace"},
		{"narrowed, a key for its namespace", caller(owner, narrowed), authz.APIKeyCreate, in, sallyport.PermissionDenied, "cannot make others"},
		{"narrowed, its own successor", caller(owner, sallyport.Limits{ReadOnly: true, Namespaces: []sallyport.NamespaceID{namespace}}), authz.APIKeyRotateSelf, whole, "", ""},
		{"an owner's key for another user", caller(owner, sallyport.Limits{}), authz.APIKeyCreate, someUser, sallyport.PermissionDenied, "only the user himself"},
		{"a certificate's key for itself", byCertificate, authz.APIKeyCreate, itself, sallyport.PermissionDenied, "cannot make others"},
		{"a certificate rotates a key of its own", byCertificate, authz.APIKeyRotate, itself, sallyport.PermissionDenied, "would outlive it"},
		{"a certificate's other chain", byCertificate, authz.CertificateIssue, itself, sallyport.PermissionDenied, "renew it"},
		{"a certificate's key for another", byCertificate, authz.APIKeyCreate, somebody, "", ""},
		{"a token's key for itself", byToken, authz.APIKeyCreate, itself, sallyport.PermissionDenied, "would outlive it"},
		{"a token rotates a key of its own", byToken, authz.APIKeyRotate, itself, sallyport.PermissionDenied, "would outlive it"},
		{"a token's certificate for itself", byToken, authz.CertificateIssue, itself, sallyport.PermissionDenied, "use an API key"},
		{"a token's rule for itself", byToken, authz.FederationRuleCreate, itself, sallyport.PermissionDenied, "would outlive it"},
		{"a token's other rule for itself", byToken, authz.FederationRuleUpdate, itself, sallyport.PermissionDenied, "would outlive it"},
		{"a token's key for another", byToken, authz.APIKeyCreate, somebody, "", ""},
		{"a token's certificate for another", byToken, authz.CertificateIssue, somebody, "", ""},
		{"a token rotates another's key", byToken, authz.APIKeyRotate, somebody, "", ""},
		{"a narrow token's key for another", byNarrowToken, authz.APIKeyCreate, somebody, sallyport.PermissionDenied, "read-only"},
		{"a token reads its own keys", byToken, authz.APIKeyGet, itself, "", ""},
		{"a token ends a key of its own", byToken, authz.APIKeyDelete, itself, "", ""},
		{"a certificate ends itself", byCertificate, authz.CertificateRevoke, itself, "", ""},
		{"an owner deletes another user's key", caller(owner, sallyport.Limits{}), authz.APIKeyDelete, someUser, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := authz.Check(test.caller, test.action, test.on)
			if got := sallyport.KindOf(err); got != test.want {
				t.Fatalf("got %q (%v), want %q", got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got the text %q, want %q in it", err, test.text)
			}
		})
	}
}

// TestUnion: access adds up, and nothing takes away.
func TestUnion(t *testing.T) {
	c := sallyport.Caller{Account: account, Principal: user, Access: sallyport.Access{
		Roles:      sallyport.Roles(sallyport.RoleRead | sallyport.RoleFinanceAdmin),
		Projects:   map[string]sallyport.ProjectRoles{project: sallyport.ProjectRoles(sallyport.ProjectList | sallyport.ProjectWrite)},
		Namespaces: map[sallyport.NamespaceID]sallyport.Permission{namespace: sallyport.PermissionRead},
	}}
	r := authz.Resource{Account: account, Project: project, Namespace: namespace}
	for _, a := range []authz.Action{authz.UserList, authz.UsageGet, authz.ProjectGet, authz.DataWrite} {
		if err := authz.Check(c, a, r); err != nil {
			t.Errorf("%s: got %v, want it allowed", a, err)
		}
	}
	if err := authz.Check(c, authz.NamespaceUpdate, r); !errors.Is(err, sallyport.PermissionDenied) {
		t.Errorf("got %v, want PermissionDenied: no part gives admin", err)
	}
}

func TestNeed(t *testing.T) {
	read := authz.Need{Scope: authz.Namespace, Permission: sallyport.PermissionRead}
	write := authz.Need{Scope: authz.Namespace, Permission: sallyport.PermissionWrite}
	tests := []struct {
		name     string
		need     authz.Need
		held     sallyport.Permission
		readOnly bool
		want     bool
	}{
		{"enough", read, sallyport.PermissionRead, false, true},
		{"more than enough", read, sallyport.PermissionAdmin, true, true},
		{"too little", write, sallyport.PermissionRead, false, false},
		{"nothing", read, sallyport.NoPermission, false, false},
		{"read-only key", write, sallyport.PermissionAdmin, true, false},
		{"the zero need is nobody's", authz.Need{}, sallyport.PermissionAdmin, false, false},
		{"a need without permission is nobody's", authz.Need{Scope: authz.Namespace}, sallyport.PermissionAdmin, false, false},
		{"cluster methods are not a namespace's", authz.Need{Scope: authz.Cluster, Permission: sallyport.PermissionRead}, sallyport.PermissionAdmin, false, false},
	}
	for _, test := range tests {
		if got := test.need.Met(test.held, test.readOnly); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	if _, ok := authz.MethodNeed("/temporal.api.workflowservice.v1.WorkflowService/LaunchRockets"); ok {
		t.Error("an unknown method has a need")
	}
	n := testing.AllocsPerRun(100, func() {
		need, _ := authz.MethodNeed("/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution")
		if !need.Met(sallyport.PermissionWrite, false) {
			t.Fatal("write does not let a workflow start")
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
