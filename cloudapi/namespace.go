package cloudapi

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// namespace is a namespace on the wire: the spec as it was sent, and what the
// domain says of it. What the domain knows always comes from the domain.
func (s *Server) namespace(c call, n directory.Namespace) (*namespace.Namespace, error) {
	spec, err := specOf(n.NamespaceParams)
	if err != nil {
		return nil, fmt.Errorf("reading the spec of namespace %s: %w", n.ID, err)
	}
	spec.Name, spec.RetentionDays = n.Name, n.RetentionDays
	spec.Regions = []string{n.Region}
	spec.Replicas = []*namespace.ReplicaSpec{{Region: n.Region}}
	spec.ApiKeyAuth = &namespace.ApiKeyAuthSpec{Enabled: n.APIKeyAuth}
	c.fillDeprecated(spec)
	wire := &namespace.Namespace{
		Namespace: c.fullName(n.Name), ResourceVersion: version(n.Revision), Spec: spec,
		State:        resource.ResourceState_RESOURCE_STATE_ACTIVE,
		Endpoints:    s.endpoints(c, n),
		ActiveRegion: n.Region, Limits: &namespace.Limits{}, ProjectId: n.Project,
		Replicas:    []*namespace.Replica{{Id: string(n.ID), IsPrimary: true, State: namespace.Replica_REPLICA_STATE_ACTIVE, Region: n.Region}},
		CreatedTime: timestamp(n.Created), LastModifiedTime: modified(n.Created, n.Modified),
	}
	wire.StateDeprecated = c.oldState(wire.GetState())
	if c.upTo(regionStatus()) {
		status := &namespace.NamespaceRegionStatus{State: namespace.NamespaceRegionStatus_STATE_ACTIVE}
		if c.upTo(textEnums()) {
			status.StateDeprecated = enumText(status.GetState(), "STATE_")
		}
		wire.RegionStatus = map[string]*namespace.NamespaceRegionStatus{n.Region: status}
	}
	return wire, nil
}

// endpoints are empty for the ways in that are switched off.
func (s *Server) endpoints(c call, n directory.Namespace) *namespace.Endpoints {
	e := &namespace.Endpoints{}
	if s.web != "" {
		e.WebAddress = s.web + "/namespaces/" + c.fullName(n.Name)
	}
	if n.APIKeyAuth {
		e.GrpcAddress = s.addresses[n.Cell]
	}
	if n.MTLSAuth {
		e.MtlsGrpcAddress = s.addresses[n.Cell]
	}
	return e
}

// GetNamespaces lists the namespaces that the caller may read.
func (s *Server) GetNamespaces(ctx context.Context, r *cloudservice.GetNamespacesRequest) (*cloudservice.GetNamespacesResponse, error) {
	c := begin(ctx)
	filter := directory.NamespaceFilter{Name: r.GetName(), Project: r.GetProjectId()}
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) (list []*namespace.Namespace, next string, err error) {
		found, next, err := s.directory.Namespaces(ctx, c.caller, filter, p)
		for _, n := range found {
			wire, err := s.namespace(c, n)
			if err != nil {
				return nil, "", err
			}
			list = append(list, wire)
		}
		return list, next, err
	})
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetNamespacesResponse{Namespaces: list, NextPageToken: next}, nil
}

// GetNamespace reads a namespace.
func (s *Server) GetNamespace(ctx context.Context, r *cloudservice.GetNamespaceRequest) (*cloudservice.GetNamespaceResponse, error) {
	c := begin(ctx)
	name, err := c.namespaceName("namespace", r.GetNamespace())
	if err != nil {
		return nil, err
	}
	n, err := s.directory.Namespace(ctx, c.caller, name)
	if err != nil {
		return nil, err
	}
	wire, err := s.namespace(c, n)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetNamespaceResponse{Namespace: wire}, nil
}

