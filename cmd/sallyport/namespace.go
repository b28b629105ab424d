package main

import (
	"context"
	"fmt"
	"strings"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"

	"github.com/sallyport-iam/sallyport"
)

type namespaceCommands struct {
	Create namespaceCreate `cmd:"" help:"Make a namespace that API keys (and, if asked, certificates) can use. Its full name goes to stdout."`
	List   namespaceList   `cmd:"" help:"List the namespaces that you may see."`
	Delete namespaceDelete `cmd:"" help:"Delete a namespace and all that is in it."`
	MTLS   mtlsCommands    `cmd:"" name:"mtls" help:"Let client certificates in, or not."`
}

type namespaceCreate struct {
	Name          string `arg:"" help:"The name, without the account."`
	Region        string `help:"Where it is. May be left out when there is one region." placeholder:"REGION"`
	RetentionDays int32  `help:"How long closed workflows are kept." default:"30" placeholder:"DAYS"`
	MTLS          bool   `name:"mtls" help:"Let client certificates in too."`
	CAFile        string `name:"ca-file" help:"File with the CAs whose client certificates it takes, PEM; implies --mtls." placeholder:"FILE"`
}

// Run makes the namespace.
func (c *namespaceCreate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	region, err := client.region(ctx, c.Region)
	if err != nil {
		return err
	}
	spec := &namespace.NamespaceSpec{Name: c.Name, Replicas: []*namespace.ReplicaSpec{{Region: region}}, RetentionDays: c.RetentionDays,
		ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}
	if c.MTLS || c.CAFile != "" {
		spec.MtlsAuth = &namespace.MtlsAuthSpec{Enabled: true}
	}
	if c.CAFile != "" {
		if spec.MtlsAuth.AcceptedClientCa, err = readBounded(c.CAFile); err != nil {
			return err
		}
	}
	made, err := client.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix), Spec: spec})
	if err != nil {
		return err
	}
	if err := client.settle(ctx, made.GetAsyncOperation()); err != nil {
		return err
	}
	return s.show(made, func() error {
		s.note("made in %s", region)
		_, err := fmt.Fprintln(s.stdout, made.GetNamespace())
		return err
	})
}

// region is the one that was asked for, or the only one.
func (c *client) region(ctx context.Context, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	resp, err := c.GetRegions(ctx, &cloudservice.GetRegionsRequest{})
	if err != nil {
		return "", err
	}
	var ids []string
	for _, r := range resp.GetRegions() {
		ids = append(ids, r.GetId())
	}
	if len(ids) == 1 {
		return ids[0], nil
	}
	return "", fmt.Errorf("give --region; there are: %s", strings.Join(ids, ", "))
}

type namespaceList struct{}

// Run lists all pages.
func (c *namespaceList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &cloudservice.GetNamespacesRequest{}, &cloudservice.GetNamespacesResponse{}
	for {
		page, err := client.GetNamespaces(ctx, request)
		if err != nil {
			return err
		}
		all.Namespaces = append(all.Namespaces, page.GetNamespaces()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, n := range all.GetNamespaces() {
			rows = append(rows, []string{n.GetNamespace(), n.GetActiveRegion(), fmt.Sprintf("%dd", n.GetSpec().GetRetentionDays()),
				waysIn(n.GetSpec()), moment(n.GetCreatedTime()), n.GetEndpoints().GetGrpcAddress()})
		}
		return s.table("no namespaces", []string{"NAMESPACE", "REGION", "RETENTION", "AUTHENTICATION", "CREATED", "ADDRESS"}, rows)
	})
}

func waysIn(spec *namespace.NamespaceSpec) string {
	var ways []string
	if spec.GetApiKeyAuth().GetEnabled() {
		ways = append(ways, "api-key")
	}
	if spec.GetMtlsAuth().GetEnabled() {
		ways = append(ways, "mtls")
	}
	return strings.Join(ways, ",")
}

type namespaceDelete struct {
	versioned
	Name string `arg:"" help:"The namespace's name."`
}

// Run deletes the namespace.
func (c *namespaceDelete) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	name := client.fullName(c.Name)
	seen, err := client.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: name})
	if err != nil {
		return err
	}
	done, err := client.DeleteNamespace(ctx, &cloudservice.DeleteNamespaceRequest{Namespace: name,
		ResourceVersion: c.or(seen.GetNamespace().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	if err := client.settle(ctx, done.GetAsyncOperation()); err != nil {
		return err
	}
	return s.show(done, func() error {
		_, err := fmt.Fprintf(s.stdout, "namespace %s deleted (operation %s)\n", name, done.GetAsyncOperation().GetId())
		return err
	})
}
