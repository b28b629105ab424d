package credential_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

func asError(err error, known **sallyport.Error) bool { return errors.As(err, known) }

func TestFilterMatch(t *testing.T) {
	template := leaf("")
	template.Subject = pkix.Name{
		CommonName: "Worker-1.Example.com", Organization: []string{"Example GmbH", "Bücher Ärger"}, OrganizationalUnit: []string{"", "Kitchen"},
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3, 3}, Value: "admin"}, {Type: asn1.ObjectIdentifier{1, 2}, Value: "admin"}},
	}
	template.DNSNames, template.EmailAddresses = []string{"A.example.com"}, []string{"Worker@Example.com"}
	template.URIs = []*url.URL{uri(t, "spiffe://example.org/Worker")}
	template.IPAddresses = []net.IP{net.ParseIP("192.0.2.7"), net.ParseIP("2001:DB8::1")}
	p := credential.NewPresented(certs(root(t, ca("Root"), "P-256").issue(t, template)))
	if p.Problem != "" {
		t.Fatal(p.Problem)
	}
	cn := func(value string) credential.Filter { return credential.Filter{CommonName: value} }
	o := func(value string) credential.Filter { return credential.Filter{Organization: value} }
	ou := func(value string) credential.Filter { return credential.Filter{OrganizationalUnit: value} }
	san := func(value string) credential.Filter { return credential.Filter{SubjectAlternativeName: value} }
	tests := []struct {
		filter credential.Filter
		want   bool
	}{
		{credential.Filter{}, false},
		{cn("worker-1.example.com"), true},
		{cn("WORKER-1.EXAMPLE.COM"), true},
		{cn("worker-1.example.co"), false},
		{cn("worker-1.example.comm"), false},
		{cn("worker*"), true},
		{cn("*.example.com"), true},
		{cn("*worker-1.example.com"), true},
		{cn("worker-1.example.com*"), true},
		{cn("*worker"), false},
		{cn("example*"), false},
		{cn("wor\u212Aer*"), false}, // the Kelvin sign, whose lower case is k
		{cn("admin"), false},        // another attribute
		{o("example gmbh"), true},
		{o("BÜCHER Ärger"), true},
		{o("büCHER*"), true},
		{o("*ÄRGER"), true},
		{o("*ÖRGER"), false},
		{o("bucher*"), false},
		{o("other"), false},
		{ou("kitchen"), true},
		{ou("*chen"), true},
		{san("a.example.com"), true},
		{san("worker@example.com"), true},
		{san("SPIFFE://example.org/*"), true},
		{san("192.0.2.7"), true},
		{san("192.0.2.*"), true},
		{san("2001:db8::1"), true},
		{san("worker-1.example.com"), false}, // the common name is none
		{credential.Filter{CommonName: "worker*", Organization: "example*", OrganizationalUnit: "kitchen", SubjectAlternativeName: "*@example.com"}, true},
		{credential.Filter{CommonName: "worker*", Organization: "other"}, false},
	}
	for _, test := range tests {
		if got := test.filter.Match(p); got != test.want {
			t.Errorf("%+v: got %v", test.filter, got)
		}
		if test.filter != (credential.Filter{}) {
			if err := test.filter.Check(); err != nil {
				t.Errorf("%+v: %v", test.filter, err)
			}
		}
		if allocated := testing.AllocsPerRun(10, func() { test.filter.Match(p) }); allocated != 0 {
			t.Errorf("%+v: %v allocations", test.filter, allocated)
		}
	}
	if cn("*x").Match(credential.NewPresented(nil)) {
		t.Error("nothing matches")
	}
}

func TestFilterCheck(t *testing.T) {
	tests := []struct {
		filter credential.Filter
		want   string
	}{
		{credential.Filter{}, "the filter is empty"},
		{credential.Filter{CommonName: "*"}, "common_name: may have one *"},
		{credential.Filter{CommonName: "**"}, "common_name: may have one *"},
		{credential.Filter{Organization: ".example.*."}, "organization: may have one *"},
		{credential.Filter{OrganizationalUnit: "code.*.com"}, "organizational_unit: may have one *"},
		{credential.Filter{SubjectAlternativeName: "*.example.*"}, "subject_alternative_name: may have one *"},
		{credential.Filter{CommonName: strings.Repeat("a", 257)}, "common_name: has more than 256 bytes"},
		{credential.Filter{CommonName: "a\x00b"}, "common_name: has characters that are no text"},
		{credential.Filter{CommonName: "a\xffb"}, "common_name: has characters that are no text"},
		{credential.Filter{CommonName: "a*", Organization: "Example Code*"}, ""},
		{credential.Filter{CommonName: strings.Repeat("a", 256)}, ""},
	}
	for _, test := range tests {
		err := test.filter.Check()
		if test.want == "" && err != nil || test.want != "" && (sallyport.KindOf(err) != sallyport.Invalid || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%+v: got %v, want %q", test.filter, err, test.want)
		}
	}
}

func TestCheckFilters(t *testing.T) {
	var many []credential.Filter
	for i := range 26 {
		many = append(many, credential.Filter{CommonName: fmt.Sprint("worker", i)})
	}
	one := credential.Filter{CommonName: "worker"}
	tests := []struct {
		name, want string
		list       []credential.Filter
	}{
		{"none", "", nil},
		{"25", "", many[:25]},
		{"26", "there are 26 filters; at most 25 are possible", many},
		{"bad", "[1].organization: may have one *", []credential.Filter{one, {Organization: "*"}}},
		{"empty", "[1]: the filter is empty", []credential.Filter{one, {}}},
		{"twice", "[2]: is the same as filter 1; leave one out", []credential.Filter{one, {Organization: "a"}, {CommonName: "WORKER"}}},
	}
	for _, test := range tests {
		err := credential.CheckFilters(test.list)
		if test.want == "" && err != nil || test.want != "" && (sallyport.KindOf(err) != sallyport.Invalid || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestFilterID(t *testing.T) {
	f := credential.Filter{CommonName: "Worker*", Organization: "Example"}
	// It is stored: it must never change.
	if got, want := f.ID(), "6a42a9c2ac819112cfdd659f8e905748"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if f.ID() != (credential.Filter{CommonName: "worker*", Organization: "EXAMPLE"}).ID() {
		t.Error("case matters")
	}
	for _, other := range []credential.Filter{{}, {CommonName: "worker*"}, {CommonName: "worker*", OrganizationalUnit: "example"}, {CommonName: "worker*e", Organization: "xample"}} {
		if other.ID() == f.ID() {
			t.Errorf("%+v has the same id", other)
		}
	}
}

func TestFilterJSON(t *testing.T) {
	f := credential.Filter{CommonName: "a", Organization: "b", OrganizationalUnit: "c", SubjectAlternativeName: "d"}
	got, err := json.Marshal([]credential.Filter{f, {CommonName: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"common_name":"a","organization":"b","organizational_unit":"c","subject_alternative_name":"d"},{"common_name":"a"}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
