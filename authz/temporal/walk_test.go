package temporal_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/methods"
	"go.temporal.io/server/common/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// Every method of every service of the running server is called by nobody and
// by an owner: only open methods answer nobody, and no method that is not a
// namespace's answers an owner.
func TestEveryMethod(t *testing.T) {
	b := newBed(t)
	owner := b.acme.key("u_owner", nil)
	for _, service := range methods.Services() {
		for _, m := range service.Methods {
			method := "/" + service.ServiceName + "/" + m.MethodName
			walk(t, method, owner, func(ctx context.Context) error {
				return b.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
			})
		}
		for _, s := range service.Streams {
			method := "/" + service.ServiceName + "/" + s.StreamName
			walk(t, method, owner, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second) // a health watch goes on
				defer cancel()
				stream, err := b.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
				if err != nil {
					return err
				}
				if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
					return err
				}
				return stream.RecvMsg(&emptypb.Empty{})
			})
		}
	}
}

func walk(t *testing.T, method, owner string, call func(context.Context) error) {
	t.Helper()
	need, ok := authz.MethodNeed(method)
	if !ok {
		t.Errorf("%s has no entry", method)
		return
	}
	// The server looks for a task token's namespace before it authorises.
	refused := func(err error, want codes.Code) bool {
		code := status.Code(err)
		return code == want || code == codes.InvalidArgument && contains(err.Error(), "Task token not set")
	}
	err := call(as(t, ""))
	if open := need.Scope == authz.Open; open && refused(err, codes.Unauthenticated) || !open && !refused(err, codes.Unauthenticated) {
		t.Errorf("%s without a key: got %v", method, err)
	}
	err = call(as(t, owner))
	switch {
	case need.Scope == authz.Open, need.Scope == authz.Cluster && need.Permission == sallyport.NoPermission:
		if refused(err, codes.PermissionDenied) {
			t.Errorf("%s by an owner: got %v", method, err)
		}
	default: // the empty message names no namespace
		if !refused(err, codes.PermissionDenied) {
			t.Errorf("%s by an owner: got %v", method, err)
		}
	}
}

// The services of the table are those that the running server registers.
func TestServicesAreTheServers(t *testing.T) {
	b := newBed(t)
	stream, err := grpc_reflection_v1.NewServerReflectionClient(b.server.Internal).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	for _, s := range methods.Services() {
		want = append(want, s.ServiceName)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services (-table +server):\n%s", diff)
	}
}

// The server authorises Nexus calls under names that no service has.
func TestNexusNames(t *testing.T) {
	for _, name := range []string{"DispatchNexusTask", "DispatchByNamespaceAndTaskQueue", "DispatchByEndpoint", "CompleteNexusOperation"} {
		want := authz.Need{Scope: authz.Namespace, Permission: sallyport.PermissionWrite}
		if got, _ := authz.MethodNeed(api.NexusServicePrefix + name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
