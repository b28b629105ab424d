// Package e2e_test is the main job, end to end: sallyportd and a Temporal server
// as processes, driven by the public clients.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/stack"
)

var (
	programs string // folder of the built programs
	shared   *stack.Stack
	noStack  string // why there is none
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if _, err := exec.LookPath("postgres"); err != nil && os.Getenv("CI") == "" {
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
			noStack = "no PostgreSQL programs on this machine"
			return m.Run()
		}
	}
	dir, err := os.MkdirTemp("/tmp", "sallyport-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs = filepath.Join(dir, "bin")
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := stack.Build(ctx, stack.Config{Root: "../../../..", Bin: programs}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Connections are short, so that clients often show their certificates anew.
	shared, err = startIn(ctx, filepath.Join(dir, "shared"), false, "--max-connection-age", "4s")
	if shared != nil {
		defer shared.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		printLogs(filepath.Join(dir, "shared"))
	}
	return code
}

func startIn(ctx context.Context, dir string, persist bool, serverArgs ...string) (*stack.Stack, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := stack.Start(ctx, stack.Config{Dir: dir, Bin: programs, Persist: persist, ServerArgs: serverArgs})
	if err != nil {
		printLogs(dir)
	}
	return s, err
}

func printLogs(dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err == nil {
			fmt.Fprintf(os.Stderr, "--- %s\n", filepath.Base(log))
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			for _, line := range lines[max(0, len(lines)-15):] {
				fmt.Fprintln(os.Stderr, line[:min(len(line), 300)])
			}
		}
	}
}

// world is one namespace with a worker's key, made by the owner through the
// public API.
type world struct {
	*stack.Stack
	t         *testing.T
	cloud     cloudservice.CloudServiceClient
	namespace string
	account   string // service account's id
	keyID     string
	key       string
}

var names = regexp.MustCompile(`[^a-z0-9]+`)

func newWorld(t *testing.T, on *stack.Stack) *world {
	t.Helper()
	if noStack != "" {
		t.Skip(noStack)
	}
	ctx := t.Context()
	owner, err := on.Cloud(on.Sallyport.Key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close() })
	w := &world{Stack: on, t: t, cloud: owner.CloudService()}
	name := strings.Trim(names.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	if w.namespace, err = stack.CreateNamespace(ctx, w.cloud, name[:min(len(name), 30)]); err != nil {
		t.Fatal(err)
	}
	w.account, w.keyID, w.key = w.serviceAccount(name+"-worker", identity.NamespaceAccess_PERMISSION_WRITE)
	w.awaitNamespace()
	return w
}

func (w *world) serviceAccount(name string, permission identity.NamespaceAccess_Permission) (id, keyID, key string) {
	w.t.Helper()
	id, err := stack.CreateServiceAccount(w.t.Context(), w.cloud, name, w.namespace, permission)
	if err != nil {
		w.t.Fatal(err)
	}
	keyID, key, err = stack.CreateKey(w.t.Context(), w.cloud, id, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return id, keyID, key
}

// awaitNamespace waits until the reconciler made the namespace on the server.
func (w *world) awaitNamespace() {
	w.t.Helper()
	began := time.Now()
	for {
		_, err := w.client(w.key).WorkflowService().DescribeNamespace(w.t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: w.namespace})
		if err == nil {
			return
		}
		if time.Since(began) > 20*time.Second {
			w.t.Fatalf("the namespace is not on the server after 20 s: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) client(key string) client.Client {
	w.t.Helper()
	c, err := w.Temporal(w.namespace, key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) start(c client.Client, queue, id string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: queue}, "greet", "x")
	return err
}

// refused fails the test unless err is a denial that says why.
func refused(t *testing.T, err error, reason string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("let in; want refused with %q", reason)
	case !isDenial(err):
		t.Errorf("got %T %v, want a denial", err, err)
	case !strings.Contains(err.Error(), reason):
		t.Errorf("got %v, want the reason %q", err, reason)
	}
}

// isDenial: only these two codes mean deny; any other may be tried again.
func isDenial(err error) bool {
	var denied *serviceerror.PermissionDenied
	return errors.As(err, &denied) || status.Code(err) == codes.Unauthenticated
}

func greet(ctx workflow.Context, name string) (string, error) {
	greeting := "hello"
	if err := workflow.SetQueryHandler(ctx, "greeting", func() (string, error) { return greeting, nil }); err != nil {
		return "", err
	}
	workflow.GetSignalChannel(ctx, "greeting").Receive(ctx, &greeting)
	var answer string
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{})
	if err := workflow.ExecuteChildWorkflow(child, "shout", greeting+" "+name).Get(ctx, &answer); err != nil {
		return "", err
	}
	return answer, nil
}

