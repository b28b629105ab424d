package cloudapi

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.temporal.io/cloud-sdk/api/account/v1"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/project/v1"
	"go.temporal.io/cloud-sdk/api/region/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
)

// GetCurrentIdentity says who the caller is, and by which key.
func (s *Server) GetCurrentIdentity(ctx context.Context, _ *cloudservice.GetCurrentIdentityRequest) (*cloudservice.GetCurrentIdentityResponse, error) {
	c := begin(ctx)
	resp := &cloudservice.GetCurrentIdentityResponse{}
	switch c.caller.Principal.Kind {
	case sallyport.User:
		user, err := s.directory.User(ctx, c.caller, c.caller.Principal.ID)
		if err != nil {
			return nil, err
		}
		resp.Principal = &cloudservice.GetCurrentIdentityResponse_User{User: c.user(user)}
	case sallyport.ServiceAccount:
		account, err := s.directory.ServiceAccount(ctx, c.caller, c.caller.Principal.ID)
		if err != nil {
			return nil, err
		}
		resp.Principal = &cloudservice.GetCurrentIdentityResponse_ServiceAccount{ServiceAccount: c.serviceAccount(account)}
	}
	if c.caller.Credential.Kind == "api-key" {
		key, err := s.keys.Get(ctx, c.caller, c.caller.Credential.ID)
		if err != nil {
			return nil, err
		}
		resp.PrincipalApiKey = s.key(c, key)
	}
	return resp, nil
}

// GetAccount reads the caller's account.
func (s *Server) GetAccount(ctx context.Context, _ *cloudservice.GetAccountRequest) (*cloudservice.GetAccountResponse, error) {
	c := begin(ctx)
	a, err := s.directory.Account(ctx, c.caller)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetAccountResponse{Account: &account.Account{
		Id: string(a.ID), Spec: &account.AccountSpec{}, ResourceVersion: version(a.Revision), State: stateOf(a.Status),
	}}, nil
}

func (c call) region(r directory.Region) *region.Region {
	wire := &region.Region{
		Id: r.ID, CloudProviderRegion: r.CloudRegion, Location: r.Location,
		CloudProvider: region.Region_CloudProvider(region.Region_CloudProvider_value["CLOUD_PROVIDER_"+strings.ToUpper(r.CloudProvider)]),
	}
	if c.upTo(textEnums()) {
		wire.CloudProviderDeprecated = enumText(wire.GetCloudProvider(), "CLOUD_PROVIDER_")
	}
	return wire
}

// GetRegions lists where namespaces can be.
func (s *Server) GetRegions(ctx context.Context, _ *cloudservice.GetRegionsRequest) (*cloudservice.GetRegionsResponse, error) {
	c := begin(ctx)
	regions, err := s.directory.Regions(ctx, c.caller)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetRegionsResponse{Regions: each(regions, c.region)}, nil
}

// GetRegion reads a region.
func (s *Server) GetRegion(ctx context.Context, r *cloudservice.GetRegionRequest) (*cloudservice.GetRegionResponse, error) {
	c := begin(ctx)
	found, err := read(ctx, c, "region", r.GetRegion(), s.directory.Region)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetRegionResponse{Region: c.region(found)}, nil
}

func projectOf(p directory.Project) *project.Project {
	return &project.Project{
		Id: p.ID, Spec: &project.ProjectSpec{DisplayName: p.Name}, ResourceVersion: version(p.Revision),
		State:       resource.ResourceState_RESOURCE_STATE_ACTIVE,
		CreatedTime: timestamp(p.Created), LastModifiedTime: modified(p.Created, p.Modified),
	}
}

// maxProjectIDs bounds GetProjects' filter.
const maxProjectIDs = 100

// GetProjects lists the account's projects, or those of the given ids.
func (s *Server) GetProjects(ctx context.Context, r *cloudservice.GetProjectsRequest) (*cloudservice.GetProjectsResponse, error) {
	c := begin(ctx)
	ids := r.GetProjectIds()
	if len(ids) == 0 {
		projects, next, err := s.directory.Projects(ctx, c.caller, pageOf(r))
		if err != nil {
			return nil, err
		}
		return &cloudservice.GetProjectsResponse{Projects: each(projects, projectOf), NextPageToken: next}, nil
	}
	if len(ids) > maxProjectIDs {
		return nil, sallyport.InvalidField("project_ids", "has %d entries; at most %d are possible", len(ids), maxProjectIDs)
	}
	resp := &cloudservice.GetProjectsResponse{}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		found, err := read(ctx, c, "project_ids", id, s.directory.Project)
		switch {
		case err == nil:
			resp.Projects = append(resp.Projects, projectOf(found))
		case !errors.Is(err, sallyport.NotFound):
			return nil, err
		}
	}
	return resp, nil
}

// GetProject reads a project.
func (s *Server) GetProject(ctx context.Context, r *cloudservice.GetProjectRequest) (*cloudservice.GetProjectResponse, error) {
	c := begin(ctx)
	found, err := read(ctx, c, "project_id", r.GetProjectId(), s.directory.Project)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetProjectResponse{Project: projectOf(found)}, nil
}
