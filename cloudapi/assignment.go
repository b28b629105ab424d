package cloudapi

import (
	"context"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
)

// assignmentsRequest asks who has access to a namespace.
type assignmentsRequest interface {
	paged
	GetNamespace() string
}

func (s *Server) assignments(ctx context.Context, c call, kind directory.AssignmentKind, r assignmentsRequest) ([]directory.Assignment, string, error) {
	namespace, err := c.namespaceName("namespace", r.GetNamespace())
	if err != nil {
		return nil, "", err
	}
	return s.directory.NamespaceAssignments(ctx, c.caller, namespace, kind, pageOf(r))
}

func inherited(a directory.Assignment) bool { return a.Inherited != sallyport.NoPermission }

// GetUserNamespaceAssignments lists the users with access to a namespace.
func (s *Server) GetUserNamespaceAssignments(ctx context.Context, r *cloudservice.GetUserNamespaceAssignmentsRequest) (*cloudservice.GetUserNamespaceAssignmentsResponse, error) {
	c := begin(ctx)
	list, next, err := s.assignments(ctx, c, directory.UserAssignments, r)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUserNamespaceAssignmentsResponse{NextPageToken: next, Users: each(list, func(a directory.Assignment) *identity.UserNamespaceAssignment {
		return &identity.UserNamespaceAssignment{Id: a.ID, Email: a.Name, NamespaceAccess: c.namespaceAccess(a.Direct),
			InheritedAccess: inherited(a), ResourceVersion: version(a.Revision)}
	})}, nil
}

// GetServiceAccountNamespaceAssignments lists the service accounts with access
// to a namespace.
func (s *Server) GetServiceAccountNamespaceAssignments(ctx context.Context, r *cloudservice.GetServiceAccountNamespaceAssignmentsRequest) (*cloudservice.GetServiceAccountNamespaceAssignmentsResponse, error) {
	c := begin(ctx)
	list, next, err := s.assignments(ctx, c, directory.ServiceAccountAssignments, r)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetServiceAccountNamespaceAssignmentsResponse{NextPageToken: next, ServiceAccounts: each(list, func(a directory.Assignment) *identity.ServiceAccountNamespaceAssignment {
		return &identity.ServiceAccountNamespaceAssignment{Id: a.ID, Name: a.Name, NamespaceAccess: c.namespaceAccess(a.Direct),
			InheritedAccess: inherited(a), ResourceVersion: version(a.Revision)}
	})}, nil
}

// GetUserGroupNamespaceAssignments lists the groups with access to a namespace.
func (s *Server) GetUserGroupNamespaceAssignments(ctx context.Context, r *cloudservice.GetUserGroupNamespaceAssignmentsRequest) (*cloudservice.GetUserGroupNamespaceAssignmentsResponse, error) {
	c := begin(ctx)
	list, next, err := s.assignments(ctx, c, directory.GroupAssignments, r)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUserGroupNamespaceAssignmentsResponse{NextPageToken: next, Groups: each(list, func(a directory.Assignment) *identity.UserGroupNamespaceAssignment {
		return &identity.UserGroupNamespaceAssignment{Id: a.ID, DisplayName: a.Name, NamespaceAccess: c.namespaceAccess(a.Direct),
			InheritedAccess: inherited(a), ResourceVersion: version(a.Revision)}
	})}, nil
}