func shout(_ workflow.Context, text string) (string, error) { return strings.ToUpper(text), nil }

func runWorker(t *testing.T, c client.Client, queue string) worker.Worker {
	t.Helper()
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflowWithOptions(greet, workflow.RegisterOptions{Name: "greet"})
	w.RegisterWorkflowWithOptions(shout, workflow.RegisterOptions{Name: "shout"})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAWorkerWithAKeyRunsWorkflows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := w.client(w.key)
	defer runWorker(t, c, "q").Stop()

	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "one", TaskQueue: "q"}, "greet", "world")
	if err != nil {
		t.Fatal(err)
	}
	value, err := c.QueryWorkflow(ctx, "one", "", "greeting")
	if err != nil {
		t.Fatal(err)
	}
	var greeting string
	if err := value.Get(&greeting); err != nil || greeting != "hello" {
		t.Errorf("query: %q, %v", greeting, err)
	}
	if err := c.SignalWorkflow(ctx, "one", "", "greeting", "good morning"); err != nil {
		t.Fatal(err)
	}
	var answer string
	if err := run.Get(ctx, &answer); err != nil || answer != "GOOD MORNING WORLD" {
		t.Errorf("workflow with signal and child: %q, %v", answer, err)
	}

	// A schedule is run by the server's own workers, through its internal frontend.
	handle, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{ID: "s", TriggerImmediately: true,
		Action: &client.ScheduleWorkflowAction{ID: "scheduled", Workflow: "shout", Args: []any{"tick"}, TaskQueue: "q"}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		about, err := handle.Describe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(about.Info.RecentActions) > 0 {
			id := about.Info.RecentActions[0].StartWorkflowResult.WorkflowID
			if err := c.GetWorkflow(ctx, id, "").Get(ctx, &answer); err != nil || answer != "TICK" {
				t.Errorf("scheduled workflow: %q, %v", answer, err)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestAReadOnlyKeyLooksAndDoesNotTouch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	_, _, key := w.serviceAccount("reader", identity.NamespaceAccess_PERMISSION_READ)
	if err := w.start(w.client(w.key), "q", "seen"); err != nil {
		t.Fatal(err)
	}
	reader := w.client(key)
	if _, err := reader.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{}); err != nil {
		t.Errorf("list: %v", err)
	}
	if about, err := reader.DescribeWorkflowExecution(t.Context(), "seen", ""); err != nil || about.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("describe: %v, %v", about.GetWorkflowExecutionInfo().GetStatus(), err)
	}
	refused(t, w.start(reader, "q", "not"), "write")
	refused(t, reader.TerminateWorkflow(t.Context(), "seen", "", "because"), "write")
}

func TestWhoIsRefusedAndWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ctx := t.Context()
	owner := w.account
	expiringID, expiring, err := stack.CreateKey(ctx, w.cloud, owner, 61*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(62 * time.Second)
	_ = expiringID
	if err := w.start(w.client(expiring), "q", "before"); err != nil {
		t.Errorf("before its expiry: %v", err)
	}
	disabledID, disabled, err := stack.CreateKey(ctx, w.cloud, owner, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.disable(disabledID)
	deletedID, deleted, err := stack.CreateKey(ctx, w.cloud, owner, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stack.DeleteKey(ctx, w.cloud, deletedID); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := stack.CreateNamespace(ctx, w.cloud, "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	elsewhereAccount, err := stack.CreateServiceAccount(ctx, w.cloud, "elsewhere", elsewhere, identity.NamespaceAccess_PERMISSION_WRITE)
	if err != nil {
		t.Fatal(err)
	}
	_, otherNamespace, err := stack.CreateKey(ctx, w.cloud, elsewhereAccount, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	last := w.key[len(w.key)-1:]
	mistyped := w.key[:len(w.key)-1] + map[bool]string{true: "b", false: "a"}[last == "a"]

	for name, c := range map[string]struct{ key, reason string }{
		"no key":                     {"", "API key"},
		"a mistyped key":             {mistyped, "mistyped"},
		"not a key":                  {"hello", "API key"},
		"a disabled key":             {disabled, "disabled"},
		"a deleted key":              {deleted, "key"},
		"a key of another namespace": {otherNamespace, "namespace"},
		"a key of another account":   {w.otherAccountsKey(), "namespace"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, w.start(w.client(c.key), "q", "never"), c.reason) })
	}
	t.Run("an expired key", func(t *testing.T) {
		time.Sleep(time.Until(expires))
		refused(t, w.start(w.client(expiring), "q", "after"), "expired")
	})
}

func (w *world) disable(id string) {
	w.t.Helper()
	ctx := w.t.Context()
	got, err := w.cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	spec := got.GetApiKey().GetSpec()
	spec.Disabled = true
	done, err := w.cloud.UpdateApiKey(ctx, &cloudservice.UpdateApiKeyRequest{KeyId: id, Spec: spec, ResourceVersion: got.GetApiKey().GetResourceVersion()})
	if err == nil {
		err = stack.Await(ctx, w.cloud, done.GetAsyncOperation())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// otherAccountsKey is the owner's key of an account that has a namespace in the
// same cell.
func (w *world) otherAccountsKey() string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), filepath.Join(programs, "sallyportd"), "account", "create",
		"--data", filepath.Dir(w.Sallyport.KeyFile), "--name", "Other", "--owner-email", "other@example.com").CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	key := regexp.MustCompile(`sp_[a-z0-9]+_\S+`).FindString(string(out))
	other, err := w.Cloud(key)
	if err != nil {
		w.t.Fatal(err)
	}
	defer other.Close()
	if _, err := stack.CreateNamespace(w.t.Context(), other.CloudService(), "theirs"); err != nil {
		w.t.Fatal(err)
	}
	return key
}

// After a revocation no further call passes, and a worker that waits in a poll
// does not get a task that starts afterwards.
func TestARevokedWorkerIsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ctx := t.Context()
	_, _, otherKey := w.serviceAccount("other-worker", identity.NamespaceAccess_PERMISSION_WRITE)
	revoked := w.client(w.key)
	if _, err := revoked.CheckHealth(ctx, nil); err != nil {
		t.Fatal(err)
	}
	type polled struct {
		task *workflowservice.PollWorkflowTaskQueueResponse
		err  error
	}
	polls := make(chan polled, 3)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			task, err := revoked.WorkflowService().PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{
				Namespace: w.namespace, TaskQueue: &taskqueue.TaskQueue{Name: "q"}, Identity: "revoked"})
			polls <- polled{task, err}
		})
	}
	time.Sleep(500 * time.Millisecond) // the polls are waiting
	operation, err := stack.DeleteKey(ctx, w.cloud, w.keyID)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := w.Receipt(ctx, w.Sallyport.Key, operation)
	if err != nil || !receipt.GetEnforcedEverywhere() || len(receipt.GetAuthorizers()) == 0 {
		t.Errorf("receipt: %v, %v; want enforced by the server's authorizer", receipt, err)
	}
	refused(t, w.start(revoked, "q", "denied"), "key")
	if err := w.start(w.client(otherKey), "q", "after"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		select {
		case p := <-polls:
			if len(p.task.GetTaskToken()) > 0 {
				t.Errorf("a revoked worker was given a task of %s", p.task.GetWorkflowExecution().GetWorkflowId())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a poll of a revoked key still waits after 10 s")
		}
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	task, err := w.client(otherKey).WorkflowService().PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{
		Namespace: w.namespace, TaskQueue: &taskqueue.TaskQueue{Name: "q"}, Identity: "other"})
	if err != nil || task.GetWorkflowExecution().GetWorkflowId() != "after" {
		t.Errorf("the task stays for another worker: %v, %v", task.GetWorkflowExecution(), err)
	}
}

