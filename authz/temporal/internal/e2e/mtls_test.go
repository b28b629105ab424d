package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/clientca"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/stack"
	"github.com/sallyport-iam/sallyport/credential"
)

func newCA(t *testing.T, organization string) *clientca.CA {
	t.Helper()
	ca, err := clientca.New(organization)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func leaf(t *testing.T, ca *clientca.CA, name string, with func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	c, err := ca.Leaf(name, with)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mtls lets the world's namespace take certificates under the CA of workers, and
// gives one, and a managed one of the world's service account with its id.
func (w *world) mtls(ca *clientca.CA) (customers, managed *tls.Certificate, id string) {
	w.t.Helper()
	filter := &namespace.CertificateFilterSpec{CommonName: "worker*"}
	if _, err := stack.EnableMTLS(w.t.Context(), w.cloud, w.namespace, ca.PEM, filter); err != nil {
		w.t.Fatal(err)
	}
	id, managed, err := w.IssueCertificate(w.t.Context(), w.cloud, w.account)
	if err != nil {
		w.t.Fatal(err)
	}
	return leaf(w.t, ca, "worker-1", nil), managed, id
}

func (w *world) clientTLS(certificate *tls.Certificate) client.Client {
	w.t.Helper()
	c, err := w.TemporalTLS(w.namespace, certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// On one port workers with a customer's certificate, with a managed one and with
// an API key run the same namespace's workflows, and whoever else comes is told
// why not.
func TestWorkersWithCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ca := newCA(t, "acme")
	customers, managed, _ := w.mtls(ca)
	clients := map[string]client.Client{"customers": w.clientTLS(customers), "managed": w.clientTLS(managed), "key": w.client(w.key)}
	for name, c := range clients {
		defer runWorker(t, c, name).Stop()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for by, c := range clients {
		for queue := range clients {
			run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: by + " for " + queue, TaskQueue: queue}, "shout", "x")
			if err != nil {
				t.Fatal(err)
			}
			var answer string
			if err := run.Get(ctx, &answer); err != nil || answer != "X" {
				t.Errorf("%s for %s: %q, %v", by, queue, answer, err)
			}
		}
	}

	elsewhere, err := stack.CreateNamespace(ctx, w.cloud, "mtls-elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stack.EnableMTLS(ctx, w.cloud, elsewhere, newCA(t, "elsewhere").PEM); err != nil {
		t.Fatal(err)
	}
	expired := leaf(t, ca, "worker-old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	})
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		in          string
		reason      string
	}{
		{"another CA's", leaf(t, newCA(t, "stranger"), "worker-1", nil), w.namespace, "CA"},
		{"expired", expired, w.namespace, "expired"},
		{"no filter matches", leaf(t, ca, "somebody", nil), w.namespace, "filter"},
		{"another namespace", customers, elsewhere, "CA"},
		{"a managed one on another namespace", managed, elsewhere, "not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := w.TemporalTLS(test.in, test.certificate)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			refused(t, w.start(c, "key", "never"), test.reason)
		})
	}
	t.Run("no certificate", func(t *testing.T) { refused(t, w.start(w.client(""), "key", "never"), "certificate") })

	// What was seen is known soon, with what was refused.
	want := map[string]bool{credential.Fingerprint(parsed(t, customers)): false, credential.Fingerprint(parsed(t, managed)): false, credential.Fingerprint(parsed(t, expired)): true}
	await(t, func() bool {
		found := 0
		err := w.Admin(ctx, w.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) error {
			seen, err := admin.ListSeenCertificates(ctx, &adminv1.ListSeenCertificatesRequest{Namespace: w.namespace})
			for _, c := range seen.GetCertificates() {
				if refused, ok := want[c.GetFingerprint()]; ok && refused == (c.GetRefused() != "") {
					found++
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found == len(want)
	})
}

func parsed(t *testing.T, certificate *tls.Certificate) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// A revoked certificate is out at once, its poll that waits included, and so is
// one whose CA was removed; the receipt says where that is in force.
func TestARevokedCertificateIsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ca := newCA(t, "acme")
	customers, managed, id := w.mtls(ca)
	leaver, _, _ := w.serviceAccount("gone", identity.NamespaceAccess_PERMISSION_WRITE)
	_, leavers, err := w.IssueCertificate(t.Context(), w.cloud, leaver)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		end         func(context.Context) (operation string, err error)
		reason      string
	}{
		{"a managed one is revoked", managed, func(ctx context.Context) (string, error) {
			return w.Revoke(ctx, w.cloud, &adminv1.RevokeRequest{CertificateId: id, Reason: "test"})
		}, "revoked"},
		{"its service account is deleted", leavers, func(ctx context.Context) (string, error) {
			return w.deleteServiceAccount(ctx, leaver)
		}, "certificate"},
		{"a customer's is revoked", customers, func(ctx context.Context) (string, error) {
			return w.Revoke(ctx, w.cloud, &adminv1.RevokeRequest{Fingerprint: credential.Fingerprint(parsed(t, customers))})
		}, "revoked"},
		{"its CA is removed", leaf(t, ca, "worker-2", nil), func(ctx context.Context) (string, error) {
			return stack.EnableMTLS(ctx, w.cloud, w.namespace, newCA(t, "next").PEM)
		}, "CA"},
	} {
		t.Run(test.name, func(t *testing.T) { w.cutOff(t, w.clientTLS(test.certificate), test.end, test.reason) })
	}
}

func (w *world) deleteServiceAccount(ctx context.Context, id string) (operation string, err error) {
	got, err := w.cloud.GetServiceAccount(ctx, &cloudservice.GetServiceAccountRequest{ServiceAccountId: id})
	if err != nil {
		return "", err
	}
	done, err := w.cloud.DeleteServiceAccount(ctx, &cloudservice.DeleteServiceAccountRequest{ServiceAccountId: id, ResourceVersion: got.GetServiceAccount().GetResourceVersion()})
	if err != nil {
		return "", err
	}
	return done.GetAsyncOperation().GetId(), stack.Await(ctx, w.cloud, done.GetAsyncOperation())
}

// cutOff lets end, which gives the operation's id, end what the client's access
// rests on, and tests that it is out, its poll that waits included.
func (w *world) cutOff(t *testing.T, c client.Client, end func(context.Context) (string, error), reason string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	queue := strings.ReplaceAll(t.Name(), "/", "-")
	poll := func(c client.Client) (*workflowservice.PollWorkflowTaskQueueResponse, error) {
		return c.WorkflowService().PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{
			Namespace: w.namespace, TaskQueue: &taskqueue.TaskQueue{Name: queue}})
	}
	type polled struct {
		task *workflowservice.PollWorkflowTaskQueueResponse
		err  error
	}
	ended := make(chan polled, 1)
	if err := w.start(c, queue+"-other", "before "+queue); err != nil {
		t.Fatal(err)
	}
	go func() {
		task, err := poll(c)
		ended <- polled{task, err}
	}()
	time.Sleep(300 * time.Millisecond) // the poll waits
	operation, err := end(ctx)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := w.Receipt(ctx, w.Sallyport.Key, operation)
	if err != nil || !receipt.GetEnforcedEverywhere() || len(receipt.GetAuthorizers()) == 0 {
		t.Errorf("receipt: %v, %v; want enforced by the server's authorizer", receipt, err)
	}
	refused(t, w.start(c, queue, "denied"), reason)
	if err := w.start(w.client(w.key), queue, "after "+queue); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-ended:
		if len(p.task.GetTaskToken()) > 0 {
			t.Error("a task was given out to a worker that is cut off")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the poll still waits after 10 s")
	}
	task, err := poll(w.client(w.key))
	if err != nil || task.GetWorkflowExecution().GetWorkflowId() != "after "+queue {
		t.Errorf("the task stays for another worker: %v, %v", task.GetWorkflowExecution(), err)
	}
}

// The command's agent replaces the certificate again and again, while a worker
// and a starter that take it from the disk work without one failed call.
func TestTheAgentRenewsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	if _, err := stack.EnableMTLS(t.Context(), w.cloud, w.namespace, nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificates := filepath.Join(dir, "certificates")
	sallyport := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "sallyport"), args...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sallyport %s: %v\n%s", args, err, out)
		}
	}
	renew := func() {
		t.Helper()
		sallyport("cert", "agent", "--once", "--now", "--service-account", w.account, "--dir", certificates, "--lifetime", "10m")
	}
	sallyport("login", "--address", w.Sallyport.GRPC, "--ca", w.Sallyport.CA, "--api-key-file", w.Sallyport.KeyFile)
	renew()

	var shown sync.Map // by serial number
	var calls atomic.Int64
	options, err := w.Options(w.namespace)
	if err != nil {
		t.Fatal(err)
	}
	options.ConnectionOptions.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		version, err := filepath.EvalSymlinks(filepath.Join(certificates, "..data")) // key and certificate of one version
		if err != nil {
			return nil, err
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(version, "tls.crt"), filepath.Join(version, "tls.key"))
		if err == nil {
			shown.Store(pair.Leaf.SerialNumber.Text(16), nil)
		}
		return &pair, err
	}
	stopping := make(chan struct{})
	// Each attempt of each call counts, also those that the SDK would try again.
	count := func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, resp, conn, opts...)
		calls.Add(1)
		select {
		case <-stopping:
		default:
			if err != nil {
				t.Errorf("%s: %v", method, err)
			}
		}
		return err
	}
	options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)}
	c, err := client.NewLazyClient(options)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer runWorker(t, c, "q").Stop()

	loaded, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for i := range 3 {
		load.Go(func() {
			for n := 0; loaded.Err() == nil; n++ {
				if err := runOne(c, "q", fmt.Sprintf("load-%d-%d", i, n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for began := time.Now(); time.Since(began) < 15*time.Second; time.Sleep(time.Second) {
		renew()
	}
	stop()
	load.Wait()
	close(stopping)
	different := 0
	shown.Range(func(_, _ any) bool { different++; return true })
	t.Logf("%d calls over connections with %d certificates", calls.Load(), different)
	if different < 3 || calls.Load() < 100 {
		t.Errorf("%d calls with %d certificates: that is no load", calls.Load(), different)
	}
}

func runOne(c client.Client, queue, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: queue}, "shout", id)
	if err != nil {
		return fmt.Errorf("starting %s: %w", id, err)
	}
	var answer string
	if err := run.Get(ctx, &answer); err != nil || answer != strings.ToUpper(id) {
		return errors.Join(fmt.Errorf("the answer of %s is %q", id, answer), err)
	}
	return nil
}
