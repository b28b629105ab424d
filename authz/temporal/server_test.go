package temporal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/servertest"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/query/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/update/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// bed is a server with two accounts: acme1 with the namespaces orders and
// billing, and other with one that is called orders, too.
type bed struct {
	server  *servertest.Server
	replica *replica.Replica
	acme    *policy
	other   *policy
	client  workflowservice.WorkflowServiceClient
	conn    *grpc.ClientConn
}

const (
	orders  = "orders.acme2"
	billing = "billing.acme2"
	foreign = "orders.other"
)

func newBed(t *testing.T) *bed {
	t.Helper()
	r := openReplica(t)
	b := &bed{replica: r, acme: newPolicy(t, r, "acme2"), other: newPolicy(t, r, "other")}
	b.acme.namespace("ns_orders", "orders", 3)
	b.acme.namespace("ns_billing", "billing", 3)
	b.acme.owner("u_owner")
	b.acme.worker("sa_writer", "ns_orders", sallyport.PermissionWrite)
	b.acme.worker("sa_reader", "ns_orders", sallyport.PermissionRead)
	b.other.namespace("ns_foreign", "orders", 3)
	b.other.owner("u_foreigner")
	b.server = servertest.Start(t, r)
	b.conn = connect(t, b.server.Frontend)
	b.client = workflowservice.NewWorkflowServiceClient(b.conn)
	for name, token := range map[string]string{
		orders: b.acme.key("u_owner", nil), billing: b.acme.key("u_owner", nil), foreign: b.other.key("u_foreigner", nil),
	} {
		eventually(t, func() error {
			_, err := b.client.DescribeNamespace(as(t, token), &workflowservice.DescribeNamespaceRequest{Namespace: name})
			return err
		})
	}
	return b
}

func connect(t testing.TB, frontend string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(frontend, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// as is a context of a call with the token, "" for none.
func as(t testing.TB, token string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("still not after 15 seconds: ", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func start(namespace, id string) *workflowservice.StartWorkflowExecutionRequest {
	return &workflowservice.StartWorkflowExecutionRequest{
		Namespace:    namespace,
		WorkflowId:   id,
		WorkflowType: &common.WorkflowType{Name: "Order"},
		TaskQueue:    &taskqueue.TaskQueue{Name: "orders"},
		RequestId:    id,
	}
}

func TestCalls(t *testing.T) {
	b := newBed(t)
	expired := func(k *object.Key) { k.Expires = time.Now().Add(-time.Second).UnixMicro() }
	disabled := func(k *object.Key) { k.Status = object.Disabled }
	readOnly := func(k *object.Key) { k.ReadOnly = true }
	elsewhere := func(k *object.Key) { k.Sources = []string{"192.0.2.0/24"} }
	here := func(k *object.Key) { k.Sources = []string{"127.0.0.0/8"} }
	writer := b.acme.key("sa_writer", nil)
	deleted := b.acme.key("sa_writer", nil)
	b.acme.end(deleted)

	startIn := func(namespace string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.client.StartWorkflowExecution(ctx, start(namespace, sallyport.NewID("wf_")))
			return err
		}
	}
	listIn := func(namespace string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.client.ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace})
			return err
		}
	}
	systemInfo := func(ctx context.Context) error {
		_, err := b.client.GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
		return err
	}
	clusterInfo := func(ctx context.Context) error {
		_, err := b.client.GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
		return err
	}
	nexus := func(endpoint string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.client.StartNexusOperationExecution(ctx, &workflowservice.StartNexusOperationExecutionRequest{Namespace: orders, Endpoint: endpoint})
			return err
		}
	}
	const ok, denied, unknown = codes.OK, codes.PermissionDenied, codes.Unauthenticated
	for _, test := range []struct {
		name   string
		token  string
		call   func(context.Context) error
		want   codes.Code
		reason string
	}{
		{"a writer starts", writer, startIn(orders), ok, ""},
		{"a writer lists", writer, listIn(orders), ok, ""},
		{"an owner starts", b.acme.key("u_owner", nil), startIn(billing), ok, ""},
		{"a reader lists", b.acme.key("sa_reader", nil), listIn(orders), ok, ""},
		{"a reader starts", b.acme.key("sa_reader", nil), startIn(orders), denied, "needs the permission write"},
		{"a read-only key lists", b.acme.key("sa_writer", readOnly), listIn(orders), ok, ""},
		{"a read-only key starts", b.acme.key("sa_writer", readOnly), startIn(orders), denied, "read-only"},
		{"another namespace of the account", writer, startIn(billing), denied, notFound(billing)},
		{"a namespace of another account", writer, startIn(foreign), denied, notFound(foreign)},
		{"an owner in another account", b.acme.key("u_owner", nil), startIn(foreign), denied, notFound(foreign)},
		{"no such namespace", writer, startIn("nothing.acme2"), denied, notFound("nothing.acme2")},
		{"the server's own namespace", b.acme.key("u_owner", nil), listIn("temporal-system"), denied, notFound("temporal-system")},
		{"no key", "", startIn(orders), unknown, "no credential"},
		{"a mistyped key", mistyped(writer), startIn(orders), unknown, "checksum"},
		{"no Sallyport key", "ghp_x", startIn(orders), unknown, "not an API key"},
		{"no Sallyport token", "eyJhbGciOiJub25lIn0.e30.", startIn(orders), unknown, "malformed"},
		{"a disabled key", b.acme.key("sa_writer", disabled), startIn(orders), unknown, "disabled"},
		{"an expired key", b.acme.key("sa_writer", expired), startIn(orders), unknown, "expired"},
		{"a deleted key", deleted, startIn(orders), unknown, "not known"},
		{"a key for other networks", b.acme.key("sa_writer", elsewhere), startIn(orders), denied, "network"},
		{"a key for this network", b.acme.key("sa_writer", here), startIn(orders), ok, ""},
		{"system info without a key", "", systemInfo, ok, ""},
		{"cluster info", writer, clusterInfo, ok, ""},
		{"cluster info without a key", "", clusterInfo, unknown, "no credential"},
		{"an unknown Nexus endpoint", writer, nexus("nothing"), denied, "no Nexus endpoint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.call(as(t, test.token))
			got := status.Convert(err)
			if got.Code() != test.want || !contains(got.Message(), test.reason) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.reason)
			}
		})
	}
}

