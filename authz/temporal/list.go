package temporal

import (
	"context"
	"errors"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
)

const maxNamespacesPage = 100

// interceptListNamespaces answers a tenant's ListNamespaces with the namespaces
// that it may read, each as DescribeNamespace shows it, ordered by name. The
// server's own list, its length and its page tokens tell of other tenants.
func (p *Plugin) interceptListNamespaces(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	claims, _ := ctx.Value(authorization.MappedClaims).(*authorization.Claims)
	c := callerOf(claims)
	list, ok := req.(*workflowservice.ListNamespacesRequest)
	if c == nil || !ok {
		return handler(ctx, req)
	}
	server, ok := info.Server.(workflowservice.WorkflowServiceServer)
	if !ok {
		return nil, serviceerror.NewUnimplemented("listing namespaces is not served here; describe them by name")
	}
	size := int(list.GetPageSize())
	if size <= 0 || size > maxNamespacesPage {
		size = maxNamespacesPage
	}
	credential := c.credentialIn(ctx)
	d := p.decide(credential, info.FullMethod, "")
	if !d.Allow {
		return nil, refusal(d)
	}
	names := p.readable(credential, d.Account, string(list.GetNextPageToken()))
	resp := &workflowservice.ListNamespacesResponse{}
	if len(names) > size {
		names = names[:size]
		resp.NextPageToken = []byte(names[size-1])
	}
	for _, name := range names {
		described, err := server.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: name})
		if notFound := (*serviceerror.NamespaceNotFound)(nil); errors.As(err, &notFound) {
			continue // it was removed just now
		}
		if err != nil {
			return nil, err
		}
		resp.Namespaces = append(resp.Namespaces, described)
	}
	return resp, nil
}

// readable are the account's full names after a name, in order, that the
// credential may describe over its connection.
func (p *Plugin) readable(credential replica.Credential, account sallyport.AccountID, after string) []string {
	var names []string
	for _, ns := range p.replica.NamespacesOf(account) {
		if credential.Name != "" && ns.FullName != credential.Name {
			continue // without looking at the certificates that it takes
		}
		if ns.FullName > after && p.decide(credential, describeNamespace, ns.FullName).Allow {
			names = append(names, ns.FullName)
		}
	}
	slices.Sort(names)
	return names
}
