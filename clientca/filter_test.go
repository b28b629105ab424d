package clientca_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
)

func (a *tenant) mapFilter(caller sallyport.Caller, namespace, id string, m clientca.Map) error {
	_, _, err := a.cas.MapFilter(a.t.Context(), caller, op("MapCertificateFilter"), namespace, id, m, false)
	return err
}

func (a *tenant) addFilter(caller sallyport.Caller, namespace string, f credential.Filter, m clientca.Map) error {
	_, _, err := a.cas.AddFilter(a.t.Context(), caller, op("AddCertificateFilter"), namespace, f, m, false)
	return err
}

func (a *tenant) removeFilter(namespace, id string, force bool) error {
	_, _, err := a.cas.RemoveFilter(a.t.Context(), a.owner, op("RemoveCertificateFilter"), namespace, id, force)
	return err
}

func TestFilters(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ca := newCA(t, "one")
	n := a.namespace("orders", ca.pem)
	robot := a.robot(sallyport.ScopeAccount, on("orders", sallyport.PermissionWrite))
	readers, robots := credential.Filter{CommonName: "reader-*"}, credential.Filter{OrganizationalUnit: "Robots"}
	want(t, "one with a map", a.addFilter(a.owner, "orders", readers, clientca.Map{Permission: "read"}), "", "")
	want(t, "one without", a.addFilter(a.owner, "orders", robots, clientca.Map{}), "", "")
	want(t, "one in another case", a.addFilter(a.owner, "orders", credential.Filter{CommonName: "READER-*"}, clientca.Map{}), sallyport.AlreadyExists, "", readers.ID())
	want(t, "mapping", a.mapFilter(a.owner, "orders", robots.ID(), clientca.Map{ServiceAccount: robot}), "", "")
	want(t, "mapping again", a.mapFilter(a.owner, "orders", robots.ID(), clientca.Map{ServiceAccount: robot}), sallyport.Invalid, "", "nothing to change")
	want(t, "mapping none", a.mapFilter(a.owner, "orders", strings.Repeat("0", 32), clientca.Map{Permission: "read"}), sallyport.NotFound, "filter_id")
	wantObject := func(what string, filters ...object.CertificateFilter) {
		t.Helper()
		o, _ := a.object(n)
		if diff := cmp.Diff(object.ClientCAs{Certificates: [][]byte{ca.cert.Raw}, Filters: filters}, o); diff != "" {
			t.Errorf("%s: what authorizers know (-want +got):\n%s", what, diff)
		}
	}
	wantObject("mapped", object.CertificateFilter{CommonName: "reader-*", Permission: "read"}, object.CertificateFilter{OrganizationalUnit: "Robots", ServiceAccount: robot})

	a.saw(n, ca.leaf(t, "reader-1"), func(u *clientca.Use) { u.CA, u.Filter = credential.Fingerprint(ca.cert), 1 })
	a.flush(t)
	list, err := a.cas.Filters(t.Context(), a.owner, "orders")
	want(t, "listing", err, "", "")
	expected := []clientca.Filter{
		{ID: readers.ID(), Filter: readers, Map: clientca.Map{Permission: "read"}, Present: true, LastSeen: a.now().UTC().Truncate(time.Minute)},
		{ID: robots.ID(), Filter: robots, Map: clientca.Map{ServiceAccount: robot}, Present: true},
	}
	if diff := cmp.Diff(expected, list, cmpopts.EquateApproxTime(time.Minute)); diff != "" {
		t.Errorf("filters (-want +got):\n%s", diff)
	}
	want(t, "removing one in use", a.removeFilter("orders", readers.ID(), false), sallyport.Conflict, "", "CN=reader-1")
	want(t, "removing one that is not", a.removeFilter("orders", robots.ID(), false), "", "")
	want(t, "removing the last, which opens", a.removeFilter("orders", readers.ID(), false), "", "")
	wantObject("none")

	// Maps wait for their filters, whatever case they come back in.
	list, err = a.cas.Filters(t.Context(), a.owner, "orders")
	if want(t, "listing", err, "", ""); len(list) != 2 || list[0].Present || list[1].Present || list[0].ID > list[1].ID {
		t.Errorf("maps without filters: %+v", list)
	}
	want(t, "an update", a.update("orders", func(p *directory.NamespaceParams) {
		p.CertificateFilters = []credential.Filter{{OrganizationalUnit: "robots"}, {CommonName: "reader-*"}}
	}), "", "")
	wantObject("back", object.CertificateFilter{OrganizationalUnit: "robots", ServiceAccount: robot}, object.CertificateFilter{CommonName: "reader-*", Permission: "read"})

	// A service account that has gone stays named: it gives nothing.
	if _, err := a.directory.DeleteServiceAccount(t.Context(), a.owner, op("DeleteServiceAccount"), robot, 0); err != nil {
		t.Fatal(err)
	}
	wantObject("gone", object.CertificateFilter{OrganizationalUnit: "robots", ServiceAccount: robot}, object.CertificateFilter{CommonName: "reader-*", Permission: "read"})
	list, err = a.cas.Filters(t.Context(), a.owner, "orders")
	if want(t, "listing", err, "", ""); len(list) != 2 || !strings.Contains(list[0].Warning, "is gone") || list[1].Warning != "" {
		t.Errorf("a map to a service account that is gone: %+v", list)
	}
	want(t, "unmapping", a.mapFilter(a.owner, "orders", robots.ID(), clientca.Map{}), "", "")
	want(t, "unmapping again", a.mapFilter(a.owner, "orders", robots.ID(), clientca.Map{}), sallyport.Invalid, "", "nothing to change")
	want(t, "an update", a.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = []credential.Filter{robots} }), "", "")
	want(t, "unmapping one that is not there", a.mapFilter(a.owner, "orders", readers.ID(), clientca.Map{}), "", "")
	want(t, "and again", a.mapFilter(a.owner, "orders", readers.ID(), clientca.Map{}), sallyport.NotFound, "filter_id")
	wantObject("unmapped", object.CertificateFilter{OrganizationalUnit: "Robots"})

	// A namespace of the same name does not bring them back.
	want(t, "mapping", a.mapFilter(a.owner, "orders", robots.ID(), clientca.Map{Permission: "read"}), "", "")
	if _, err := a.directory.DeleteNamespace(t.Context(), a.owner, op("DeleteNamespace"), "orders", 0); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := a.pool.QueryRow(t.Context(), `select count(*) from filter_maps where account_id = $1`, a.account).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d maps are left, %v", left, err)
	}
	n = a.namespace("orders", ca.pem, robots)
	wantObject("another namespace", object.CertificateFilter{OrganizationalUnit: "Robots"})
	if seen := a.allSeen("orders"); len(seen) > 0 {
		t.Errorf("another namespace's certificates: %+v", seen)
	}
}

