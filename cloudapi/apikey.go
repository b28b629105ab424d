package cloudapi

import (
	"context"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/resource/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/journal"
)

func ownerText(t identity.OwnerType) string {
	return strings.ReplaceAll(enumText(t, "OWNER_TYPE_"), "_", "-")
}

func (s *Server) key(c call, k apikeys.Key) *identity.ApiKey {
	owner := identity.OwnerType_OWNER_TYPE_USER
	if k.Owner.Kind == sallyport.ServiceAccount {
		owner = identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT
	}
	wire := &identity.ApiKey{
		Id: k.ID, ResourceVersion: version(k.Revision), State: keyState(k.State(s.now())),
		Spec: &identity.ApiKeySpec{OwnerId: k.Owner.ID, OwnerType: owner, DisplayName: k.DisplayName,
			Description: k.Description, ExpiryTime: timestamp(k.Expires), Disabled: k.Disabled},
		CreatedTime: timestamp(k.Created), LastModifiedTime: timestamp(k.Modified),
	}
	wire.StateDeprecated = c.oldState(wire.GetState())
	if c.upTo(textEnums()) {
		wire.Spec.OwnerTypeDeprecated = ownerText(owner)
	}
	return wire
}

// keyState: a disabled key is an active resource, its spec says disabled.
func keyState(state apikeys.State) resource.ResourceState {
	switch state {
	case apikeys.Expired, apikeys.Retired, apikeys.Ended:
		return resource.ResourceState_RESOURCE_STATE_EXPIRED
	}
	return resource.ResourceState_RESOURCE_STATE_ACTIVE
}

// ownerOf reads who owns a key; zero when nothing is given.
func ownerOf(prefix, id string, t identity.OwnerType, old string) (sallyport.Principal, error) {
	if id != "" {
		if err := checkID(prefix+"owner_id", id); err != nil {
			return sallyport.Principal{}, err
		}
	}
	value, err := enumOf(prefix+"owner_type", t, old, ownerText)
	if err != nil {
		return sallyport.Principal{}, err
	}
	owner := sallyport.Principal{ID: id}
	switch value {
	case identity.OwnerType_OWNER_TYPE_USER:
		owner.Kind = sallyport.User
	case identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT:
		owner.Kind = sallyport.ServiceAccount
	}
	return owner, nil
}

func specOwner(spec *identity.ApiKeySpec) (sallyport.Principal, error) {
	return ownerOf("spec.", spec.GetOwnerId(), spec.GetOwnerType(), spec.GetOwnerTypeDeprecated())
}

func expiryOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, sallyport.InvalidField(field, "is not a time between the years 1 and 9999")
	}
	return t.AsTime(), nil
}

// GetApiKeys lists the keys that the caller may read.
func (s *Server) GetApiKeys(ctx context.Context, r *cloudservice.GetApiKeysRequest) (*cloudservice.GetApiKeysResponse, error) {
	c := begin(ctx)
	owner, err := ownerOf("", r.GetOwnerId(), r.GetOwnerType(), r.GetOwnerTypeDeprecated())
	if err != nil {
		return nil, err
	}
	filter := apikeys.Filter{Owner: owner.ID, OwnerKind: owner.Kind}
	keys, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*identity.ApiKey, string, error) {
		keys, next, err := s.keys.List(ctx, c.caller, filter, p)
		return each(keys, func(k apikeys.Key) *identity.ApiKey { return s.key(c, k) }), next, err
	})
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetApiKeysResponse{ApiKeys: keys, NextPageToken: next}, nil
}

// GetApiKey reads a key, without its secret.
func (s *Server) GetApiKey(ctx context.Context, r *cloudservice.GetApiKeyRequest) (*cloudservice.GetApiKeyResponse, error) {
	c := begin(ctx)
	key, err := read(ctx, c, "key_id", r.GetKeyId(), s.keys.Get)
	if err != nil {
		return nil, err
	}
	return &cloudservice.GetApiKeyResponse{ApiKey: s.key(c, key)}, nil
}

// CreateApiKey makes a key. Its token is in this answer and in none after it.
func (s *Server) CreateApiKey(ctx context.Context, r *cloudservice.CreateApiKeyRequest) (*cloudservice.CreateApiKeyResponse, error) {
	c := begin(ctx)
	spec := r.GetSpec()
	if spec == nil {
		return nil, specMissing()
	}
	owner, err := specOwner(spec)
	if err != nil {
		return nil, err
	}
	switch {
	case owner.ID == "":
		return nil, sallyport.InvalidField("spec.owner_id", "is required")
	case owner.Kind == "":
		return nil, sallyport.InvalidField("spec.owner_type", "is required: user or service account")
	case spec.GetExpiryTime() == nil:
		return nil, sallyport.InvalidField("spec.expiry_time", "is required: API keys live for at most two years")
	}
	expires, err := expiryOf("spec.expiry_time", spec.GetExpiryTime())
	if err != nil {
		return nil, err
	}
	params := apikeys.CreateParams{Owner: owner, DisplayName: spec.GetDisplayName(), Description: spec.GetDescription(), Expires: expires, Disabled: spec.GetDisabled()}
	resp := &cloudservice.CreateApiKeyResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		made, done, err := s.keys.Create(ctx, c.caller, op, params)
		resp.KeyId, resp.Token = made.Key.ID, made.Token.Reveal()
		return done, err
	})
	return answer(resp, err)
}

// UpdateApiKey renames, disables or enables a key.
func (s *Server) UpdateApiKey(ctx context.Context, r *cloudservice.UpdateApiKeyRequest) (*cloudservice.UpdateApiKeyResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("key_id", r.GetKeyId(), r)
	if err != nil {
		return nil, err
	}
	spec := r.GetSpec()
	if spec == nil {
		return nil, specMissing()
	}
	owner, err := specOwner(spec)
	if err != nil {
		return nil, err
	}
	expires, err := expiryOf("spec.expiry_time", spec.GetExpiryTime())
	if err != nil {
		return nil, err
	}
	params := apikeys.UpdateParams{DisplayName: spec.GetDisplayName(), Description: spec.GetDescription(), Disabled: spec.GetDisabled(), Owner: owner, Expires: expires}
	resp := &cloudservice.UpdateApiKeyResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		_, done, err := s.keys.Update(ctx, c.caller, op, r.GetKeyId(), seen, params)
		return done, err
	})
	return answer(resp, err)
}

// DeleteApiKey ends a key.
func (s *Server) DeleteApiKey(ctx context.Context, r *cloudservice.DeleteApiKeyRequest) (*cloudservice.DeleteApiKeyResponse, error) {
	c := begin(ctx)
	seen, err := seenOf("key_id", r.GetKeyId(), r)
	if err != nil {
		return nil, err
	}
	resp := &cloudservice.DeleteApiKeyResponse{}
	resp.AsyncOperation, err = s.change(ctx, c, r, func(op journal.Operation) (journal.Committed, error) {
		return s.keys.Delete(ctx, c.caller, op, r.GetKeyId(), seen)
	})
	return answer(resp, err)
}
