package cloudapi

import (
	"context"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

func (c call) group(g directory.Group) *identity.UserGroup {
	spec := &identity.UserGroupSpec{DisplayName: g.Name, Access: c.access(g.Access)}
	switch g.Kind {
	case directory.GoogleGroup:
		spec.GroupType = &identity.UserGroupSpec_GoogleGroup{GoogleGroup: &identity.GoogleGroupSpec{EmailAddress: g.Email}}
	case directory.SCIMGroup:
		spec.GroupType = &identity.UserGroupSpec_ScimGroup{ScimGroup: &identity.SCIMGroupSpec{IdpId: g.IDPID}}
	default:
		spec.GroupType = &identity.UserGroupSpec_CloudGroup{CloudGroup: &identity.CloudGroupSpec{}}
	}
	wire := &identity.UserGroup{
		Id: g.ID, ResourceVersion: version(g.Revision), Spec: spec, State: resource.ResourceState_RESOURCE_STATE_ACTIVE,
		CreatedTime: timestamp(g.Created), LastModifiedTime: modified(g.Created, g.Modified),
	}
	wire.StateDeprecated = c.oldState(wire.GetState())
	return wire
}

func (c call) groupParams(spec *identity.UserGroupSpec) (directory.GroupParams, error) {
	if spec == nil {
		return directory.GroupParams{}, specMissing()
	}
	params := directory.GroupParams{Name: spec.GetDisplayName()}
	switch kind := spec.GetGroupType().(type) {
	case *identity.UserGroupSpec_CloudGroup:
		params.Kind = directory.CloudGroup
	case *identity.UserGroupSpec_GoogleGroup:
		params.Kind, params.Email = directory.GoogleGroup, kind.GoogleGroup.GetEmailAddress()
	case *identity.UserGroupSpec_ScimGroup:
		params.Kind, params.IDPID = directory.SCIMGroup, kind.ScimGroup.GetIdpId()
	} // none: the domain keeps the kind of a group that there is, and refuses to make one
	var err error
	params.Access, err = c.accessOf("spec.access", spec.GetAccess())
	return params, err
}

// GetUserGroups lists the account's groups.
func (s *Server) GetUserGroups(ctx context.Context, r *cloudservice.GetUserGroupsRequest) (*cloudservice.GetUserGroupsResponse, error) {
	c := begin(ctx)
	namespace, err := c.namespaceFilter(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	filter := directory.GroupFilter{Namespace: namespace, Name: r.GetDisplayName(),
		Email: r.GetGoogleGroup().GetEmailAddress(), IDPID: r.GetScimGroup().GetIdpId()}
	groups, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*identity.UserGroup, string, error) {
		groups, next, err := s.directory.Groups(ctx, c.caller, filter, p)
		return each(groups, c.group), next, err
	})
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUserGroupsResponse{Groups: groups, NextPageToken: next}, nil
}

// GetUserGroup reads a group.
func (s *Server) GetUserGroup(ctx context.Context, r *cloudservice.GetUserGroupRequest) (*cloudservice.GetUserGroupResponse, error) {
	c := begin(ctx)
	group, err := read(ctx, c, "group_id", r.GetGroupId(), s.directory.Group)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUserGroupResponse{Group: c.group(group)}, nil
}

// CreateUserGroup makes a group.
func (s *Server) CreateUserGroup(ctx context.Context, r *cloudservice.CreateUserGroupRequest) (*cloudservice.CreateUserGroupResponse, error) {
	c := begin(ctx)
	params, err := c.groupParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.CreateUserGroupResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.CreateGroup(ctx, c.caller, op, params)
		resp.GroupId = done.Target
		return done, err
	})
	return answer(resp, err)
}

// UpdateUserGroup replaces a group's name and access.
func (s *Server) UpdateUserGroup(ctx context.Context, r *cloudservice.UpdateUserGroupRequest) (*cloudservice.UpdateUserGroupResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("group_id", r.GetGroupId(), r)
	if err != nil {
		return nil, err
	}
	params, err := c.groupParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.UpdateUserGroupResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.UpdateGroup(ctx, c.caller, op, r.GetGroupId(), seen, params)
		return done, err
	})
	return answer(resp, err)
}

