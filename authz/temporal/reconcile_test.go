package temporal_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_model/go"
	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/servertest"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const day = 24 * time.Hour

// has waits until the server has exactly these namespaces beside its own, each
// with its retention.
func has(t *testing.T, s *servertest.Server, want map[string]time.Duration) map[string]string {
	t.Helper()
	ids := map[string]string{}
	eventually(t, func() error {
		clear(ids)
		got := map[string]time.Duration{}
		list, err := workflowservice.NewWorkflowServiceClient(s.Internal).ListNamespaces(t.Context(), &workflowservice.ListNamespacesRequest{PageSize: 100})
		if err != nil {
			return err
		}
		for _, ns := range list.GetNamespaces() {
			if name := ns.GetNamespaceInfo().GetName(); name != "temporal-system" {
				got[name] = ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
				ids[name] = ns.GetNamespaceInfo().GetId()
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		return nil
	})
	return ids
}

func TestReconcile(t *testing.T) {
	r := openReplica(t)
	s := servertest.Start(t, r)
	internal := workflowservice.NewWorkflowServiceClient(s.Internal)

	// Before the replica has anything, and of what Sallyport did not make,
	// nothing is touched.
	_, err := internal.RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "made-by-hand", WorkflowExecutionRetentionPeriod: durationpb.New(2 * day),
	})
	if err != nil {
		t.Fatal(err)
	}
	// A namespace of an account that the replica does not hold: another server's
	// replica may know it.
	_, err = internal.RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "orders.absent", WorkflowExecutionRetentionPeriod: durationpb.New(2 * day),
		Data: map[string]string{"sallyport.namespace_id": "ns_absent", "sallyport.head": "1.1", "sallyport.since": "2020-01-01T00:00:00Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	// One that was registered at a head that this replica has not reached.
	_, err = internal.RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "ahead.acme2", WorkflowExecutionRetentionPeriod: durationpb.New(2 * day),
		Data: map[string]string{"sallyport.namespace_id": "ns_ahead", "sallyport.head": "1.1000000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	others := map[string]time.Duration{"made-by-hand": 2 * day, "orders.absent": 2 * day, "ahead.acme2": 2 * day}
	want := func(more map[string]time.Duration) map[string]time.Duration {
		all := map[string]time.Duration{}
		for _, m := range []map[string]time.Duration{others, more} {
			for name, retention := range m {
				all[name] = retention
			}
		}
		return all
	}

	acme := newPolicy(t, r, "acme2")
	acme.namespace("ns_1", "orders", 3)
	acme.namespace("ns_2", "billing", 30)
	first := has(t, s, want(map[string]time.Duration{"orders.acme2": 3 * day, "billing.acme2": 30 * day}))

	acme.namespace("ns_1", "orders", 7)
	has(t, s, want(map[string]time.Duration{"orders.acme2": 7 * day, "billing.acme2": 30 * day}))

	acme.remove(object.KindNamespace, "ns_2")
	has(t, s, want(map[string]time.Duration{"orders.acme2": 7 * day}))

	// The name is made again, in one step: it is a new namespace with nothing of
	// the old one in it, and in between nobody reaches the old one by it.
	acme.worker("sa_new", "ns_3", sallyport.PermissionWrite)
	token := acme.key("sa_new", nil)
	client := dial(t, s)
	if _, err := client.StartWorkflowExecution(as(t, token), start("orders.acme2", "a")); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("before the namespace is there: got %v", err)
	}
	acme.change(func() {
		delete(acme.objects[object.KindNamespace], "ns_1")
		acme.objects[object.KindNamespace]["ns_3"] = object.Encode(object.Namespace{
			Name: "orders", Cell: "local", RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true},
		})
	})
	var described *workflowservice.DescribeNamespaceResponse
	eventually(t, func() error {
		var err error
		described, err = client.DescribeNamespace(as(t, token), &workflowservice.DescribeNamespaceRequest{Namespace: "orders.acme2"})
		if err == nil && described.GetNamespaceInfo().GetId() == first["orders.acme2"] {
			t.Fatal("the new namespace's worker reached the old namespace")
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal("while the namespace is replaced: ", err)
		}
		return err
	})
	if got := described.GetNamespaceInfo().GetData()["sallyport.namespace_id"]; got != "ns_3" {
		t.Errorf("the new namespace is of %q, want ns_3", got)
	}
	has(t, s, want(map[string]time.Duration{"orders.acme2": day}))
	if got := changes(t, s.Metrics, "failure"); got != 0 {
		t.Errorf("%v passes failed", got)
	}
}

