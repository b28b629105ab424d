package replica_test

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	start    = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"
	describe = "/temporal.api.workflowservice.v1.WorkflowService/DescribeWorkflowExecution"
	health   = "/grpc.health.v1.Health/Check"
	cluster  = "/temporal.api.workflowservice.v1.WorkflowService/GetClusterInfo"
	register = "/temporal.api.workflowservice.v1.WorkflowService/RegisterNamespace"
	admin    = "/temporal.server.api.adminservice.v1.AdminService/DescribeCluster"
)

// policy is an account's objects in the making.
type policy struct {
	account sallyport.AccountID
	head    sallyport.Head
	objects map[string]object.Object
}

func newPolicy(account sallyport.AccountID) *policy {
	p := &policy{account: account, objects: map[string]object.Object{}}
	p.head.Epoch = 1
	put(p, object.KindAccount, string(account), object.Account{Status: object.Active})
	return p
}

func put[V object.Value](p *policy, kind object.Kind, id string, v V) {
	p.raw(kind, id, object.Encode(v))
}

func (p *policy) raw(kind object.Kind, id string, data []byte) {
	p.objects[string(kind)+" "+id] = object.Object{Kind: kind, ID: id, Data: data}
}

func (p *policy) grant(subject string, scope sallyport.Scope, target, role string) {
	put(p, object.KindGrant, object.GrantID(subject, scope, target), object.Grant{Subject: subject, Scope: scope, Target: target, Role: role})
}

func (p *policy) key(owner string, change func(*object.Key)) (header, id string) {
	id = sallyport.NewID("")
	token, hash := credential.NewAPIKey(p.account, id)
	k := object.Key{Owner: owner, Hash: hash, Status: object.Active, Epoch: 1, Expires: now.Add(time.Hour).UnixMicro()}
	if change != nil {
		change(&k)
	}
	put(p, object.KindKey, id, k)
	return "Bearer " + token.Reveal(), id
}

func (p *policy) principal(id string, kind sallyport.PrincipalKind) {
	put(p, object.KindPrincipal, id, object.Principal{Kind: kind, Status: object.Active, Epoch: 1})
}

func (p *policy) namespace(id, name string) {
	put(p, object.KindNamespace, id, object.Namespace{Name: name, Project: "p_1", Cell: "c1", RetentionDays: 3, Auth: object.NamespaceAuth{APIKey: true}})
}

// batch is the policy as a snapshot.
func (p *policy) batch() replica.Batch {
	p.head.Revision++
	p.head.Hash[0]++
	b := replica.Batch{Account: p.account, Head: p.head}
	for _, o := range p.objects {
		b.Objects = append(b.Objects, o)
		b.Digest.Toggle(o.Kind, o.ID, o.Data, true)
	}
	slices.SortFunc(b.Objects, func(a, b object.Object) int {
		return strings.Compare(string(a.Kind)+a.ID, string(b.Kind)+b.ID)
	})
	return b
}

var now = time.Now()