func notFound(namespace string) string {
	return fmt.Sprintf("namespace %q was not found in the account of this API key", namespace)
}

func TestDescribeNamespaceByID(t *testing.T) {
	b := newBed(t)
	owner := b.acme.key("u_owner", nil)
	byName, err := b.client.DescribeNamespace(as(t, owner), &workflowservice.DescribeNamespaceRequest{Namespace: orders})
	if err != nil {
		t.Fatal(err)
	}
	id := byName.GetNamespaceInfo().GetId()
	for _, weak := range []bool{false, true} {
		eventually(t, func() error {
			byID, err := b.client.DescribeNamespace(as(t, owner), &workflowservice.DescribeNamespaceRequest{Id: id, WeakConsistency: weak})
			if err == nil && byID.GetNamespaceInfo().GetName() != orders {
				t.Fatalf("by id (weak: %v): %v", weak, byID.GetNamespaceInfo())
			}
			return err
		})
	}

	// What is another's, what is the server's and what does not exist get the same answer.
	_, ofOther := b.client.DescribeNamespace(as(t, b.other.key("u_foreigner", nil)), &workflowservice.DescribeNamespaceRequest{Id: id})
	_, ofServer := b.client.DescribeNamespace(as(t, owner), &workflowservice.DescribeNamespaceRequest{Id: "32049b68-7872-4094-8e63-d0dd59896a83"})
	_, ofNobody := b.client.DescribeNamespace(as(t, owner), &workflowservice.DescribeNamespaceRequest{Id: "b2b9d0f0-0000-4000-8000-000000000000"})
	for _, err := range []error{ofOther, ofServer, ofNobody} {
		if got := status.Convert(err); got.Code() != codes.PermissionDenied || !contains(got.Message(), "no namespace with this id") {
			t.Errorf("got %v", err)
		}
	}
	_, err = b.client.DescribeNamespace(as(t, owner), &workflowservice.DescribeNamespaceRequest{Id: id, Namespace: foreign})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("an own id with a foreign name: got %v", err)
	}
	_, err = b.client.DescribeNamespace(as(t, ""), &workflowservice.DescribeNamespaceRequest{Id: id})
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("by id without a key: got %v", err)
	}
}

