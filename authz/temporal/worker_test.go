package temporal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// header brings the key with each call of an SDK client.
type header string

func (h header) GetHeaders(context.Context) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(h)}, nil
}

func activity(_ context.Context, order string) (string, error) { return "packed " + order, nil }

func child(ctx workflow.Context, order string) (result string, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 10 * time.Second})
	return result, workflow.ExecuteActivity(ctx, activity, order).Get(ctx, &result)
}

func parent(ctx workflow.Context) (result string, err error) {
	var order string
	workflow.GetSignalChannel(ctx, "order").Receive(ctx, &order)
	return result, workflow.ExecuteChildWorkflow(ctx, child, order).Get(ctx, &result)
}

// A real worker and client work with their keys, and the server's own workers
// do theirs: a schedule fires.
func TestWorkerAndSchedule(t *testing.T) {
	b := newBed(t)
	dial := func(token string) client.Client {
		t.Helper()
		c, err := client.Dial(client.Options{HostPort: b.server.Frontend, Namespace: orders, HeadersProvider: header(token), Logger: silent{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	token := b.acme.key("sa_writer", nil)
	w := worker.New(dial(token), "orders", worker.Options{})
	w.RegisterWorkflow(parent)
	w.RegisterWorkflow(child)
	w.RegisterActivity(activity)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := dial(b.acme.key("u_owner", nil))
	run, err := c.SignalWithStartWorkflow(ctx, "order-1", "order", "tea", client.StartWorkflowOptions{TaskQueue: "orders"}, parent)
	if err != nil {
		t.Fatal(err)
	}
	var result string
	if err := run.Get(ctx, &result); err != nil || result != "packed tea" {
		t.Fatalf("the workflow: %q, %v", result, err)
	}

	_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:                 "hourly",
		Spec:               client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
		TriggerImmediately: true,
		Action:             &client.ScheduleWorkflowAction{ID: "scheduled", Workflow: child, Args: []any{"milk"}, TaskQueue: "orders"},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: orders, Query: "WorkflowType = 'child' AND TemporalScheduledById = 'hourly' AND ExecutionStatus = 'Completed'",
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.GetExecutions()) != 1 {
			return fmt.Errorf("%d workflows of the schedule have completed, want 1", len(list.GetExecutions()))
		}
		return nil
	})

	// The worker's key ends: its client is told why, and its workflows wait.
	b.acme.end(token)
	_, err = dial(token).DescribeWorkflowExecution(ctx, "order-1", "")
	if unauthenticated := (*serviceerror.PermissionDenied)(nil); err == nil || errors.As(err, &unauthenticated) {
		t.Errorf("with the ended key: got %v", err)
	}
	waiting, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "orders", WorkflowRunTimeout: 2 * time.Second}, child, "bread")
	if err != nil {
		t.Fatal(err)
	}
	timeout := (*temporal.TimeoutError)(nil)
	if err := waiting.Get(ctx, nil); !errors.As(err, &timeout) {
		t.Errorf("a workflow without a worker: got %v, want a timeout", err)
	}
}

// silent is a logger of the SDK that logs nothing.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
