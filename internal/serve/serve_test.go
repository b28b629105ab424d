package serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/internal/serve"
)

const (
	explain = "/sallyport.admin.v1.AdminService/Explain"
	receipt = "/sallyport.admin.v1.AdminService/GetReceipt"
)

// service answers Explain with what the test wants.
type service struct {
	adminv1.UnimplementedAdminServiceServer
	explain func(context.Context, *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error)
}

func (s service) Explain(ctx context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	return s.explain(ctx, r)
}

func methods() map[string]serve.Access {
	all := map[string]serve.Access{}
	for _, m := range adminv1.AdminService_ServiceDesc.Methods {
		all["/sallyport.admin.v1.AdminService/"+m.MethodName] = serve.Authenticated
	}
	all[receipt] = serve.Public
	return all
}

// authenticate takes "Bearer <principal>" for a caller of account aaaaa.
func authenticate(_ context.Context, c serve.Credentials, from netip.Addr, requestID string) (sallyport.Caller, error) {
	name, ok := strings.CutPrefix(c.Authorization, "Bearer ")
	if !ok && c.Authorization == "" && len(c.Certificates) > 0 {
		name, ok = c.Certificates[0].Subject.CommonName, true
	}
	if !ok {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("send an API key in the authorization header")
	}
	kind := sallyport.User
	if strings.HasPrefix(name, sallyport.ServiceAccountPrefix) {
		kind = sallyport.ServiceAccount
	}
	return sallyport.Caller{Account: "aaaaa", Principal: sallyport.Principal{Kind: kind, ID: name}, From: from, RequestID: requestID}, nil
}

func newServer(t *testing.T, c serve.Config) *serve.Server {
	t.Helper()
	if c.Methods == nil {
		c.Methods = methods()
	}
	c.Authenticate = authenticate
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := serve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start serves on loopback and connects.
func start(t *testing.T, s *serve.Server, svc service, serverTLS, clientTLS *tls.Config) (adminv1.AdminServiceClient, *grpc.ClientConn) {
	t.Helper()
	server, err := s.GRPC(serverTLS, func(r grpc.ServiceRegistrar) { adminv1.RegisterAdminServiceServer(r, svc) })
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(lis)
	t.Cleanup(server.Stop)
	creds := insecure.NewCredentials()
	if clientTLS != nil {
		creds = credentials.NewTLS(clientTLS)
	}
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return adminv1.NewAdminServiceClient(conn), conn
}

func as(t *testing.T, principal string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+principal)
}