func TestListNamespaces(t *testing.T) {
	b := newBed(t)
	list := func(token string, size int32) (names []string, pages int) {
		t.Helper()
		for next := []byte(nil); ; pages++ {
			page, err := b.client.ListNamespaces(as(t, token), &workflowservice.ListNamespacesRequest{PageSize: size, NextPageToken: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, ns := range page.GetNamespaces() {
				names = append(names, ns.GetNamespaceInfo().GetName())
			}
			if next = page.GetNextPageToken(); len(next) == 0 {
				return names, pages + 1
			}
		}
	}
	for _, test := range []struct {
		name  string
		token string
		size  int32
		want  []string
		pages int
	}{
		{"owner", b.acme.key("u_owner", nil), 0, []string{billing, orders}, 1},
		{"owner, by pages", b.acme.key("u_owner", nil), 1, []string{billing, orders}, 2},
		{"reader of one", b.acme.key("sa_reader", nil), 10, []string{orders}, 1},
		{"another account", b.other.key("u_foreigner", nil), 0, []string{foreign}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, pages := list(test.token, test.size)
			if fmt.Sprint(got) != fmt.Sprint(test.want) || pages != test.pages {
				t.Errorf("got %v in %d pages, want %v in %d", got, pages, test.want, test.pages)
			}
		})
	}
	if _, err := b.client.ListNamespaces(as(t, ""), &workflowservice.ListNamespacesRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: got %v", err)
	}
}

var errTask = errors.New("the poll brought a task")

// A worker that waits gets no task that starts after its key ended.
func TestPollEndsWithItsCredential(t *testing.T) {
	b := newBed(t)
	writer := b.acme.key("sa_writer", nil)
	for _, test := range []struct {
		name string
		key  func() string
		end  func(token string)
		want codes.Code
	}{
		{"the key is deleted", func() string { return b.acme.key("sa_writer", nil) }, func(token string) { b.acme.end(token) }, codes.Unauthenticated},
		{"the principal is disabled", func() string {
			b.acme.worker("sa_leaver", "ns_orders", sallyport.PermissionWrite)
			return b.acme.key("sa_leaver", nil)
		}, func(string) {
			put(b.acme, object.KindPrincipal, "sa_leaver", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled})
		}, codes.Unauthenticated},
		{"the grant is lowered", func() string {
			b.acme.worker("sa_lowered", "ns_orders", sallyport.PermissionWrite)
			return b.acme.key("sa_lowered", nil)
		}, func(string) { b.acme.worker("sa_lowered", "ns_orders", sallyport.PermissionRead) }, codes.PermissionDenied},
		{"the key expires", func() string {
			return b.acme.key("sa_writer", func(k *object.Key) { k.Expires = time.Now().Add(1500 * time.Millisecond).UnixMicro() })
		}, func(string) {}, codes.Unauthenticated},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := test.key()
			poll := &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: &taskqueue.TaskQueue{Name: sallyport.NewID("tq_")}}
			ended := make(chan error, 1)
			go func() {
				resp, err := b.client.PollWorkflowTaskQueue(as(t, token), poll)
				if err == nil && len(resp.GetTaskToken()) > 0 {
					err = errTask
				}
				ended <- err
			}()
			select {
			case err := <-ended:
				t.Fatal("the poll did not wait:", err)
			case <-time.After(500 * time.Millisecond):
			}
			before := time.Now()
			test.end(token)
			if err := <-ended; status.Code(err) != test.want {
				t.Fatalf("the poll ended with %v, want %v", err, test.want)
			}
			if took := time.Since(before); took > 2*time.Second {
				t.Errorf("the poll ended only after %v", took)
			}

			req := start(orders, sallyport.NewID("wf_"))
			req.TaskQueue = poll.TaskQueue
			if _, err := b.client.StartWorkflowExecution(as(t, writer), req); err != nil {
				t.Fatal(err)
			}
			if _, err := b.client.PollWorkflowTaskQueue(as(t, token), poll); status.Code(err) != test.want {
				t.Errorf("the next poll: got %v, want %v", err, test.want)
			}
			resp, err := b.client.PollWorkflowTaskQueue(as(t, writer), poll)
			if err != nil || resp.GetWorkflowExecution().GetWorkflowId() != req.WorkflowId || resp.GetAttempt() != 1 {
				t.Errorf("another worker's poll: %v, %v", resp, err)
			}
		})
	}
}