func load(t testing.TB, policies ...*policy) *replica.Replica {
	t.Helper()
	r, err := replica.Open(replica.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range policies {
		if err := r.Load(p.batch()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// TestDecide reads as the policy of the data plane.
func TestDecide(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	p.namespace("ns_2", "orders.eu")
	put(p, object.KindNamespace, "ns_3", object.Namespace{Name: "mtls", Cell: "c1", Auth: object.NamespaceAuth{MTLS: true}})
	for _, id := range []string{"sa_writer", "sa_reader", "sa_none", "sa_disabled", "u_owner", "u_grouped", "u_project", "u_finance"} {
		kind := sallyport.ServiceAccount
		if strings.HasPrefix(id, "u_") {
			kind = sallyport.User
		}
		p.principal(id, kind)
	}
	put(p, object.KindPrincipal, "sa_disabled", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled, Epoch: 1})
	for _, id := range []string{"sa_writer", "sa_disabled", "sa_gone"} {
		p.grant(id, sallyport.ScopeNamespace, "ns_1", "write")
		p.grant(id, sallyport.ScopeNamespace, "ns_3", "write")
	}
	p.grant("sa_reader", sallyport.ScopeNamespace, "ns_1", "read")
	p.grant("u_owner", sallyport.ScopeAccount, "f45a2", "owner")
	p.grant("u_finance", sallyport.ScopeAccount, "f45a2", "financeadmin")
	p.grant("u_project", sallyport.ScopeProject, "p_1", "write")
	for _, g := range []string{"g_writers", "g_gone"} {
		p.grant(g, sallyport.ScopeNamespace, "ns_1", "write")
		put(p, object.KindMembership, object.MembershipID(g, "u_grouped"), object.Membership{Group: g, User: "u_grouped"})
	}
	put(p, object.KindGroup, "g_writers", object.Group{})
	orphaned := newPolicy("f45a3")
	orphaned.namespace("ns_9", "secret")
	orphaned.principal("sa_x", sallyport.ServiceAccount)
	orphaned.grant("sa_x", sallyport.ScopeNamespace, "ns_9", "write")
	other, _ := orphaned.key("sa_x", nil)
	suspended := newPolicy("f45a4")
	put(suspended, object.KindAccount, "f45a4", object.Account{Status: object.Suspended})
	suspended.namespace("ns_8", "orders")
	suspended.principal("sa_s", sallyport.ServiceAccount)
	suspended.grant("sa_s", sallyport.ScopeNamespace, "ns_8", "write")
	ofSuspended, _ := suspended.key("sa_s", nil)

	key := func(owner string, change func(*object.Key)) string {
		header, _ := p.key(owner, change)
		return header
	}
	writer := key("sa_writer", nil)
	unknown, _ := newPolicy("f45a2").key("sa_writer", nil)
	nowhere, _ := newPolicy("zzzz9").key("sa_writer", nil)
	tests := []struct {
		name, header, method, namespace string
		from                            string
		kind                            sallyport.Kind // "": allowed
		says                            string
	}{
		{name: "writer starts", header: writer, method: start, namespace: "orders.f45a2"},
		{name: "writer describes", header: writer, method: describe, namespace: "orders.f45a2"},
		{name: "reader describes", header: key("sa_reader", nil), method: describe, namespace: "orders.f45a2"},
		{name: "reader starts", header: key("sa_reader", nil), method: start, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "needs the permission write"},
		{name: "owner starts", header: key("u_owner", nil), method: start, namespace: "orders.f45a2"},
		{name: "finance admin", header: key("u_finance", nil), method: describe, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "by the project", header: key("u_project", nil), method: start, namespace: "orders.f45a2"},
		{name: "by a group", header: key("u_grouped", nil), method: start, namespace: "orders.f45a2"},
		{name: "name with a dot", header: key("u_owner", nil), method: start, namespace: "orders.eu.f45a2"},
		{name: "without a grant", header: key("sa_none", nil), method: describe, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "another namespace", header: writer, method: describe, namespace: "orders.eu.f45a2", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "no such namespace", header: writer, method: describe, namespace: "nothing.f45a2", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "another account's namespace", header: writer, method: describe, namespace: "secret.f45a3", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "namespace without its account", header: writer, method: describe, namespace: "orders", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "no namespace", header: writer, method: describe, kind: sallyport.PermissionDenied, says: "not found"},
		{name: "another account's key", header: other, method: describe, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "not found"},
		{name: "only certificates", header: writer, method: start, namespace: "mtls.f45a2", kind: sallyport.PermissionDenied, says: "does not accept API keys"},
		{name: "suspended account", header: ofSuspended, method: start, namespace: "orders.f45a4", kind: sallyport.PermissionDenied, says: "account is not active"},
		{name: "disabled principal", header: key("sa_disabled", nil), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "owner of the API key is disabled"},
		{name: "principal gone", header: key("sa_gone", nil), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "does not exist any more"},
		{name: "disabled key", header: key("sa_writer", func(k *object.Key) { k.Status = object.Disabled }), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "key is disabled"},
		{name: "expired key", header: key("sa_writer", func(k *object.Key) { k.Expires = now.UnixMicro() }), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "expired at"},
		{name: "retired key", header: key("sa_writer", func(k *object.Key) { k.Retires = now.UnixMicro() }), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "retired at"},
		{name: "retiring key", header: key("sa_writer", func(k *object.Key) { k.Retires = now.Add(time.Minute).UnixMicro() }), method: start, namespace: "orders.f45a2"},
		{name: "older epoch", header: key("sa_writer", func(k *object.Key) { k.Epoch = 0 }), method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "ended together"},
		{name: "unknown key", header: unknown, method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "not known"},
		{name: "key of an account elsewhere", header: nowhere, method: start, namespace: "orders.zzzz9", kind: sallyport.Unauthenticated, says: "not known here"},
		{name: "read-only key starts", header: key("sa_writer", func(k *object.Key) { k.ReadOnly = true }), method: start, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "read-only"},
		{name: "read-only key describes", header: key("sa_writer", func(k *object.Key) { k.ReadOnly = true }), method: describe, namespace: "orders.f45a2"},
		{name: "narrowed to it", header: key("sa_writer", func(k *object.Key) { k.Namespaces = []string{"ns_2", "ns_1"} }), method: start, namespace: "orders.f45a2"},
		{name: "narrowed to another", header: key("sa_writer", func(k *object.Key) { k.Namespaces = []string{"ns_2"} }), method: start, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "narrowed"},
		{name: "from its network", header: key("sa_writer", func(k *object.Key) { k.Sources = []string{"10.0.0.0/8", "fd00::/8"} }), from: "10.2.3.4", method: start, namespace: "orders.f45a2"},
		{name: "from its network, mapped", header: key("sa_writer", func(k *object.Key) { k.Sources = []string{"10.0.0.0/8"} }), from: "::ffff:10.2.3.4", method: start, namespace: "orders.f45a2"},
		{name: "from elsewhere", header: key("sa_writer", func(k *object.Key) { k.Sources = []string{"10.0.0.0/8"} }), from: "11.2.3.4", method: start, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "network"},
		{name: "from nobody knows where", header: key("sa_writer", func(k *object.Key) { k.Sources = []string{"10.0.0.0/8"} }), method: start, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "network"},
		{name: "health without a key", method: health},
		{name: "health with rubbish", header: "Basic x", method: health},
		{name: "no key", method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "no credential"},
		{name: "not a bearer", header: "Basic x", method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated, says: "Bearer"},
		{name: "mistyped key", header: writer[:len(writer)-1] + "_", method: start, namespace: "orders.f45a2", kind: sallyport.Unauthenticated},
		{name: "cluster info", header: key("sa_none", nil), method: cluster},
		{name: "cluster info without a key", method: cluster, kind: sallyport.Unauthenticated},
		{name: "owner registers a namespace", header: key("u_owner", nil), method: register, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "access service"},
		{name: "owner is no operator", header: key("u_owner", nil), method: admin, namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "operator"},
		{name: "unknown method", header: key("u_owner", nil), method: "/new.Service/Method", namespace: "orders.f45a2", kind: sallyport.PermissionDenied, says: "not known"},
	}
	r := load(t, p, orphaned, suspended)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			from, _ := netip.ParseAddr(test.from)
			d := r.Decide(replica.CredentialFromHeader(test.header, from), test.method, test.namespace, now)
			if d.Allow != (test.kind == "") || d.Kind != test.kind || !strings.Contains(d.Reason, test.says) || d.Reason == "" {
				t.Errorf("got allow %t, %q, %q; want %q with %q", d.Allow, d.Kind, d.Reason, test.kind, test.says)
			}
		})
	}
}

