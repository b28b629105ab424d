package certs_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// Who may do what with the certificates of a service account that is bound to
// the namespace orders: "yes", or the kind of the refusal.
func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	a.Namespace(t, "orders")
	a.Namespace(t, "other")
	in := func(name string, p sallyport.Permission) directory.Access {
		return directory.Access{Namespaces: map[string]sallyport.Permission{name: p}}
	}
	bound := a.ServiceAccount(t, sallyport.ScopeNamespace, in("orders", sallyport.PermissionWrite))
	wide := a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))
	own := issue(t, a, certs.IssueParams{ServiceAccount: bound.ID})
	byOwn, err := a.CallWith(t, own)
	if err != nil {
		t.Fatal(err)
	}
	byAdminCert, err := a.CallWith(t, issue(t, a, certs.IssueParams{ServiceAccount: wide.ID}))
	if err != nil {
		t.Fatal(err)
	}
	user := func(access directory.Access, limits sallyport.Limits) sallyport.Caller {
		return a.Caller(t, a.User(t, access), limits)
	}
	const yes, denied, none = "yes", string(sallyport.PermissionDenied), string(sallyport.NotFound)
	// Columns: issue, renew, get, revoke; of what customers' CAs issued: revoke; list revocations.
	for name, test := range map[string]struct {
		caller sallyport.Caller
		want   []string
	}{
		"owner":                            {a.Owner, []string{yes, yes, yes, yes, yes, yes}},
		"admin":                            {user(role(sallyport.RoleAdmin), sallyport.Limits{}), []string{yes, yes, yes, yes, yes, yes}},
		"developer":                        {user(role(sallyport.RoleDeveloper), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"reader":                           {user(role(sallyport.RoleRead), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"admin of its namespace":           {user(in("orders", sallyport.PermissionAdmin), sallyport.Limits{}), []string{yes, yes, yes, yes, denied, denied}},
		"writer of its namespace":          {user(in("orders", sallyport.PermissionWrite), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"admin of another namespace":       {user(in("other", sallyport.PermissionAdmin), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"the service account by a key":     {a.Caller(t, bound, sallyport.Limits{}), []string{yes, yes, yes, yes, denied, denied}},
		"the service account, narrowed":    {a.Caller(t, bound, sallyport.Limits{ReadOnly: true}), []string{denied, denied, yes, denied, denied, denied}},
		"the certificate itself":           {byOwn, []string{denied, yes, yes, denied, denied, denied}}, // what it would revoke is another
		"an admin's certificate":           {byAdminCert, []string{yes, yes, yes, yes, yes, yes}},
		"another account's owner":          {b.Owner, []string{none, none, none, none, yes, yes}}, // the last two in his own account
		"an operator":                      {a.Operator, []string{yes, yes, yes, yes, yes, yes}},
		"another account with the account": {sallyport.Caller{Account: a.ID, Principal: b.Owner.Principal, Head: b.Owner.Head, Credential: b.Owner.Credential}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, err := range attempts(t, a, test.caller, bound, own) {
				switch {
				case err == nil:
					got = append(got, yes)
				default:
					got = append(got, string(sallyport.KindOf(err)))
				}
			}
			if test.want == nil { // nobody at all
				if slices.Contains(got, yes) {
					t.Errorf("got %v", got)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("issue, renew, get, revoke, revoke foreign, list (-want +got):\n%s", diff)
			}
		})
	}
}

// attempts tries everything once. What it revokes is its own.
func attempts(t *testing.T, a *authntest.Tenant, caller sallyport.Caller, sa sallyport.Principal, own certs.Issued) []error {
	t.Helper()
	third := func(_ any, _ journal.Committed, err error) error { return err }
	csr, _ := authntest.CSR(t)
	victim := a.Certificate(t, sa)
	_, get := a.Certs.Get(t.Context(), caller, own.ID)
	_, _, list := a.Certs.Revocations(t.Context(), caller, sallyport.Page{})
	issued, _, issueErr := a.Certs.Issue(t.Context(), caller, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	renewed, _, renewErr := a.Certs.Renew(t.Context(), caller, op("RenewCertificate"), certs.RenewParams{ID: own.ID, CSR: csr})
	revocations, done, revokeErr := a.Certs.Revoke(t.Context(), caller, op("Revoke"), certs.RevokeParams{CertificateID: victim.ID})
	foreign, doneForeign, foreignErr := a.Certs.Revoke(t.Context(), caller, op("Revoke"), certs.RevokeParams{Issuer: victim.Fingerprint})
	return []error{third(issued, done, issueErr), third(renewed, done, renewErr), get, third(revocations, done, revokeErr), third(foreign, doneForeign, foreignErr), list}
}

// A list holds what its reader may read, over pages and over what is between.
func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	a.Namespace(t, "orders")
	orders := directory.Access{Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionAdmin}}
	bound := a.ServiceAccount(t, sallyport.ScopeNamespace, orders)
	wide := robot(t, a)
	var ofBound, ofWide []string
	for range 5 {
		ofBound = append(ofBound, issue(t, a, certs.IssueParams{ServiceAccount: bound.ID}).ID)
		ofWide = append(ofWide, issue(t, a, certs.IssueParams{ServiceAccount: wide.ID}).ID)
	}
	issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID})
	all := slices.Sorted(slices.Values(append(slices.Clone(ofBound), ofWide...)))
	slices.Sort(ofBound)
	slices.Sort(ofWide)
	for name, test := range map[string]struct {
		caller sallyport.Caller
		of     string
		want   []string
	}{
		"owner":                          {a.Owner, "", all},
		"owner, of one":                  {a.Owner, wide.ID, ofWide},
		"owner, of nobody":               {a.Owner, "sa_aaaaaaaaaaaaaaaa", nil},
		"admin of the namespace":         {a.Caller(t, a.User(t, orders), sallyport.Limits{}), "", ofBound},
		"admin of the namespace, others": {a.Caller(t, a.User(t, orders), sallyport.Limits{}), wide.ID, nil},
		"the service account":            {a.Caller(t, wide, sallyport.Limits{}), "", ofWide},
		"the service account, others":    {a.Caller(t, wide, sallyport.Limits{}), bound.ID, nil},
	} {
		var got []string
		for p := (sallyport.Page{Size: 2}); ; {
			list, next, err := a.Certs.List(t.Context(), test.caller, test.of, p)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, c := range list {
				got = append(got, c.ID)
			}
			if p.Token = next; next == "" {
				break
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, next, err := a.Certs.List(t.Context(), a.Owner, "", sallyport.Page{Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Certs.List(t.Context(), b.Owner, "", sallyport.Page{Size: 2, Token: next})
	wantKind(t, "another account's page", err, sallyport.Invalid, "page_token")
	list, _, err := b.Certs.List(t.Context(), b.Owner, wide.ID, sallyport.Page{})
	if err != nil || len(list) != 0 {
		t.Errorf("another account's service account: %d certificates, %v", len(list), err)
	}
	issuers, roots, err := a.Certs.Issuers(t.Context(), a.Caller(t, wide, sallyport.Limits{}))
	if err != nil || len(issuers) != 1 || !issuers[0].Current || len(authntest.Chain(t, roots)) != 1 {
		t.Errorf("issuers: %+v, %v", issuers, err)
	}
}