func TestMethodsWithoutAnEntry(t *testing.T) {
	t.Parallel()
	table := methods()
	delete(table, explain)
	s := newServer(t, serve.Config{Methods: table})
	_, err := s.GRPC(nil, func(r grpc.ServiceRegistrar) { adminv1.RegisterAdminServiceServer(r, service{}) })
	if err == nil || !strings.Contains(err.Error(), explain) {
		t.Errorf("GRPC = %v, want an error that names %s", err, explain)
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	var got sallyport.Caller
	client, conn := start(t, newServer(t, serve.Config{}), service{explain: func(ctx context.Context, _ *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
		got, _ = serve.Caller(ctx)
		return &adminv1.ExplainResponse{Reason: serve.RequestID(ctx)}, nil
	}}, nil, nil)

	if _, err := client.Explain(t.Context(), &adminv1.ExplainRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a credential: %v, want Unauthenticated", err)
	}
	two := metadata.AppendToOutgoingContext(as(t, "u_1"), "authorization", "Bearer u_2")
	if _, err := client.Explain(two, &adminv1.ExplainRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with two credentials: %v, want Unauthenticated", err)
	}
	if _, err := client.GetReceipt(t.Context(), &adminv1.GetReceiptRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("public method: %v, want Unimplemented", err)
	}
	var header metadata.MD
	resp, err := client.Explain(as(t, "u_1"), &adminv1.ExplainRequest{}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	want := sallyport.Caller{Account: "aaaaa", Principal: sallyport.Principal{Kind: sallyport.User, ID: "u_1"},
		From: netip.MustParseAddr("127.0.0.1"), RequestID: resp.GetReason()}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{resp.GetReason()}, header.Get("x-request-id")); diff != "" {
		t.Errorf("request id in the headers (-want +got):\n%s", diff)
	}
	check, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || check.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health = %v, %v, want SERVING", check, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var fail error
	registry := prometheus.NewRegistry()
	client, _ := start(t, newServer(t, serve.Config{Logger: slog.New(slog.NewTextHandler(&logs, nil)), Metrics: registry}),
		service{explain: func(context.Context, *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
			if fail == nil {
				panic("secret panic")
			}
			return nil, fail
		}}, nil, nil)

	tests := []struct {
		err     error
		code    codes.Code
		message string // contained
		reason  string
		logged  bool
	}{
		{sallyport.InvalidField("spec.name", "is missing"), codes.InvalidArgument, "spec.name: is missing", "INVALID", false},
		{fmt.Errorf("doing: %w", sallyport.NotFound.Errorf("no such user")), codes.NotFound, "no such user", "NOT_FOUND", false},
		{sallyport.Unauthenticated.Errorf("x"), codes.Unauthenticated, "x", "UNAUTHENTICATED", false},
		{sallyport.PermissionDenied.Errorf("x"), codes.PermissionDenied, "x", "PERMISSION_DENIED", false},
		{sallyport.AlreadyExists.Errorf("x"), codes.AlreadyExists, "x", "ALREADY_EXISTS", false},
		{sallyport.Conflict.Errorf("x"), codes.FailedPrecondition, "x", "CONFLICT", false},
		{sallyport.Exhausted.Errorf("x"), codes.ResourceExhausted, "x", "EXHAUSTED", false},
		{&sallyport.Error{Kind: sallyport.Unavailable, Msg: "try again", Err: errors.New("secret cause")}, codes.Unavailable, "try again", "UNAVAILABLE", true},
		{errors.New("secret"), codes.Internal, "internal error (request id req_", "INTERNAL", true},
		{fmt.Errorf("dialling: %w", status.Error(codes.NotFound, "secret")), codes.Internal, "internal error", "INTERNAL", true},
		{nil, codes.Internal, "internal error", "INTERNAL", true},
		{fmt.Errorf("reading: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "longer deadline", "DEADLINE_EXCEEDED", false},
	}
	for _, tt := range tests {
		fail = tt.err
		logs.Reset()
		_, err := client.Explain(as(t, sallyport.NewID("u_")), &adminv1.ExplainRequest{})
		st := status.Convert(err)
		if st.Code() != tt.code || !strings.Contains(st.Message(), tt.message) || strings.Contains(st.Message(), "secret") {
			t.Errorf("%v: got %v, want %v with %q", tt.err, err, tt.code, tt.message)
		}
		var reason, field string
		for _, d := range st.Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				reason = d.GetReason()
			case *errdetails.BadRequest:
				field = d.GetFieldViolations()[0].GetField()
			}
		}
		if reason != tt.reason {
			t.Errorf("%v: reason = %q, want %q", tt.err, reason, tt.reason)
		}
		if tt.code == codes.InvalidArgument && field != "spec.name" {
			t.Errorf("%v: field violation = %q, want spec.name", tt.err, field)
		}
		if n := strings.Count(logs.String(), "request failed"); n > 1 || (n == 1) != tt.logged {
			t.Errorf("%v: logged %d times, want once: %v", tt.err, n, tt.logged)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var total float64
	for _, f := range families {
		if f.GetName() == "sallyport_requests_total" {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	if total != float64(len(tests)) {
		t.Errorf("requests counted = %v, want %d", total, len(tests))
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := newServer(t, serve.Config{Now: func() time.Time { return at }, Limits: serve.Limits{Account: 10, User: 3, ServiceAccount: 5}})
	client, _ := start(t, s, service{explain: func(context.Context, *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
		return &adminv1.ExplainResponse{}, nil
	}}, nil, nil)
	passed := func(principal string, n int) (passed int) {
		for range n {
			_, err := client.Explain(as(t, principal), &adminv1.ExplainRequest{})
			switch status.Code(err) {
			case codes.OK:
				passed++
			case codes.ResourceExhausted:
			default:
				t.Fatalf("got %v, want ResourceExhausted", err)
			}
		}
		return passed
	}
	got := []int{passed("u_1", 6), passed("sa_1", 8), passed("u_2", 6)}
	at = at.Add(time.Second)
	got = append(got, passed("u_1", 6))
	if diff := cmp.Diff([]int{3, 5, 2, 3}, got); diff != "" {
		t.Errorf("calls that passed (-want +got):\n%s", diff)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	ready := errors.New("not yet")
	s := newServer(t, serve.Config{Ready: func(context.Context) error { return ready }, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	server, err := s.GRPC(nil, func(r grpc.ServiceRegistrar) {
		adminv1.RegisterAdminServiceServer(r, service{explain: func(ctx context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
			if req.GetMethod() == "" {
				return nil, sallyport.InvalidField("method", "is missing")
			}
			return &adminv1.ExplainResponse{Reason: serve.From(ctx).String() + " " + req.GetMethod()}, nil
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := s.Handler(server,
		&annotations.HttpRule{Selector: "sallyport.admin.v1.AdminService.Explain", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/explain"}, Body: "*"},
		&annotations.HttpRule{Selector: "sallyport.admin.v1.AdminService.GetReceipt", Pattern: &annotations.HttpRule_Get{Get: "/sallyport/v1/receipts/{async_operation_id}"}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	tests := []struct {
		name, method, path, key, body string
		status                        int
		contains                      string
	}{
		{"alive", "GET", "/healthz", "", "", 200, "ok"},
		{"not ready", "GET", "/readyz", "", "", 503, "not ready: the database does not answer"},
		{"REST", "POST", "/sallyport/v1/explain", "u_1", `{"method":"/m"}`, 200, "192.0.2.7 /m"},
		{"Connect", "POST", explain, "u_1", `{"method":"/m"}`, 200, "192.0.2.7 /m"},
		{"Connect, invalid", "POST", explain, "u_1", `{}`, 400, "invalid_argument"},
		{"no key", "POST", "/sallyport/v1/explain", "", `{"method":"/m"}`, 401, "API key"},
		{"invalid", "POST", "/sallyport/v1/explain", "u_1", `{}`, 400, "method: is missing"},
		{"unknown field", "POST", "/sallyport/v1/explain", "u_1", `{"methodd":"/m"}`, 400, "methodd"},
		{"too large", "POST", "/sallyport/v1/explain", "u_1", `{"method":"` + strings.Repeat("m", 3<<20) + `"}`, 413, ""},
		{"unknown path", "GET", "/sallyport/v1/nothing", "u_1", "", 404, ""},
		{"unknown method", "GET", "/sallyport/v1/receipts/op_1", "", "", 501, `"code":12`},
		{"unknown parameter", "GET", "/sallyport/v1/receipts/op_1?pagesize=3", "", "", 400, `"code":3,"message":"unknown field in field path \"pagesize\"`},
		{"no UTF-8 in a parameter", "GET", "/sallyport/v1/receipts/op_1?async_operation_id=%ff", "", "", 400, `async_operation_id\" is not valid UTF-8`},
		{"no UTF-8 in the path", "GET", "/sallyport/v1/receipts/op_%ff", "", "", 400, `"code":3,"message":`},
		{"no body", "POST", "/sallyport/v1/explain", "u_1", "", 400, `"code":3,"message":"the request has no body`},
		{"Connect, no UTF-8", "POST", explain, "u_1", "{\"method\":\"\xff\"}", 400, "invalid_argument"},
		{"control character", "POST", "/sallyport/v1/explain", "u_1", `{"method":"\u0000"}`, 400, "method: has control characters"},
	}
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, web.URL+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if strings.HasPrefix(tt.path, "/sallyport.") {
			req.Header.Set("Connect-Protocol-Version", "1")
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9, 192.0.2.7")
		if tt.key != "" {
			req.Header.Set("Authorization", "Bearer "+tt.key)
		}
		resp, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.contains) {
			t.Errorf("%s: got %d %s, want %d with %q", tt.name, resp.StatusCode, body[:min(len(body), 300)], tt.status, tt.contains)
		}
	}
}