// DeleteUserGroup ends a group and what it gave.
func (s *Server) DeleteUserGroup(ctx context.Context, r *cloudservice.DeleteUserGroupRequest) (*cloudservice.DeleteUserGroupResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("group_id", r.GetGroupId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.DeleteUserGroupResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		return s.directory.DeleteGroup(ctx, c.caller, op, r.GetGroupId(), seen)
	})
	return answer(resp, err)
}

// SetUserGroupNamespaceAccess sets or removes a group's permission in a namespace.
func (s *Server) SetUserGroupNamespaceAccess(ctx context.Context, r *cloudservice.SetUserGroupNamespaceAccessRequest) (*cloudservice.SetUserGroupNamespaceAccessResponse, error) {
	c := begin(ctx)
	namespace, permission, seen, err := c.grantOf("group_id", r.GetGroupId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.SetUserGroupNamespaceAccessResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.SetGroupNamespaceAccess(ctx, c.caller, op, r.GetGroupId(), namespace, seen, permission)
		return done, err
	})
	return answer(resp, err)
}

// member is a request about one member of a group.
type member interface {
	mutation
	GetGroupId() string
	GetMemberId() *identity.UserGroupMemberId
}

// changeMember adds or removes one member.
func (s *Server) changeMember(ctx context.Context, r member, do func(context.Context, sallyport.Caller, journal.Operation, string, string) (journal.Committed, error)) (call, journal.Committed, error) {
	c := begin(ctx)
	if err := checkID("group_id", r.GetGroupId()); err != nil {
		return c, journal.Committed{}, err
	}
	if err := checkID("member_id.user_id", r.GetMemberId().GetUserId()); err != nil {
		return c, journal.Committed{}, err
	}
	op, err := operationOf(r)
	if err != nil {
		return c, journal.Committed{}, err
	}
	done, err := do(ctx, c.caller, op, r.GetGroupId(), r.GetMemberId().GetUserId())
	return c, done, err
}

// AddUserGroupMember puts a user into a cloud group.
func (s *Server) AddUserGroupMember(ctx context.Context, r *cloudservice.AddUserGroupMemberRequest) (*cloudservice.AddUserGroupMemberResponse, error) {
	c, done, err := s.changeMember(ctx, r, s.directory.AddMember)
	if err != nil {
		return nil, err
	}
	return &cloudservice.AddUserGroupMemberResponse{AsyncOperation: s.operation(ctx, c, done)}, nil
}

// RemoveUserGroupMember takes a user out of a cloud group.
func (s *Server) RemoveUserGroupMember(ctx context.Context, r *cloudservice.RemoveUserGroupMemberRequest) (*cloudservice.RemoveUserGroupMemberResponse, error) {
	c, done, err := s.changeMember(ctx, r, s.directory.RemoveMember)
	if err != nil {
		return nil, err
	}
	return &cloudservice.RemoveUserGroupMemberResponse{AsyncOperation: s.operation(ctx, c, done)}, nil
}

// GetUserGroupMembers lists a group's members.
func (s *Server) GetUserGroupMembers(ctx context.Context, r *cloudservice.GetUserGroupMembersRequest) (*cloudservice.GetUserGroupMembersResponse, error) {
	c := begin(ctx)
	if err := checkID("group_id", r.GetGroupId()); err != nil {
		return nil, err
	}
	members, next, err := s.directory.Members(ctx, c.caller, r.GetGroupId(), pageOf(r))
	if err != nil {
		return nil, err
	}
	wire := each(members, func(m directory.Member) *identity.UserGroupMember {
		return &identity.UserGroupMember{
			MemberId:    &identity.UserGroupMemberId{MemberType: &identity.UserGroupMemberId_UserId{UserId: m.User}},
			CreatedTime: timestamp(m.Created),
		}
	})
	return &cloudservice.GetUserGroupMembersResponse{Members: wire, NextPageToken: next}, nil
}
