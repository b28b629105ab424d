package cloudapi

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
)

// TestTexts pins how old clients spell enumerations.
func TestTexts(t *testing.T) {
	t.Parallel()
	c := call{version: &apiVersion{0, 3, 0}}
	tests := []struct{ got, want string }{
		{roleText(identity.AccountAccess_ROLE_OWNER), "owner"},
		{roleText(identity.AccountAccess_ROLE_FINANCE_ADMIN), "financeadmin"},
		{roleText(identity.AccountAccess_ROLE_METRICS_READ), "metricsread"},
		{roleText(identity.AccountAccess_ROLE_UNSPECIFIED), ""},
		{permissionText(identity.NamespaceAccess_PERMISSION_WRITE), "write"},
		{ownerText(identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT), "service-account"},
		{ownerText(identity.OwnerType_OWNER_TYPE_USER), "user"},
		{enumText(operation.AsyncOperation_STATE_IN_PROGRESS, "STATE_"), "in_progress"},
		{c.oldState(resource.ResourceState_RESOURCE_STATE_ACTIVATION_FAILED), "activationfailed"},
		{attributeText(namespace.NamespaceSpec_SEARCH_ATTRIBUTE_TYPE_KEYWORD_LIST), "keyword_list"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("text = %q, want %q", tt.got, tt.want)
		}
	}
}

// TestAccessRoundTrip: every role and permission comes back as it went.
func TestAccessRoundTrip(t *testing.T) {
	t.Parallel()
	c := call{caller: sallyport.Caller{Account: "aaaaa"}}
	for number, name := range identity.AccountAccess_Role_name {
		sent := &identity.AccountAccess{Role: identity.AccountAccess_Role(number)}
		role, err := accountRole("role", sent)
		if err != nil || !proto.Equal(c.accountAccess(role), sent) {
			t.Errorf("%s: %v, %v, want it back", name, c.accountAccess(role), err)
		}
	}
	for number, name := range identity.NamespaceAccess_Permission_name {
		sent := &identity.NamespaceAccess{Permission: identity.NamespaceAccess_Permission(number)}
		p, err := permissionOf("access", sent)
		if got := c.namespaceAccess(p); err != nil || number != 0 && !proto.Equal(got, sent) || number == 0 && got != nil {
			t.Errorf("%s: %v, %v, want it back", name, got, err)
		}
	}
	for number, name := range identity.ProjectAccess_ProjectRole_name {
		sent := &identity.ProjectAccess{Role: identity.ProjectAccess_ProjectRole(number)}
		role, err := projectRole("access", sent)
		if number == 0 {
			continue // required
		}
		if err != nil || !proto.Equal(projectAccess(role), sent) {
			t.Errorf("%s: %v, %v, want it back", name, projectAccess(role), err)
		}
	}
	if got := c.access(directory.Access{}); got.GetAccountAccess().GetRole() != 0 || got.GetNamespaceAccesses() != nil {
		t.Errorf("no access = %v, want the role unspecified and nothing else", got)
	}
}

func FuzzCheckCA(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nA: b\n\n-----END CERTIFICATE-----"))
	f.Add([]byte("-----BEGIN "))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		err := checkCA("ca", bundle)
		if err != nil && sallyport.KindOf(err) != sallyport.Invalid {
			t.Errorf("checkCA: %v, want Invalid", err)
		}
		expiredCAs(bundle, time.Now())
	})
}