// Whoever waits for a worker's answer gets none that is made after his key ended.
func TestWaitingCallsEndWithTheirCredential(t *testing.T) {
	b := newBed(t)
	writer := b.acme.key("sa_writer", nil)
	idle := func(ctx context.Context) *common.WorkflowExecution {
		// A workflow whose first task is done, and whose worker went away.
		req := start(orders, sallyport.NewID("wf_"))
		req.TaskQueue.Name = sallyport.NewID("tq_")
		run, err := b.client.StartWorkflowExecution(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		task, err := b.client.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: req.TaskQueue})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.client.RespondWorkflowTaskCompleted(ctx, &workflowservice.RespondWorkflowTaskCompletedRequest{Namespace: orders, TaskToken: task.GetTaskToken()}); err != nil {
			t.Fatal(err)
		}
		return &common.WorkflowExecution{WorkflowId: req.WorkflowId, RunId: run.GetRunId()}
	}
	updateOf := func(of *common.WorkflowExecution) *workflowservice.UpdateWorkflowExecutionRequest {
		return &workflowservice.UpdateWorkflowExecutionRequest{
			Namespace: orders, WorkflowExecution: of,
			Request: &update.Request{
				Meta:  &update.Meta{UpdateId: sallyport.NewID("up_")},
				Input: &update.Input{Name: "change"},
			},
			WaitPolicy: &update.WaitPolicy{LifecycleStage: enums.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED},
		}
	}
	for _, test := range []struct {
		name string
		call func(context.Context, *common.WorkflowExecution) error
	}{
		{"a query", func(ctx context.Context, of *common.WorkflowExecution) error {
			_, err := b.client.QueryWorkflow(ctx, &workflowservice.QueryWorkflowRequest{
				Namespace: orders, Execution: of, Query: &query.WorkflowQuery{QueryType: "state"},
			})
			return err
		}},
		{"an update", func(ctx context.Context, of *common.WorkflowExecution) error {
			_, err := b.client.UpdateWorkflowExecution(ctx, updateOf(of))
			return err
		}},
		{"an update with start", func(ctx context.Context, _ *common.WorkflowExecution) error {
			req := start(orders, sallyport.NewID("wf_"))
			req.WorkflowIdConflictPolicy = enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
			_, err := b.client.ExecuteMultiOperation(ctx, &workflowservice.ExecuteMultiOperationRequest{
				Namespace: orders,
				Operations: []*workflowservice.ExecuteMultiOperationRequest_Operation{
					{Operation: &workflowservice.ExecuteMultiOperationRequest_Operation_StartWorkflow{StartWorkflow: req}},
					{Operation: &workflowservice.ExecuteMultiOperationRequest_Operation_UpdateWorkflow{
						UpdateWorkflow: updateOf(&common.WorkflowExecution{WorkflowId: req.WorkflowId}),
					}},
				},
			})
			return err
		}},
		{"the history's next event", func(ctx context.Context, of *common.WorkflowExecution) error {
			_, err := b.client.GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
				Namespace: orders, Execution: of, WaitNewEvent: true, HistoryEventFilterType: enums.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
			})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			of := idle(as(t, writer))
			token := b.acme.key("sa_writer", nil)
			ended := make(chan error, 1)
			go func() { ended <- test.call(as(t, token), of) }()
			select {
			case err := <-ended:
				t.Fatal("the call did not wait: ", err)
			case <-time.After(500 * time.Millisecond):
			}
			began := time.Now()
			b.acme.end(token)
			if err := <-ended; status.Code(err) != codes.Unauthenticated {
				t.Errorf("the call ended with %v", err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the call ended only after %v", took)
			}
		})
	}
}
