package temporal_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/clientca"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/servertest"
	"github.com/sallyport-iam/sallyport/credential"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The domain of the beds' namespaces, and the trust domain of their issuers.
const (
	domain      = "ns.test"
	trustDomain = "acme.test"
)

// secureBed is a server with TLS. acme2 has orders, which takes certificates
// under ca and API keys, billing, which takes those under billingCA, and plain,
// which takes API keys only; other has orders, too. Both have an issuer.
type secureBed struct {
	t             *testing.T
	server        *servertest.Server
	replica       *replica.Replica
	acme, other   *policy
	frontendCA    *clientca.CA
	ca, billingCA *clientca.CA
	issuer        *clientca.CA // of acme2
}

func newSecureBed(t *testing.T) *secureBed {
	t.Helper()
	r, err := replica.Open(replica.Config{NamespaceDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	b := &secureBed{
		t: t, replica: r, acme: newPolicy(t, r, "acme2"), other: newPolicy(t, r, "other"),
		frontendCA: newCA(t, "frontend"), ca: newCA(t, "acme"), billingCA: newCA(t, "billing"), issuer: newCA(t, "managed"),
	}
	foreignCA := newCA(t, "other")
	b.acme.takes("ns_orders", "orders", []*clientca.CA{b.ca},
		object.CertificateFilter{CommonName: "worker*"},
		object.CertificateFilter{CommonName: "auditor", Permission: "read"},
		object.CertificateFilter{CommonName: "reader", ServiceAccount: "sa_reader"},
		object.CertificateFilter{CommonName: "leaver", ServiceAccount: "sa_gone"},
	)
	b.acme.takes("ns_billing", "billing", []*clientca.CA{b.billingCA})
	b.acme.namespace("ns_plain", "plain", 3)
	b.acme.owner("u_owner")
	b.acme.worker("sa_writer", "ns_orders", sallyport.PermissionWrite)
	b.acme.worker("sa_reader", "ns_orders", sallyport.PermissionRead)
	b.acme.worker("sa_plain", "ns_plain", sallyport.PermissionWrite)
	b.acme.issues(b.issuer)
	b.other.takes("ns_foreign", "orders", []*clientca.CA{foreignCA})
	b.other.owner("u_foreigner")
	server, err := b.frontendCA.Server("localhost", orders+"."+domain, billing+"."+domain)
	if err != nil {
		t.Fatal(err)
	}
	b.server = servertest.StartTLS(t, temporal.Config{Replica: r}, &tls.Config{Certificates: []tls.Certificate{*server}})
	owner, foreigner := b.acme.key("u_owner", nil), b.other.key("u_foreigner", nil)
	client := b.client(nil, "")
	for name, token := range map[string]string{orders: owner, billing: owner, "plain.acme2": owner, foreign: foreigner} {
		eventually(t, func() error {
			_, err := client.DescribeNamespace(as(t, token), &workflowservice.DescribeNamespaceRequest{Namespace: name})
			return err
		})
	}
	return b
}

// takes makes a namespace that takes API keys and certificates under the CAs.
func (p *policy) takes(id, name string, cas []*clientca.CA, filters ...object.CertificateFilter) {
	p.t.Helper()
	put(p, object.KindNamespace, id, object.Namespace{
		Name: name, Project: "p_default", Cell: "local", RetentionDays: 3, Auth: object.NamespaceAuth{APIKey: true, MTLS: true},
	})
	bundle := object.ClientCAs{Filters: filters}
	for _, ca := range cas {
		bundle.Certificates = append(bundle.Certificates, ca.Certificate.Raw)
	}
	put(p, object.KindClientCAs, id, bundle)
}

func (p *policy) issues(ca *clientca.CA) {
	p.t.Helper()
	put(p, object.KindIssuer, credential.IssuerID(ca.Certificate), object.Issuer{Certificate: ca.Certificate.Raw, TrustDomain: trustDomain})
}

func (p *policy) revoke(id string) {
	p.t.Helper()
	put(p, object.KindRevocation, id, object.Revocation{})
}

func newCA(t testing.TB, organization string) *clientca.CA {
	t.Helper()
	ca, err := clientca.New(organization)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func leaf(t testing.TB, ca *clientca.CA, name string, with func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	c, err := ca.Leaf(name, with)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func managed(t testing.TB, ca *clientca.CA, account sallyport.AccountID, serviceAccount string) *tls.Certificate {
	t.Helper()
	uri, err := url.Parse(credential.SPIFFEID(trustDomain, account, serviceAccount))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Managed(serviceAccount, uri)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// client is one with a certificate (nil: none) that calls the server by the
// name; "": by one that names no namespace.
func (b *secureBed) client(certificate *tls.Certificate, name string) workflowservice.WorkflowServiceClient {
	b.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name, MinVersion: tls.VersionTLS12}
	config.RootCAs.AddCert(b.frontendCA.Certificate)
	if name == "" {
		config.ServerName = "localhost"
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := grpc.NewClient(b.server.Frontend, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return workflowservice.NewWorkflowServiceClient(conn)
}

type certificateCall func(context.Context, workflowservice.WorkflowServiceClient) error

func starts(namespace string) certificateCall {
	return func(ctx context.Context, c workflowservice.WorkflowServiceClient) error {
		_, err := c.StartWorkflowExecution(ctx, start(namespace, sallyport.NewID("wf_")))
		return err
	}
}

func lists(namespace string) certificateCall {
	return func(ctx context.Context, c workflowservice.WorkflowServiceClient) error {
		_, err := c.ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace})
		return err
	}
}

func clusterInfo(ctx context.Context, c workflowservice.WorkflowServiceClient) error {
	_, err := c.GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	return err
}

func systemInfo(ctx context.Context, c workflowservice.WorkflowServiceClient) error {
	_, err := c.GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
	return err
}

// One port takes certificates and keys, and whoever is refused is told why by a
// status, never by the handshake.
func TestCertificates(t *testing.T) {
	t.Parallel()
	b := newSecureBed(t)
	worker := leaf(t, b.ca, "worker-1", nil)
	writer := managed(t, b.issuer, "acme2", "sa_writer")
	reader := managed(t, b.issuer, "acme2", "sa_reader")
	stranger := leaf(t, newCA(t, "stranger"), "worker-1", nil)
	revoked := leaf(t, b.ca, "worker-revoked", nil)
	b.acme.revoke(object.RevokedCertificate(credential.Fingerprint(revoked.Leaf)))
	revokedSerial := leaf(t, b.ca, "worker-serial", nil)
	b.acme.revoke(object.RevokedSerial(credential.IssuerID(b.ca.Certificate), credential.SerialText(revokedSerial.Leaf.SerialNumber)))
	elsewhere := leaf(t, b.ca, "worker-elsewhere", nil)
	b.other.revoke(object.RevokedCertificate(credential.Fingerprint(elsewhere.Leaf)))
	expired := leaf(t, b.ca, "worker-old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	})
	forged := managed(t, b.ca, "acme2", "sa_writer")
	key := b.acme.key("sa_writer", nil)

	const ok, denied, unknown = codes.OK, codes.PermissionDenied, codes.Unauthenticated
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		server      string // name; "": one that names no namespace
		token       string
		call        certificateCall
		want        codes.Code
		reason      string
	}{
		{"a customer's certificate starts", worker, "", "", starts(orders), ok, ""},
		{"a customer's certificate lists", worker, "", "", lists(orders), ok, ""},
		{"a key beside it", nil, "", key, starts(orders), ok, ""},
		{"a managed certificate starts", writer, "", "", starts(orders), ok, ""},
		{"a managed certificate that may read lists", reader, "", "", lists(orders), ok, ""},
		{"a managed certificate that may read starts", reader, "", "", starts(orders), denied, "needs the permission write"},
		{"a certificate mapped to read lists", leaf(t, b.ca, "auditor", nil), "", "", lists(orders), ok, ""},
		{"a certificate mapped to read starts", leaf(t, b.ca, "auditor", nil), "", "", starts(orders), denied, "write"},
		{"a certificate mapped to a reader starts", leaf(t, b.ca, "reader", nil), "", "", starts(orders), denied, "write"},
		{"a certificate mapped to nobody", leaf(t, b.ca, "leaver", nil), "", "", lists(orders), denied, "service account"},
		{"a certificate that no filter matches", leaf(t, b.ca, "someone", nil), "", "", starts(orders), denied, "filter"},
		{"a certificate of another CA", stranger, "", "", starts(orders), denied, notAccepted(orders)},
		{"no certificate", nil, "", "", starts(orders), unknown, "no credential"},
		{"an expired certificate", expired, "", "", starts(orders), unknown, "expired"},
		{"a revoked certificate", revoked, "", "", starts(orders), unknown, "revoked"},
		{"a revoked serial number", revokedSerial, "", "", starts(orders), unknown, "revoked"},
		{"a certificate that another account revoked", elsewhere, "", "", starts(orders), ok, ""},
		{"on another namespace of the account", worker, "", "", starts(billing), denied, notAccepted(billing)},
		{"on a namespace of another account", worker, "", "", starts(foreign), denied, notAccepted(foreign)},
		{"on a namespace that takes keys only", worker, "", "", starts("plain.acme2"), denied, notAccepted("plain.acme2")},
		{"a managed one on a namespace that takes keys only", managed(t, b.issuer, "acme2", "sa_plain"), "", "", starts("plain.acme2"), denied, "client certificates"},
		{"a managed one without access", writer, "", "", starts(billing), denied, "not found in the account"},
		{"a managed one in another account", writer, "", "", starts(foreign), denied, notAccepted(foreign)},
		{"a service account's URI under a customer's CA", forged, "", "", starts(billing), denied, notAccepted(billing)},
		{"by the namespace's own name", worker, orders + "." + domain, "", starts(orders), ok, ""},
		{"by another namespace's name", worker, billing + "." + domain, "", starts(orders), denied, "connect to the name of the namespace"},
		{"a managed one by another namespace's name", writer, billing + "." + domain, "", starts(orders), denied, "connect to the name of the namespace"},
		{"a key by another namespace's name", nil, billing + "." + domain, key, starts(orders), denied, "connect to the name of the namespace"},
		{"a bad key beside a good certificate", worker, "", mistyped(key), starts(orders), unknown, "checksum"},
		{"a good key beside a bad certificate", stranger, "", key, starts(orders), ok, ""},
		{"the cluster's information by a managed one", writer, "", "", clusterInfo, ok, ""},
		{"the cluster's information by a customer's", worker, "", "", clusterInfo, unknown, ""},
		{"the cluster's information by a customer's, by name", worker, orders + "." + domain, "", clusterInfo, ok, ""},
		{"system info by a stranger", stranger, "", "", systemInfo, ok, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.call(as(t, test.token), b.client(test.certificate, test.server))
			got := status.Convert(err)
			if got.Code() != test.want || !contains(got.Message(), test.reason) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.reason)
			}
		})
	}
}

func notAccepted(namespace string) string {
	return "namespace \"" + namespace + "\" was not found, or it does not accept this client certificate"
}

// A change cuts open connections off: calls that wait end, and what they waited
// for stays for others.
func TestPollEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	b := newSecureBed(t)
	writer := b.acme.key("sa_writer", nil)
	secondCA := newCA(t, "second")
	filter := object.CertificateFilter{CommonName: "worker*"}
	both := []*clientca.CA{b.ca, secondCA}
	b.acme.takes("ns_orders", "orders", both, filter)
	b.acme.worker("sa_leaver", "ns_orders", sallyport.PermissionWrite)
	second := newCA(t, "managed second")
	b.acme.issues(second)

	byFingerprint := func(c *tls.Certificate) {
		b.acme.revoke(object.RevokedCertificate(credential.Fingerprint(c.Leaf)))
	}
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		end         func(*tls.Certificate)
		reason      string
	}{
		{"the certificate is revoked", leaf(t, b.ca, "worker-1", nil), byFingerprint, "revoked"},
		{"its serial number is revoked", leaf(t, b.ca, "worker-2", nil), func(c *tls.Certificate) {
			b.acme.revoke(object.RevokedSerial(credential.IssuerID(b.ca.Certificate), credential.SerialText(c.Leaf.SerialNumber)))
		}, "revoked"},
		{"it expires", leaf(t, b.ca, "worker-3", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) }),
			func(*tls.Certificate) {}, "expired"},
		{"its CA is removed", leaf(t, secondCA, "worker-4", nil), func(*tls.Certificate) {
			b.acme.takes("ns_orders", "orders", []*clientca.CA{b.ca}, filter)
		}, "certificate"},
		{"its filter is removed", leaf(t, b.ca, "worker-5", nil), func(*tls.Certificate) {
			b.acme.takes("ns_orders", "orders", both, object.CertificateFilter{CommonName: "other"})
		}, "filter"},
		{"a managed certificate is revoked", managed(t, b.issuer, "acme2", "sa_writer"), byFingerprint, "revoked"},
		{"its issuer is revoked", managed(t, second, "acme2", "sa_writer"), func(*tls.Certificate) {
			b.acme.revoke(object.RevokedIssuer(credential.IssuerID(second.Certificate)))
		}, "revoked"},
		{"its service account is disabled", managed(t, b.issuer, "acme2", "sa_leaver"), func(*tls.Certificate) {
			put(b.acme, object.KindPrincipal, "sa_leaver", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled})
		}, "disabled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.acme.takes("ns_orders", "orders", both, filter)
			client := b.client(test.certificate, "")
			poll := &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: &taskqueue.TaskQueue{Name: sallyport.NewID("tq_")}}
			ended := make(chan error, 1)
			go func() {
				resp, err := client.PollWorkflowTaskQueue(as(t, ""), poll)
				if err == nil && len(resp.GetTaskToken()) > 0 {
					err = errTask
				}
				ended <- err
			}()
			select {
			case err := <-ended:
				t.Fatal("the poll did not wait:", err)
			case <-time.After(300 * time.Millisecond):
			}
			before := time.Now()
			test.end(test.certificate)
			refused := func(what string, err error) {
				t.Helper()
				got := status.Convert(err)
				if got.Code() != codes.Unauthenticated && got.Code() != codes.PermissionDenied || !contains(got.Message(), test.reason) {
					t.Errorf("%s: got %v, want a refusal with %q", what, err, test.reason)
				}
			}
			refused("the poll", <-ended)
			if took := time.Since(before); took > 3*time.Second {
				t.Errorf("the poll ended only after %v", took)
			}
			refused("another call over the connection", starts(orders)(as(t, ""), client))

			req := start(orders, sallyport.NewID("wf_"))
			req.TaskQueue = poll.TaskQueue
			other := b.client(nil, "")
			if _, err := other.StartWorkflowExecution(as(t, writer), req); err != nil {
				t.Fatal(err)
			}
			task, err := other.PollWorkflowTaskQueue(as(t, writer), poll)
			if err != nil || task.GetWorkflowExecution().GetWorkflowId() != req.GetWorkflowId() {
				t.Errorf("another worker got %v, %v", task.GetWorkflowExecution(), err)
			}
		})
	}
}

