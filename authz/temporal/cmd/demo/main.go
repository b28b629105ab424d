// Command demo tells the whole story on real servers: a key made through the
// public API lets a worker into a Temporal server, and its revocation puts it out;
// and the same with a client certificate.
// Run it in this module's folder.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// story is the demo in the making.
type story struct {
	to        io.Writer
	steps     int
	stack     *stack.Stack
	cloud     cloudservice.CloudServiceClient
	namespace string
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("/tmp", "sallyport-demo-")
	if err != nil {
		return err
	}
	s := &story{to: out}
	err = s.begin(ctx, dir)
	if err == nil {
		err = s.tell(ctx)
	}
	if s.stack != nil {
		err = errors.Join(err, s.stack.Stop())
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func (s *story) step(format string, args ...any) {
	s.steps++
	fmt.Fprintf(s.to, "\n%2d. %s\n", s.steps, fmt.Sprintf(format, args...))
}

func (s *story) note(format string, args ...any) {
	fmt.Fprintf(s.to, "    %s\n", fmt.Sprintf(format, args...))
}

func (s *story) begin(ctx context.Context, dir string) error {
	config := stack.Config{Dir: dir, Root: "../..", Bin: filepath.Join(dir, "bin")}
	s.step("Building sallyportd and a Temporal server with Sallyport's authorizer (minutes the first time)")
	if err := stack.Build(ctx, config); err != nil {
		return err
	}
	s.step("Starting both")
	var err error
	if s.stack, err = stack.Start(ctx, config); err != nil {
		return err
	}
	s.note("sallyportd %s (gRPC, TLS), Temporal's frontend %s", s.stack.Sallyport.GRPC, s.stack.Frontend)
	owner, err := s.stack.Cloud(s.stack.Sallyport.Key)
	if err != nil {
		return err
	}
	s.cloud = owner.CloudService()
	return nil
}

func (s *story) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	me, err := s.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if err != nil {
		return err
	}
	s.step("The owner of account %s is %s; through Temporal Cloud's API, with its Go SDK, they make", s.stack.Sallyport.Account, me.GetUser().GetSpec().GetEmail())
	if s.namespace, err = stack.CreateNamespace(ctx, s.cloud, "orders"); err != nil {
		return err
	}
	s.note("namespace        %s", s.namespace)
	account, err := stack.CreateServiceAccount(ctx, s.cloud, "orders-worker", s.namespace, identity.NamespaceAccess_PERMISSION_WRITE)
	if err != nil {
		return err
	}
	s.note("service account  %s, write in it", account)
	id, key, err := stack.CreateKey(ctx, s.cloud, account, time.Hour)
	if err != nil {
		return err
	}
	s.note("API key          %s…", key[:len("sp_")+len(s.stack.Sallyport.Account)+len(id)+2])
	c, err := s.work(ctx, key)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := s.refusals(ctx, key); err != nil {
		return err
	}
	if err := s.revoke(ctx, c, id); err != nil {
		return err
	}
	return s.certificates(ctx, account)
}

// work runs a workflow with the key.
func (s *story) work(ctx context.Context, key string) (client.Client, error) {
	c, err := s.stack.Temporal(s.namespace, key)
	if err != nil {
		return nil, err
	}
	for { // the reconciler makes the namespace on the server within a second or two
		_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: s.namespace})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	answer, err := ship(ctx, c, "Ada")
	if err != nil {
		return nil, err
	}
	s.step("A worker with that key runs a workflow on the Temporal server: %q", answer)
	return c, nil
}

// ship runs a worker for one workflow.
func ship(ctx context.Context, c client.Client, to string) (answer string, err error) {
	w := worker.New(c, "orders", worker.Options{})
	w.RegisterWorkflowWithOptions(func(_ workflow.Context, name string) (string, error) {
		return "shipped to " + name, nil
	}, workflow.RegisterOptions{Name: "ship"})
	if err := w.Start(); err != nil {
		return "", err
	}
	defer w.Stop()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "order for " + to, TaskQueue: "orders"}, "ship", to)
	if err != nil {
		return "", err
	}
	return answer, run.Get(ctx, &answer)
}