// CreateNamespace makes a namespace.
func (s *Server) CreateNamespace(ctx context.Context, r *cloudservice.CreateNamespaceRequest) (*cloudservice.CreateNamespaceResponse, error) {
	c := begin(ctx)
	if len(r.GetTags()) > 0 {
		return nil, sallyport.InvalidField("tags", "must be empty: there are no tags in this version")
	}
	if r.GetProjectId() != "" {
		if err := checkID("project_id", r.GetProjectId()); err != nil {
			return nil, err
		}
	}
	spec, err := normalSpec(r.GetSpec())
	if err != nil {
		return nil, err
	}
	if len(spec.GetReplicas()) == 0 {
		return nil, sallyport.InvalidField("spec.replicas", "is required: name one region; GetRegions lists them")
	}
	params, err := paramsOf(spec)
	if err != nil {
		return nil, err
	}
	params.Project = r.GetProjectId()
	resp := &cloudservice.CreateNamespaceResponse{Namespace: c.fullName(params.Name)}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.CreateNamespace(ctx, c.caller, op, params)
		return done, err
	})
	if err == nil {
		s.warn(ctx, params.ClientCA)
	}
	return answer(resp, err)
}

// UpdateNamespace replaces a namespace's spec.
func (s *Server) UpdateNamespace(ctx context.Context, r *cloudservice.UpdateNamespaceRequest) (*cloudservice.UpdateNamespaceResponse, error) {
	c := begin(ctx)
	seen, err := revision(r.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	name, err := c.namespaceName("namespace", r.GetNamespace())
	if err != nil {
		return nil, err
	}
	spec, err := normalSpec(r.GetSpec())
	if err != nil {
		return nil, err
	}
	params, err := s.update(ctx, c, name, seen, spec)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.UpdateNamespaceResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.UpdateNamespace(ctx, c.caller, op, name, seen, params)
		return done, err
	})
	if err == nil {
		s.warn(ctx, params.ClientCA)
	}
	return answer(resp, err)
}

// update compares a new spec with the one that is there. When they mean the
// same it gives the old spelling, so that the domain sees nothing to change.
// Where there is nothing to compare with (no such namespace, no access to it,
// another version than the client has seen) it leaves the answer to the
// domain, which also knows whether the request is a repetition.
func (s *Server) update(ctx context.Context, c call, name string, seen int64, spec *namespace.NamespaceSpec) (directory.NamespaceParams, error) {
	params, err := paramsOf(spec)
	if err != nil {
		return params, err
	}
	before, err := s.directory.Namespace(ctx, c.caller, name)
	switch {
	case errors.Is(err, sallyport.NotFound) || errors.Is(err, sallyport.PermissionDenied):
		return params, nil
	case err != nil:
		return params, err
	case before.Revision != seen:
		return params, nil
	}
	old, err := specOf(before.NamespaceParams)
	if err != nil {
		return params, fmt.Errorf("reading the spec of namespace %s: %w", before.ID, err)
	}
	if err := sameAttributes(old.GetSearchAttributes(), spec.GetSearchAttributes()); err != nil {
		return params, err
	}
	if len(spec.GetReplicas()) == 0 { // absent keeps it
		spec.Regions, spec.Replicas = []string{before.Region}, []*namespace.ReplicaSpec{{Region: before.Region}}
		if params, err = paramsOf(spec); err != nil {
			return params, err
		}
	}
	if sameMeaning(old, spec) {
		params.Spec = before.Spec
	}
	return params, nil
}

// DeleteNamespace ends a namespace.
func (s *Server) DeleteNamespace(ctx context.Context, r *cloudservice.DeleteNamespaceRequest) (*cloudservice.DeleteNamespaceResponse, error) {
	c := begin(ctx)
	seen, err := revision(r.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	name, err := c.namespaceName("namespace", r.GetNamespace())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.DeleteNamespaceResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		return s.directory.DeleteNamespace(ctx, c.caller, op, name, seen)
	})
	return answer(resp, err)
}