func FuzzNamespaceName(f *testing.F) {
	f.Add("orders.aaaaa")
	f.Add(".aaaaa")
	f.Add("a.b.aaaaa")
	c := call{caller: sallyport.Caller{Account: "aaaaa"}}
	f.Fuzz(func(t *testing.T, full string) {
		if name, err := c.namespaceName("namespace", full); err == nil && c.fullName(name) != full {
			t.Errorf("namespaceName(%q) = %q", full, name)
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("v0.3.0")
	f.Add("2025-07-09-00")
	f.Add("v..")
	f.Fuzz(func(t *testing.T, s string) {
		if v := parseVersion(s); v != nil && (v[0] < 0 || v[1] < 0 || v[2] < 0) {
			t.Errorf("parseVersion(%q) = %v", s, *v)
		}
	})
}

// FuzzNormalSpec: whatever a client sends, what is stored reads back the same
// and means the same as itself.
func FuzzNormalSpec(f *testing.F) {
	seed, err := proto.Marshal(&namespace.NamespaceSpec{Name: "a", Regions: []string{"r"}, RetentionDays: 1, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		sent := &namespace.NamespaceSpec{}
		if proto.Unmarshal(encoded, sent) != nil {
			return
		}
		spec, err := normalSpec(sent)
		if err != nil {
			if sallyport.KindOf(err) != sallyport.Invalid {
				t.Errorf("normalSpec: %v, want Invalid", err)
			}
			return
		}
		params, err := paramsOf(spec)
		if err != nil {
			return
		}
		back, err := decodeSpec(params.Spec)
		if err != nil || !proto.Equal(back, spec) || !sameMeaning(back, spec) {
			t.Errorf("stored spec reads back as %v, %v, want %v", back, err, spec)
		}
	})
}

func TestEnforcement(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		from feed.Enforcement
		want *adminv1.Enforcement
	}{
		{feed.Enforcement{Instance: "i", Authorizer: "sa_x", Cells: []string{"east"}, State: feed.Enforced, EnforcedAt: at, Took: time.Second},
			&adminv1.Enforcement{Instance: "i", AuthorizerId: "sa_x", Cells: []string{"east"}, State: adminv1.Enforcement_STATE_ENFORCED,
				EnforcedTime: timestamppb.New(at), Took: durationpb.New(time.Second)}},
		{feed.Enforcement{Instance: "i", State: feed.Missing}, &adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_MISSING}},
		{feed.Enforcement{Instance: "i", State: feed.Diverged}, &adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_DIVERGED}},
		{feed.Enforcement{Instance: "i", State: feed.Lapsed, MayServeUntil: at},
			&adminv1.Enforcement{Instance: "i", State: adminv1.Enforcement_STATE_LAPSED, MayServeUntil: timestamppb.New(at)}},
	}
	for _, tt := range tests {
		if got := enforcementOf(tt.from); !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.from.State, got, tt.want)
		}
	}
}

// TestCheckCA is about chains and signatures; the forms are in TestBadInput.
func TestCheckCA(t *testing.T) {
	t.Parallel()
	root, rootKey := issue(t, "root", nil, nil)
	middle, _ := issue(t, "middle", root, rootKey)
	other, _ := issue(t, "root", nil, nil) // of the same name, another key
	tests := []struct {
		name  string
		certs []*x509.Certificate
		text  string // of the error, "" for none
	}{
		{"root", []*x509.Certificate{root}, ""},
		{"intermediate before its root", []*x509.Certificate{middle, root}, ""},
		{"two roots of one name", []*x509.Certificate{other, root, middle}, ""},
		{"intermediate alone", []*x509.Certificate{middle}, "add its issuer"},
		{"intermediate with a root of the right name and the wrong key", []*x509.Certificate{other, middle}, "certificate 2"},
		{"Ed25519", []*x509.Certificate{ed25519CA(t)}, "is signed with"},
	}
	for _, tt := range tests {
		var bundle []byte
		for _, c := range tt.certs {
			bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		err := checkCA("ca", bundle)
		if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.text)
		}
	}
}

// issue makes a certificate, signed by itself if there is no issuer.
func issue(t *testing.T, name string, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := caTemplate(name)
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	return signed(t, template, issuer, &key.PublicKey, issuerKey), key
}

func ed25519CA(t *testing.T) *x509.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := caTemplate("ed25519")
	return signed(t, template, template, public, private)
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

func signed(t *testing.T, template, issuer *x509.Certificate, public, signer any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