func TestDecisionSaysWhatItRestsOn(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	p.principal("u_1", sallyport.User)
	put(p, object.KindGroup, "g_1", object.Group{})
	put(p, object.KindMembership, object.MembershipID("g_1", "u_1"), object.Membership{Group: "g_1", User: "u_1"})
	p.grant("u_1", sallyport.ScopeNamespace, "ns_1", "read")
	p.grant("g_1", sallyport.ScopeNamespace, "ns_1", "write")
	retires := sallyport.Micros(now.Add(time.Minute))
	header, id := p.key("u_1", func(k *object.Key) { k.Retires = retires.UnixMicro() })
	r := load(t, p)
	at := time.Now()
	got := r.Decide(replica.CredentialFromHeader(header, netip.Addr{}), start, "orders.f45a2", at)
	if got.Age < 0 || got.Age > time.Minute {
		t.Errorf("age %s", got.Age)
	}
	want := replica.Decision{Allow: true, Reason: "allowed by the grant", Account: "f45a2", KeyID: id, Head: p.head, Age: got.Age, Until: retires, Namespace: "ns_1",
		Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_1"},
		Grant:     sallyport.Grant{Subject: "g_1", Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"}}
	unexported := cmpopts.IgnoreUnexported(replica.Decision{})
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Error(diff)
	}
	explained := r.Explain("f45a2", id, start, "orders.f45a2", at)
	if diff := cmp.Diff(got, explained, unexported); diff != "" {
		t.Errorf("Explain differs from Decide: %s", diff)
	}
	if d := r.Explain("f45a2", "nothing", start, "orders.f45a2", at); d.Allow || d.Kind != sallyport.Unauthenticated {
		t.Errorf("explaining an unknown key: %+v", d)
	}
}

// TestKeyNeedsItsSecret: the id alone opens nothing.
func TestKeyNeedsItsSecret(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	_, id := p.key("sa_1", nil)
	forged, _ := credential.NewAPIKey("f45a2", id)
	d := load(t, p).Decide(replica.CredentialFromHeader("Bearer "+forged.Reveal(), netip.Addr{}), start, "orders.f45a2", now)
	if d.Allow || d.Kind != sallyport.Unauthenticated || d.KeyID != "" {
		t.Errorf("got %+v", d)
	}
}

// TestStrangeObjectsGiveNothing: what this version does not understand counts
// in the digest and gives nothing.
func TestStrangeObjectsGiveNothing(t *testing.T) {
	grant := object.Grant{Subject: "sa_1", Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"}
	id := object.GrantID("sa_1", sallyport.ScopeNamespace, "ns_1")
	tests := []struct {
		name string
		id   string
		data string
	}{
		{"new field", id, `{"subject":"sa_1","scope":"namespace","target":"ns_1","role":"write","only_on":"sunday"}`},
		{"other order", id, `{"scope":"namespace","subject":"sa_1","target":"ns_1","role":"write"}`},
		{"twice", id, string(object.Encode(grant)) + string(object.Encode(grant))},
		{"field twice", id, `{"subject":"sa_2","subject":"sa_1","scope":"namespace","target":"ns_1","role":"write"}`},
		{"other case", id, `{"Subject":"sa_1","scope":"namespace","target":"ns_1","role":"write"}`},
		{"other id", "sa_2/namespace/ns_1", string(object.Encode(grant))},
		{"new role", id, `{"subject":"sa_1","scope":"namespace","target":"ns_1","role":"emperor"}`},
		{"new scope", "sa_1/galaxy/ns_1", `{"subject":"sa_1","scope":"galaxy","target":"ns_1","role":"admin"}`},
		{"not JSON", id, "\x00"},
		{"nothing", id, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPolicy("f45a2")
			p.namespace("ns_1", "orders")
			p.principal("sa_1", sallyport.ServiceAccount)
			header, _ := p.key("sa_1", nil)
			p.raw(object.KindGrant, test.id, []byte(test.data))
			p.raw("wormhole", "x", []byte("{}"))
			r := load(t, p)
			c := replica.CredentialFromHeader(header, netip.Addr{})
			if d := r.Decide(c, describe, "orders.f45a2", now); d.Allow {
				t.Errorf("allowed by %+v", d.Grant)
			}
			p.raw(object.KindGrant, id, object.Encode(grant))
			if err := r.Load(p.batch()); err != nil {
				t.Fatal(err)
			}
			if d := r.Decide(c, describe, "orders.f45a2", now); !d.Allow {
				t.Errorf("with the proper grant: %s", d.Reason)
			}
		})
	}
}

func TestStaleness(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	header, _ := p.key("sa_1", func(k *object.Key) { k.Expires = now.Add(24 * time.Hour).UnixMicro() })
	c := replica.CredentialFromHeader(header, netip.Addr{})
	r, err := replica.Open(replica.Config{MaxStaleness: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Decide(c, start, "orders.f45a2", now); r.Ready() || d.Allow || d.Kind != sallyport.Unavailable {
		t.Errorf("before anything was received: %+v", d)
	}
	if err := r.Load(p.batch()); err != nil {
		t.Fatal(err)
	}
	if d := r.Decide(c, start, "orders.f45a2", time.Now().Add(59*time.Minute)); !d.Allow {
		t.Errorf("after 59 minutes: %s", d.Reason)
	}
	for _, header := range []string{header, "Bearer " + func() string { token, _ := credential.NewAPIKey("zzzz9", sallyport.NewID("")); return token.Reveal() }()} {
		d := r.Decide(replica.CredentialFromHeader(header, netip.Addr{}), start, "orders.f45a2", time.Now().Add(61*time.Minute))
		if d.Allow || d.Kind != sallyport.Unavailable || !strings.Contains(d.Reason, "policy older than 1h0m0s") {
			t.Errorf("after 61 minutes: %+v", d)
		}
	}
	if d := r.Decide(replica.Credential{}, health, "", time.Now().Add(61*time.Minute)); !d.Allow {
		t.Errorf("health after 61 minutes: %s", d.Reason)
	}
}

func TestLoadChecksTheDigest(t *testing.T) {
	p := newPolicy("f45a2")
	b := p.batch()
	b.Digest[0]++
	r := load(t)
	if err := r.Load(b); err == nil {
		t.Error("a batch with a wrong digest was loaded")
	}
}

func TestNamespacesAndChanges(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	r := load(t)
	changes, cancel := r.Changes()
	defer cancel()
	for range 3 {
		if err := r.Load(p.batch()); err != nil {
			t.Fatal(err)
		}
	}
	<-changes
	select {
	case <-changes:
		t.Error("changes are not coalesced")
	default:
	}
	want := []replica.Namespace{{ID: "ns_1", FullName: "orders.f45a2", Account: "f45a2", Cell: "c1", RetentionDays: 3}}
	if diff := cmp.Diff(want, r.Namespaces()); diff != "" {
		t.Error(diff)
	}
	if got := r.Standing("f45a2"); got != replica.Held {
		t.Errorf("standing %s", got)
	}
	if got := r.Standing("f45a3"); got != replica.Absent {
		t.Errorf("standing %s", got)
	}
}

func TestAllowDoesNotAllocate(t *testing.T) {
	p := newPolicy("f45a2")
	p.namespace("ns_1", "orders")
	p.principal("u_1", sallyport.User)
	put(p, object.KindGroup, "g_1", object.Group{})
	put(p, object.KindMembership, object.MembershipID("g_1", "u_1"), object.Membership{Group: "g_1", User: "u_1"})
	p.grant("g_1", sallyport.ScopeNamespace, "ns_1", "write")
	header, _ := p.key("u_1", func(k *object.Key) { k.Sources = []string{"10.0.0.0/8"}; k.Namespaces = []string{"ns_1"} })
	r := load(t, p)
	from := netip.MustParseAddr("10.1.1.1")
	n := testing.AllocsPerRun(100, func() {
		if d := r.Decide(replica.CredentialFromHeader(header, from), start, "orders.f45a2", time.Now()); !d.Allow {
			t.Fatal(d.Reason)
		}
	})
	if n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestRunNeedsTLSAndToken(t *testing.T) {
	for _, c := range []replica.Config{{}, {Address: "x:1", Token: "t"}, {Address: "x:1", TLS: &tls.Config{}}} {
		r, err := replica.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); err == nil || errors.Is(err, t.Context().Err()) {
			t.Errorf("got %v", err)
		}
	}
}
