package cloudapi

import (
	"context"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

func (c call) user(u directory.User) *identity.User {
	wire := &identity.User{
		Id: u.ID, ResourceVersion: version(u.Revision), State: stateOf(u.Status),
		Spec:        &identity.UserSpec{Email: u.Email, Access: c.access(u.Access)},
		CreatedTime: timestamp(u.Created), LastModifiedTime: modified(u.Created, u.Modified),
	}
	wire.StateDeprecated = c.oldState(wire.GetState())
	if !u.Invited.IsZero() {
		wire.Invitation = &identity.Invitation{CreatedTime: timestamp(u.Invited), ExpiredTime: timestamp(u.InvitationExpires)}
	}
	return wire
}

func (c call) userParams(spec *identity.UserSpec) (directory.UserParams, error) {
	if spec == nil {
		return directory.UserParams{}, specMissing()
	}
	access, err := c.accessOf("spec.access", spec.GetAccess())
	return directory.UserParams{Email: spec.GetEmail(), Access: access}, err
}

func specMissing() error { return sallyport.InvalidField("spec", "is required") }

// GetUsers lists the account's users.
func (s *Server) GetUsers(ctx context.Context, r *cloudservice.GetUsersRequest) (*cloudservice.GetUsersResponse, error) {
	c := begin(ctx)
	namespace, err := c.namespaceFilter(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	filter := directory.UserFilter{Email: r.GetEmail(), Namespace: namespace}
	users, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*identity.User, string, error) {
		users, next, err := s.directory.Users(ctx, c.caller, filter, p)
		return each(users, c.user), next, err
	})
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUsersResponse{Users: users, NextPageToken: next}, nil
}

// GetUser reads a user.
func (s *Server) GetUser(ctx context.Context, r *cloudservice.GetUserRequest) (*cloudservice.GetUserResponse, error) {
	c := begin(ctx)
	user, err := read(ctx, c, "user_id", r.GetUserId(), s.directory.User)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetUserResponse{User: c.user(user)}, nil
}

// read gets one thing by an id from a request.
func read[T any](ctx context.Context, c call, field, id string, get func(context.Context, sallyport.Caller, string) (T, error)) (T, error) {
	if err := checkID(field, id); err != nil {
		var none T
		return none, err
	}
	return get(ctx, c.caller, id)
}

// CreateUser invites a user.
func (s *Server) CreateUser(ctx context.Context, r *cloudservice.CreateUserRequest) (*cloudservice.CreateUserResponse, error) {
	c := begin(ctx)
	params, err := c.userParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.CreateUserResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.CreateUser(ctx, c.caller, op, params)
		resp.UserId = done.Target
		return done, err
	})
	return answer(resp, err)
}

// answer is the response, or nothing beside an error.
func answer[R any](resp *R, err error) (*R, error) {
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// UpdateUser replaces a user's access.
func (s *Server) UpdateUser(ctx context.Context, r *cloudservice.UpdateUserRequest) (*cloudservice.UpdateUserResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("user_id", r.GetUserId(), r)
	if err != nil {
		return nil, err
	}
	params, err := c.userParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.UpdateUserResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.UpdateUser(ctx, c.caller, op, r.GetUserId(), seen, params)
		return done, err
	})
	return answer(resp, err)
}

// seenOf checks the id of what is to be changed and reads which version of it
// the client has seen.
func seenOf(field, id string, r interface{ GetResourceVersion() string }) (int64, error) {
	if err := checkID(field, id); err != nil {
		return 0, err
	}
	return revision(r.GetResourceVersion())
}

// DeleteUser ends a user and all credentials of his.
func (s *Server) DeleteUser(ctx context.Context, r *cloudservice.DeleteUserRequest) (*cloudservice.DeleteUserResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("user_id", r.GetUserId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.DeleteUserResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		return s.directory.DeleteUser(ctx, c.caller, op, r.GetUserId(), seen)
	})
	return answer(resp, err)
}

// namespaceGrant is a request to set somebody's permission in a namespace.
type namespaceGrant interface {
	GetNamespace() string
	GetAccess() *identity.NamespaceAccess
	GetResourceVersion() string
}

// grantOf reads it; no access, and one without a permission, removes what there is.
func (c call) grantOf(field, id string, r namespaceGrant) (namespace string, p sallyport.Permission, seen int64, err error) {
	if seen, err = seenOf(field, id, r); err != nil {
		return "", 0, 0, err
	}
	if namespace, err = c.namespaceName("namespace", r.GetNamespace()); err != nil {
		return "", 0, 0, err
	}
	p, err = permissionOf("access", r.GetAccess())
	return namespace, p, seen, err
}

// SetUserNamespaceAccess sets or removes a user's permission in a namespace.
func (s *Server) SetUserNamespaceAccess(ctx context.Context, r *cloudservice.SetUserNamespaceAccessRequest) (*cloudservice.SetUserNamespaceAccessResponse, error) {
	c := begin(ctx)
	namespace, permission, seen, err := c.grantOf("user_id", r.GetUserId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.SetUserNamespaceAccessResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.directory.SetUserNamespaceAccess(ctx, c.caller, op, r.GetUserId(), namespace, seen, permission)
		return done, err
	})
	return answer(resp, err)
}