func TestListNamespacesByCertificate(t *testing.T) {
	t.Parallel()
	b := newSecureBed(t)
	worker := leaf(t, b.ca, "worker-1", nil)
	writer := managed(t, b.issuer, "acme2", "sa_writer")
	b.acme.worker("sa_both", "ns_orders", sallyport.PermissionRead)
	put(b.acme, object.KindGrant, object.GrantID("sa_both", sallyport.ScopeNamespace, "ns_billing"), object.Grant{
		Subject: "sa_both", Scope: sallyport.ScopeNamespace, Target: "ns_billing", Role: sallyport.PermissionRead.String(),
	})
	both := managed(t, b.issuer, "acme2", "sa_both")
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		server      string
		want        []string // nil: refused
	}{
		{"a managed one", writer, "", []string{orders}},
		{"a managed one with two", both, "", []string{billing, orders}},
		{"a managed one with two, by the name of one", both, orders + "." + domain, []string{orders}},
		{"a customer's, by name", worker, orders + "." + domain, []string{orders}},
		{"a customer's, by another name", worker, billing + "." + domain, nil},
		{"a customer's", worker, "", nil},
		{"a stranger's", leaf(t, newCA(t, "stranger"), "worker-1", nil), orders + "." + domain, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			page, err := b.client(test.certificate, test.server).ListNamespaces(as(t, ""), &workflowservice.ListNamespacesRequest{})
			if test.want == nil {
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("got %v, %v; want a refusal", page, err)
				}
				return
			}
			var got []string
			for _, ns := range page.GetNamespaces() {
				got = append(got, ns.GetNamespaceInfo().GetName())
			}
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

// Where a workflow's commands and Nexus endpoints lead is not bound to the name
// that the connection was made by; whether the certificate is good there is.
func TestCertificateElsewhere(t *testing.T) {
	r, err := replica.Open(replica.Config{NamespaceDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	p := newPolicy(t, r, "acme2")
	ca := newCA(t, "acme")
	p.takes("ns_orders", "orders", []*clientca.CA{ca})
	p.takes("ns_billing", "billing", []*clientca.CA{ca})
	p.takes("ns_closed", "closed", []*clientca.CA{newCA(t, "other")})
	plugin, err := temporal.New(temporal.Config{Replica: r})
	if err != nil {
		t.Fatal(err)
	}
	worker := leaf(t, ca, "worker-1", nil)
	claims, err := plugin.ClaimMapper().GetClaims(&authorization.AuthInfo{TLSConnection: &credentials.TLSInfo{
		State: tls.ConnectionState{ServerName: "Orders.acme2." + domain, PeerCertificates: []*x509.Certificate{worker.Leaf}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, api, called, target string
		allow                     bool
	}{
		{"its own namespace", "RespondWorkflowTaskCompleted", orders, orders, true},
		{"another one", "RespondWorkflowTaskCompleted", billing, billing, false},
		{"where a command leads", "SignalWorkflowExecution", orders, billing, true},
		{"where a command leads and the certificate is not good", "SignalWorkflowExecution", orders, "closed.acme2", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := plugin.Authorize(t.Context(), claims, &authorization.CallTarget{
				APIName: "/temporal.api.workflowservice.v1.WorkflowService/" + test.api, Namespace: test.target,
				Request: &workflowservice.RespondWorkflowTaskCompletedRequest{Namespace: test.called},
			})
			if allowed := err == nil && result.Decision == authorization.DecisionAllow; allowed != test.allow {
				t.Errorf("got %v, %v; want allowed: %v", result, err, test.allow)
			}
			want := &common.Principal{Type: string(sallyport.Certificate), Name: credential.Fingerprint(worker.Leaf)}
			if test.allow && !proto.Equal(result.Principal, want) {
				t.Errorf("the principal is %v, want %v", result.Principal, want)
			}
		})
	}
}