func TestFilterLimits(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	var filters []credential.Filter
	for i := range 25 {
		filters = append(filters, credential.Filter{CommonName: fmt.Sprint("worker-", i)})
	}
	a.namespace("orders", newCA(t, "one").pem, filters...)
	want(t, "the 26th", a.addFilter(a.owner, "orders", credential.Filter{CommonName: "x"}, clientca.Map{}), sallyport.Invalid, "filter", "25")
	for i := range 100 {
		f := credential.Filter{CommonName: fmt.Sprint("dormant-", i)}
		want(t, "an update", a.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = []credential.Filter{f} }), "", "")
		want(t, "a map", a.mapFilter(a.owner, "orders", f.ID(), clientca.Map{Permission: "read"}), "", "")
	}
	want(t, "the 101st map", a.addFilter(a.owner, "orders", credential.Filter{CommonName: "x"}, clientca.Map{Permission: "read"}), sallyport.Conflict, "", "limit")
	if n := a.read("orders"); len(n.CertificateFilters) != 1 {
		t.Errorf("the filter was added without its map: %v", n.CertificateFilters)
	}
}

// TestNoClimbing: a map to a service account takes the right to make credentials
// for it, whatever one is on the namespace.
func TestNoClimbing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t), w.tenant(t)
	filter, other := credential.Filter{CommonName: "a"}, credential.Filter{CommonName: "b"}
	a.namespace("orders", newCA(t, "one").pem, filter)
	a.namespace("other", nil)
	powerful := a.robot(sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleAdmin})
	bound := a.robot(sallyport.ScopeNamespace, on("orders", sallyport.PermissionRead))
	elsewhere := a.robot(sallyport.ScopeNamespace, on("other", sallyport.PermissionWrite))
	inProject := a.robot(sallyport.ScopeProject, directory.Access{Projects: map[string]sallyport.ProjectRole{a.project: sallyport.ProjectWrite}})
	foreign := b.robot(sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleRead})

	admin := a.user(on("orders", sallyport.PermissionAdmin))
	developer := a.user(directory.Access{Role: sallyport.RoleDeveloper, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionAdmin}})
	global := a.user(directory.Access{Role: sallyport.RoleAdmin})
	manager := a.user(directory.Access{Role: sallyport.RoleRead, Projects: map[string]sallyport.ProjectRole{a.project: sallyport.ProjectAdmin}})
	narrowed := global
	narrowed.Limits.Namespaces = []sallyport.NamespaceID{a.read("orders").ID}
	byCertificate := a.as(powerful)
	byCertificate.Credential = sallyport.Credential{Kind: "certificate", ID: "cert_a"}
	// As himself, a service account that administers the namespace.
	self := a.as(a.robot(sallyport.ScopeAccount, on("orders", sallyport.PermissionAdmin)))

	for _, tt := range []struct {
		name   string
		caller sallyport.Caller
		m      clientca.Map
		kind   sallyport.Kind
		field  string // of MapFilter
	}{
		{"the admin, to a powerful one", admin, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"the admin, to one of the project", admin, clientca.Map{ServiceAccount: inProject}, sallyport.PermissionDenied, ""},
		{"the admin, to one of a namespace that is not his", admin, clientca.Map{ServiceAccount: elsewhere}, sallyport.PermissionDenied, ""},
		{"the admin, to another account's", admin, clientca.Map{ServiceAccount: foreign}, sallyport.PermissionDenied, ""},
		{"the admin, to one that is not there", admin, clientca.Map{ServiceAccount: "sa_nobody"}, sallyport.PermissionDenied, ""},
		{"a developer, to a powerful one", developer, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"the project's admin, to a powerful one", manager, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"a narrowed key, to a powerful one", narrowed, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"a narrowed key, to one of the namespace", narrowed, clientca.Map{ServiceAccount: bound}, sallyport.PermissionDenied, ""},
		{"a service account, to a powerful one", self, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"an owner, to another account's", a.owner, clientca.Map{ServiceAccount: foreign}, sallyport.NotFound, "service_account_id"},
		{"an owner, to a user", a.owner, clientca.Map{ServiceAccount: admin.Principal.ID}, sallyport.NotFound, "service_account_id"},
		{"an owner, to one of another namespace", a.owner, clientca.Map{ServiceAccount: elsewhere}, sallyport.Invalid, "service_account_id"},
		{"an admin's certificate, to itself", byCertificate, clientca.Map{ServiceAccount: powerful}, sallyport.PermissionDenied, ""},
		{"both", a.owner, clientca.Map{ServiceAccount: powerful, Permission: "read"}, sallyport.Invalid, "permission"},
		{"admin as a permission", a.owner, clientca.Map{Permission: "admin"}, sallyport.Invalid, "permission"},
		{"write as a permission", a.owner, clientca.Map{Permission: "write"}, sallyport.Invalid, "permission"},
		{"none as a permission", a.owner, clientca.Map{Permission: "none"}, sallyport.Invalid, "permission"},
		{"a global admin, to a powerful one", global, clientca.Map{ServiceAccount: powerful}, "", ""},
		{"a global admin, to one of the project", global, clientca.Map{ServiceAccount: inProject}, "", ""},
		{"the project's admin, to one of the namespace", manager, clientca.Map{ServiceAccount: bound}, "", ""},
		{"the project's admin, to one of the project", manager, clientca.Map{ServiceAccount: inProject}, "", ""},
		{"the admin, to one of the namespace", admin, clientca.Map{ServiceAccount: bound}, "", ""},
		{"a service account, to itself", self, clientca.Map{ServiceAccount: self.Principal.ID}, "", ""},
		{"the admin, to read", admin, clientca.Map{Permission: "read"}, "", ""},
		{"the admin, to nothing", admin, clientca.Map{}, "", ""},
	} {
		caller := a.as(tt.caller.Principal.ID)
		caller.Limits, caller.Credential = tt.caller.Limits, tt.caller.Credential
		want(t, tt.name, a.mapFilter(caller, "orders", filter.ID(), tt.m), tt.kind, tt.field)
		if tt.kind != "" {
			field := tt.field
			if field != "" {
				field = "filter." + field
			}
			want(t, tt.name+", with a new filter", a.addFilter(caller, "orders", other, tt.m), tt.kind, field)
		}
	}
	if n := a.read("orders"); len(n.CertificateFilters) != 1 {
		t.Errorf("a refused filter was added: %v", n.CertificateFilters)
	}

	sa, err := a.directory.ServiceAccount(t.Context(), a.owner, bound)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.directory.DeleteServiceAccount(t.Context(), a.owner, op("DeleteServiceAccount"), bound, sa.Revision); err != nil {
		t.Fatal(err)
	}
	want(t, "one that has gone", a.mapFilter(a.owner, "orders", filter.ID(), clientca.Map{ServiceAccount: bound}), sallyport.NotFound, "service_account_id")
}

// TestUpdateAndMapAtOnce: whichever comes first, authorizers know both.
func TestUpdateAndMapAtOnce(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	one, two := newCA(t, "one"), newCA(t, "two")
	filter := credential.Filter{CommonName: "a"}
	n := a.namespace("orders", one.pem, filter)
	for i := range 20 {
		m := clientca.Map{Permission: "read"}
		bundle := two.pem
		if i%2 == 1 {
			m, bundle = clientca.Map{}, one.pem
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.mapFilter(a.owner, "orders", filter.ID(), m); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			p := a.read("orders").NamespaceParams
			p.ClientCA = bundle
			if _, _, err := a.directory.UpdateNamespace(t.Context(), a.owner, op("UpdateNamespace"), "orders", 0, p); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		want := object.ClientCAs{Certificates: [][]byte{two.cert.Raw}, Filters: []object.CertificateFilter{{CommonName: "a", Permission: m.Permission}}}
		if i%2 == 1 {
			want.Certificates[0] = one.cert.Raw
		}
		if o, _ := a.object(n); !cmp.Equal(want, o) {
			t.Fatalf("what authorizers know (-want +got):\n%s", cmp.Diff(want, o))
		}
	}
}