// refusals shows who does not get in.
func (s *story) refusals(ctx context.Context, key string) error {
	s.step("Others are told why not")
	reader, err := stack.CreateServiceAccount(ctx, s.cloud, "auditor", s.namespace, identity.NamespaceAccess_PERMISSION_READ)
	if err != nil {
		return err
	}
	_, readOnly, err := stack.CreateKey(ctx, s.cloud, reader, time.Hour)
	if err != nil {
		return err
	}
	for _, who := range []struct{ name, key string }{
		{"no key", ""}, {"a mistyped key", mistype(key)}, {"a read-only key", readOnly},
	} {
		err := s.start(ctx, who.key)
		if err == nil {
			return fmt.Errorf("%s was let in", who.name)
		}
		s.note("%-16s %v", who.name+":", err)
	}
	return nil
}

// mistype changes one character of the key's secret.
func mistype(key string) string {
	i, other := len(key)-20, "0"
	if key[i] == '0' {
		other = "1"
	}
	return key[:i] + other + key[i+1:]
}

func (s *story) start(ctx context.Context, key string) error {
	c, err := s.stack.Temporal(s.namespace, key)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "orders"}, "ship", "nobody")
	return err
}

// revoke ends the worker's key.
func (s *story) revoke(ctx context.Context, c client.Client, id string) error {
	s.step("The key is revoked")
	operation, err := stack.DeleteKey(ctx, s.cloud, id)
	if err != nil {
		return err
	}
	return s.out(ctx, c, operation)
}

// certificates has a certificate issued, works with it, and revokes it.
func (s *story) certificates(ctx context.Context, account string) error {
	s.step("The namespace takes client certificates, too, at the same port; the managed CA issues one to the service account")
	if _, err := stack.EnableMTLS(ctx, s.cloud, s.namespace, nil); err != nil {
		return err
	}
	id, certificate, err := s.stack.IssueCertificate(ctx, s.cloud, account)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return err
	}
	s.note("certificate      %s, %s", id, leaf.URIs[0])
	s.note("good until       %s", leaf.NotAfter.Format(time.RFC3339))
	c, err := s.stack.TemporalTLS(s.namespace, certificate)
	if err != nil {
		return err
	}
	defer c.Close()
	answer, err := ship(ctx, c, "Grace")
	if err != nil {
		return err
	}
	s.step("A worker with that certificate and no key runs a workflow: %q", answer)
	s.step("The certificate is revoked")
	operation, err := s.stack.Revoke(ctx, s.cloud, &adminv1.RevokeRequest{CertificateId: id, Reason: "the story ends"})
	if err != nil {
		return err
	}
	return s.out(ctx, c, operation)
}

// out shows that the worker is out since the operation, with the proof.
func (s *story) out(ctx context.Context, c client.Client, operation string) error {
	receipt, err := s.stack.Receipt(ctx, s.stack.Sallyport.Key, operation)
	if err != nil {
		return err
	}
	s.note("receipt of operation %s:", operation)
	for _, a := range receipt.GetAuthorizers() {
		s.note("authorizer %s in cell %s: %s after %s", a.GetInstance(), strings.Join(a.GetCells(), ", "),
			strings.ToLower(strings.TrimPrefix(a.GetState().String(), "STATE_")), a.GetTook().AsDuration().Round(time.Millisecond/10))
	}
	if !receipt.GetEnforcedEverywhere() {
		return errors.New("the revocation is not in force everywhere")
	}
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "orders"}, "ship", "nobody")
	if err == nil {
		return errors.New("the revoked worker was let in")
	}
	s.step("The worker is out: %v", err)
	return nil
}
