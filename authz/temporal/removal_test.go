package temporal_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/servertest"
	"go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refuses waits until the caller of the name is told the reason, as something
// that trying again does not help.
func refuses(t *testing.T, s *servertest.Server, token, name, reason string) {
	t.Helper()
	client := dial(t, s)
	eventually(t, func() error {
		_, err := client.DescribeNamespace(as(t, token), &workflowservice.DescribeNamespaceRequest{Namespace: name})
		if got := status.Convert(err); got.Code() != codes.FailedPrecondition || !contains(got.Message(), reason) {
			return fmt.Errorf("%s: got %s %q, want a failed precondition with %q", name, got.Code(), got.Message(), reason)
		}
		return nil
	})
}

func hasConflicts(t *testing.T, s *servertest.Server, want float64) {
	t.Helper()
	eventually(t, func() error {
		if got := gauge(t, s, "sallyport_temporal_namespace_conflicts"); got != want {
			return fmt.Errorf("conflicts: got %v, want %v", got, want)
		}
		return nil
	})
}

// After a restore that the operator said is right, what was made since the
// backup stays on the server until it is removed by hand. What the restored
// history has goes on as before.
func TestNewEpochDeletesNothing(t *testing.T) {
	r := openReplica(t)
	s := servertest.Start(t, r)
	internal := workflowservice.NewWorkflowServiceClient(s.Internal)
	acme := newPolicy(t, r, "acme2")
	acme.namespace("ns_1", "orders", 3)
	acme.namespace("ns_2", "since", 3)
	made := has(t, s, map[string]time.Duration{"orders.acme2": 3 * day, "since.acme2": 3 * day})

	acme.change(func() {
		acme.epoch = 2
		delete(acme.objects[object.KindNamespace], "ns_2")
	})
	eventually(t, func() error { // which the epoch's history has
		d, err := internal.DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "orders.acme2"})
		if head := d.GetNamespaceInfo().GetData()["sallyport.head"]; err == nil && head[:2] != "2." {
			return fmt.Errorf("orders is registered at %s still", head)
		}
		return err
	})
	hasConflicts(t, s, 1)

	// A successor of the same name does not take its place by itself.
	acme.namespace("ns_3", "since", 3)
	acme.worker("sa_1", "ns_3", sallyport.PermissionWrite)
	refuses(t, s, acme.key("sa_1", nil), "since.acme2", "after a restore")
	if got := has(t, s, map[string]time.Duration{"orders.acme2": 3 * day, "since.acme2": 3 * day}); got["since.acme2"] != made["since.acme2"] {
		t.Error("the namespace was replaced")
	}

	acme.remove(object.KindNamespace, "ns_1")
	has(t, s, map[string]time.Duration{"since.acme2": 3 * day})
	if got := changes(t, s.Metrics, "failure"); got != 0 {
		t.Errorf("%v passes failed", got)
	}
}

// A namespace that this copy has never had stays for the grace: the copy may be
// of a database that was restored to before it.
func TestGrace(t *testing.T) {
	r := openReplica(t)
	const grace = 4 * time.Second
	s := servertest.StartWith(t, temporal.Config{Replica: r, NamespaceGrace: grace})
	_, err := workflowservice.NewWorkflowServiceClient(s.Internal).RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "orders.acme2", WorkflowExecutionRetentionPeriod: durationpb.New(2 * day),
		Data: map[string]string{"sallyport.namespace_id": "ns_before", "sallyport.head": "1.1", "sallyport.since": "2020-01-01T00:00:00Z"},
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	acme := newPolicy(t, r, "acme2")
	acme.namespace("ns_1", "orders", 3)
	acme.worker("sa_1", "ns_1", sallyport.PermissionWrite)
	refuses(t, s, acme.key("sa_1", nil), "orders.acme2", "keeps an older one of the same name until")
	if got := changes(t, s.Metrics, "delete"); got != 0 {
		t.Errorf("%v namespaces were deleted at once", got)
	}
	has(t, s, map[string]time.Duration{"orders.acme2": 3 * day})
	if took := time.Since(began); took < grace {
		t.Errorf("it was replaced after %v, before the grace of %v", took, grace)
	}
}

// A namespace that the server refuses to delete holds up no other and is tried
// again less and less often; callers of its successor are told.
func TestRefusedDeletion(t *testing.T) {
	r := openReplica(t)
	s := servertest.Start(t, r)
	operator := operatorservice.NewOperatorServiceClient(s.Internal)
	acme := newPolicy(t, r, "acme2")
	acme.namespace("ns_1", "orders", 3)
	has(t, s, map[string]time.Duration{"orders.acme2": 3 * day})
	var endpoint *operatorservice.CreateNexusEndpointResponse
	eventually(t, func() (err error) { // the endpoint's registry has to know the namespace
		endpoint, err = operator.CreateNexusEndpoint(t.Context(), &operatorservice.CreateNexusEndpointRequest{
			Spec: &nexus.EndpointSpec{Name: "packing", Target: &nexus.EndpointTarget{Variant: &nexus.EndpointTarget_Worker_{
				Worker: &nexus.EndpointTarget_Worker{Namespace: "orders.acme2", TaskQueue: "packing"},
			}}},
		})
		return err
	})

	acme.worker("sa_1", "ns_2", sallyport.PermissionWrite)
	token := acme.key("sa_1", nil)
	acme.change(func() {
		delete(acme.objects[object.KindNamespace], "ns_1")
		acme.objects[object.KindNamespace]["ns_2"] = object.Encode(object.Namespace{
			Name: "orders", Cell: "local", RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true},
		})
	})
	refuses(t, s, token, "orders.acme2", "which refuses")
	hasConflicts(t, s, 1)
	for i := range 20 { // changes do not hurry it
		acme.namespace("ns_3", "billing", int32(i%2+3))
		time.Sleep(100 * time.Millisecond)
	}
	has(t, s, map[string]time.Duration{"orders.acme2": 3 * day, "billing.acme2": 4 * day})
	if got := changes(t, s.Metrics, "failure"); got > 3 {
		t.Errorf("%v attempts failed in about two seconds", got)
	}

	_, err := operator.DeleteNexusEndpoint(t.Context(), &operatorservice.DeleteNexusEndpointRequest{
		Id: endpoint.GetEndpoint().GetId(), Version: endpoint.GetEndpoint().GetVersion(),
	})
	if err != nil {
		t.Fatal(err)
	}
	has(t, s, map[string]time.Duration{"orders.acme2": day, "billing.acme2": 4 * day})
	hasConflicts(t, s, 0)
}
