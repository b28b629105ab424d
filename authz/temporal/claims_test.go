package temporal_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/servertest"
	"go.temporal.io/api/command/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Only the claims that the server gives its own services pass without a
// credential, and only as they are.
func TestForeignClaims(t *testing.T) {
	plugin, err := temporal.New(temporal.Config{Replica: openReplica(t)})
	if err != nil {
		t.Fatal(err)
	}
	target := &authorization.CallTarget{APIName: "/temporal.api.workflowservice.v1.WorkflowService/DeleteWorkflowExecution", Namespace: orders}
	own, err := authorization.NewInternalClaimMapper().GetClaims(nil)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*authorization.Claims)) *authorization.Claims {
		c := *own
		change(&c)
		return &c
	}
	for _, test := range []struct {
		name   string
		claims *authorization.Claims
		allow  bool
	}{
		{"the server's", own, true},
		{"none", nil, false},
		{"empty", &authorization.Claims{}, false},
		{"an administrator's", &authorization.Claims{System: authorization.RoleAdmin}, false},
		{"of another subject", with(func(c *authorization.Claims) { c.Subject = "somebody" }), false},
		{"of another type", with(func(c *authorization.Claims) { c.AuthType = "jwt" }), false},
		{"of a lesser role", with(func(c *authorization.Claims) { c.System = authorization.RoleWriter }), false},
		{"with namespaces", with(func(c *authorization.Claims) { c.Namespaces = map[string]authorization.Role{} }), false},
		{"with extensions", with(func(c *authorization.Claims) { c.Extensions = "x" }), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, err := plugin.Authorize(t.Context(), test.claims, target)
			if allowed := err == nil && result.Decision == authorization.DecisionAllow; allowed != test.allow {
				t.Errorf("got %v, %v; want allowed: %v", result, err, test.allow)
			}
		})
	}
}

// The internal frontend lets nobody in who has not the server's certificate.
func TestInternalFrontendNeedsItsCertificate(t *testing.T) {
	s := servertest.Start(t, openReplica(t))
	for name, creds := range map[string]credentials.TransportCredentials{
		"no certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"no TLS":         insecure.NewCredentials(),
	} {
		conn, err := grpc.NewClient(s.InternalFrontend, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = workflowservice.NewWorkflowServiceClient(conn).GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A Nexus operation is delivered in the server's name: whether its caller may
// reach the endpoint is asked where he schedules it.
func TestNexusEndpoint(t *testing.T) {
	b := newBed(t)
	_, err := operatorservice.NewOperatorServiceClient(b.server.Internal).CreateNexusEndpoint(t.Context(), &operatorservice.CreateNexusEndpointRequest{
		Spec: &nexus.EndpointSpec{Name: "packing", Target: &nexus.EndpointTarget{Variant: &nexus.EndpointTarget_Worker_{
			Worker: &nexus.EndpointTarget_Worker{Namespace: orders, TaskQueue: "packing"},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := temporal.New(temporal.Config{Replica: b.replica, InternalFrontend: b.server.Internal})
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
	b.acme.worker("sa_biller", "ns_billing", sallyport.PermissionWrite)

	schedule := func(namespace, endpoint string) *workflowservice.RespondWorkflowTaskCompletedRequest {
		return &workflowservice.RespondWorkflowTaskCompletedRequest{Namespace: namespace, Commands: []*command.Command{{
			CommandType: enums.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION,
			Attributes: &command.Command_ScheduleNexusOperationCommandAttributes{
				ScheduleNexusOperationCommandAttributes: &command.ScheduleNexusOperationCommandAttributes{Endpoint: endpoint},
			},
		}}}
	}
	for _, test := range []struct {
		name  string
		token string
		call  *workflowservice.RespondWorkflowTaskCompletedRequest
		allow bool
	}{
		{"who may write to the endpoint's namespace", b.acme.key("sa_writer", nil), schedule(orders, "packing"), true},
		{"from another namespace", b.acme.key("u_owner", nil), schedule(billing, "packing"), true},
		{"the server's own endpoint", b.acme.key("sa_biller", nil), schedule(billing, "__temporal_system"), true},
		{"who may write to another namespace only", b.acme.key("sa_biller", nil), schedule(billing, "packing"), false},
		{"another account", b.other.key("u_foreigner", nil), schedule(foreign, "packing"), false},
		{"no such endpoint", b.acme.key("sa_writer", nil), schedule(orders, "nothing"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims, err := plugin.ClaimMapper().GetClaims(&authorization.AuthInfo{AuthToken: "Bearer " + test.token})
			if err != nil {
				t.Fatal(err)
			}
			authorize := func() error {
				_, err := plugin.Authorize(t.Context(), claims, &authorization.CallTarget{
					APIName:   "/temporal.api.workflowservice.v1.WorkflowService/RespondWorkflowTaskCompleted",
					Namespace: test.call.GetNamespace(), Request: test.call,
				})
				return err
			}
			if test.allow {
				eventually(t, authorize)
				return
			}
			err = authorize()
			if err == nil || !contains(err.Error(), "no Nexus endpoint of this name") {
				t.Errorf("got %v", err)
			}
		})
	}
}