// A key is rotated while its worker runs: the old one retires at its time, and
// both show when they last let a call through.
func TestRotationWithOverlap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ctx := t.Context()
	var rotated *adminv1.RotateApiKeyResponse
	err := w.Admin(ctx, w.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) (err error) {
		rotated, err = admin.RotateApiKey(ctx, &adminv1.RotateApiKeyRequest{KeyId: w.keyID, Overlap: durationpb.New(6 * time.Second)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	op, err := w.cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: rotated.GetAsyncOperationId()})
	if err == nil {
		err = stack.Await(ctx, w.cloud, op.GetAsyncOperation())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.start(w.client(w.key), "q", "old, within the overlap"); err != nil {
		t.Errorf("the old key within the overlap: %v", err)
	}
	if err := w.start(w.client(rotated.GetToken()), "q", "new"); err != nil {
		t.Errorf("the new key: %v", err)
	}
	time.Sleep(time.Until(rotated.GetOldKeyRetiresTime().AsTime()) + 100*time.Millisecond)
	refused(t, w.start(w.client(w.key), "q", "old, after the overlap"), "retired")

	began := time.Now()
	for used := 0; used < 2; {
		err := w.Admin(ctx, w.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) error {
			list, err := admin.ListApiKeys(ctx, &adminv1.ListApiKeysRequest{OwnerId: w.account})
			used = 0
			for _, k := range list.GetApiKeys() {
				if k.GetLastUsedTime().IsValid() && time.Since(k.GetLastUsedTime().AsTime()) < 5*time.Minute {
					used++
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%d of two keys show that workers use them, after 30 s", used)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Also an account's last namespace is gone from the server soon after it was
// deleted.
func TestTheLastNamespaceOfAnAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ctx := t.Context()
	other, err := w.Cloud(w.otherAccountsKey())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	list, err := other.CloudService().GetNamespaces(ctx, &cloudservice.GetNamespacesRequest{})
	if err != nil || len(list.GetNamespaces()) != 1 {
		t.Fatalf("%v, %v; want one namespace", list, err)
	}
	ns := list.GetNamespaces()[0]
	said := func(what string) func() bool {
		return func() bool {
			log, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(w.Sallyport.KeyFile)), "temporal-server-sallyport.log"))
			return err == nil && regexp.MustCompile(`(?m)^.*`+what+`.*`+regexp.QuoteMeta(ns.GetNamespace())).Match(log)
		}
	}
	await(t, said("namespace registered"))
	done, err := other.CloudService().DeleteNamespace(ctx, &cloudservice.DeleteNamespaceRequest{Namespace: ns.GetNamespace(), ResourceVersion: ns.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	if err := stack.Await(ctx, other.CloudService(), done.GetAsyncOperation()); err != nil {
		t.Fatal(err)
	}
	await(t, said("namespace deleted"))
}

func await(t *testing.T, what func() bool) {
	t.Helper()
	for began := time.Now(); !what(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 15*time.Second {
			t.Fatal("in vain for 15 s")
		}
	}
}