// A namespace that somebody else made under a wanted name stays as it is.
func TestReconcileConflict(t *testing.T) {
	r := openReplica(t)
	s := servertest.Start(t, r)
	internal := workflowservice.NewWorkflowServiceClient(s.Internal)
	_, err := internal.RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "orders.acme2", WorkflowExecutionRetentionPeriod: durationpb.New(2 * day),
	})
	if err != nil {
		t.Fatal(err)
	}
	acme := newPolicy(t, r, "acme2")
	acme.namespace("ns_1", "orders", 3)
	acme.worker("sa_1", "ns_1", sallyport.PermissionWrite)
	token := acme.key("sa_1", nil)
	acme.namespace("ns_2", "billing", 3)
	has(t, s, map[string]time.Duration{"orders.acme2": 2 * day, "billing.acme2": 3 * day})

	// What somebody else made under the name is nobody's of the account.
	refuses(t, s, token, "orders.acme2", "made by hand")
	hasConflicts(t, s, 1)
}

func gauge(t *testing.T, s *servertest.Server, name string) float64 {
	t.Helper()
	for _, m := range gather(t, s.Metrics, name) {
		return m.GetGauge().GetValue()
	}
	t.Fatal("no metric ", name)
	return 0
}

// changes are how often the reconciler did the action.
func changes(t *testing.T, metrics *prometheus.Registry, action string) float64 {
	t.Helper()
	for _, m := range gather(t, metrics, "sallyport_temporal_namespace_changes_total") {
		if m.GetLabel()[0].GetValue() == action {
			return m.GetCounter().GetValue()
		}
	}
	return 0
}

func gather(t *testing.T, metrics *prometheus.Registry, name string) []*io_prometheus_client.Metric {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

// Two servers with a reconciler each come to the same namespaces, whoever is first.
func TestTwoReconcilers(t *testing.T) {
	r := openReplica(t)
	s := servertest.Start(t, r)
	second := prometheus.NewRegistry()
	plugin, err := temporal.New(temporal.Config{Replica: r, InternalFrontend: s.Internal, Metrics: second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- plugin.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	acme := newPolicy(t, r, "acme2")
	for round := range 3 {
		all := map[string]time.Duration{}
		acme.change(func() {
			acme.objects[object.KindNamespace] = map[string][]byte{}
			for i := range 4 { // the names are those of the round before
				name := fmt.Sprintf("n%d", i)
				acme.objects[object.KindNamespace][fmt.Sprintf("ns_%d_%d", round, i)] = object.Encode(object.Namespace{
					Name: name, Cell: "local", RetentionDays: int32(round + 1),
				})
				all[name+".acme2"] = time.Duration(round+1) * day
			}
		})
		has(t, s, all)
	}
	acme.change(func() { clear(acme.objects[object.KindNamespace]) })
	has(t, s, map[string]time.Duration{})
	if got := changes(t, s.Metrics, "register") + changes(t, second, "register"); got != 12 {
		t.Errorf("12 namespaces were registered %v times", got)
	}
	if got := changes(t, s.Metrics, "failure") + changes(t, second, "failure"); got != 0 {
		t.Errorf("%v passes failed", got)
	}
}

func dial(t *testing.T, s *servertest.Server) workflowservice.WorkflowServiceClient {
	t.Helper()
	return workflowservice.NewWorkflowServiceClient(connect(t, s.Frontend))
}
