package cloudapi

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/apikeys"
)

// CreateApiKey makes a key, narrower than its owner if its limits say so.
func (a *Admin) CreateApiKey(ctx context.Context, r *adminv1.CreateApiKeyRequest) (*adminv1.CreateApiKeyResponse, error) {
	c := begin(ctx)
	spec := r.GetSpec()
	if spec == nil {
		return nil, specMissing()
	}
	owner, err := principalOf("spec.owner_id", spec.GetOwnerId())
	if err != nil {
		return nil, err
	}
	expires, err := expiryOf("spec.expiry_time", spec.GetExpiryTime())
	if err != nil {
		return nil, err
	}
	limits, err := a.limitsOf(ctx, c, r.GetLimits())
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	made, done, err := a.keys.Create(ctx, c.caller, op, apikeys.CreateParams{Owner: owner, DisplayName: spec.GetDisplayName(),
		Description: spec.GetDescription(), Expires: expires, Disabled: spec.GetDisabled(), Limits: limits})
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateApiKeyResponse{KeyId: made.Key.ID, Token: made.Token.Reveal(), AsyncOperationId: done.OperationID}, nil
}

// principalOf tells users from service accounts by their ids' prefixes.
func principalOf(field, id string) (sallyport.Principal, error) {
	if err := checkID(field, id); err != nil {
		return sallyport.Principal{}, err
	}
	switch {
	case strings.HasPrefix(id, sallyport.UserPrefix):
		return sallyport.Principal{Kind: sallyport.User, ID: id}, nil
	case strings.HasPrefix(id, sallyport.ServiceAccountPrefix):
		return sallyport.Principal{Kind: sallyport.ServiceAccount, ID: id}, nil
	}
	return sallyport.Principal{}, sallyport.InvalidField(field, "must be a user's id (%s…) or a service account's (%s…)", sallyport.UserPrefix, sallyport.ServiceAccountPrefix)
}

// limitsOf reads what a key is narrowed to. How many entries there may be is
// the domain's to say.
func (a *Admin) limitsOf(ctx context.Context, c call, l *adminv1.ApiKeyLimits) (sallyport.Limits, error) {
	limits := sallyport.Limits{ReadOnly: l.GetReadOnly()}
	for i, source := range l.GetSources() {
		prefix, err := netip.ParsePrefix(source)
		if err != nil {
			return limits, sallyport.InvalidField(fmt.Sprintf("limits.sources[%d]", i), "must be a network such as 192.0.2.0/24 or 2001:db8::/32")
		}
		limits.Sources = append(limits.Sources, prefix)
	}
	var names []string
	for i, full := range l.GetNamespaces() {
		name, err := c.namespaceName(fmt.Sprintf("limits.namespaces[%d]", i), full)
		if err != nil {
			return limits, err
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return limits, nil
	}
	ids, err := a.directory.NamespaceIDs(ctx, a.journal.Pool(), c.caller.Account, names)
	if err != nil {
		return limits, err
	}
	for i, name := range names {
		id, ok := ids[name]
		if !ok {
			return limits, sallyport.InvalidField(fmt.Sprintf("limits.namespaces[%d]", i), "there is no such namespace in this account")
		}
		limits.Namespaces = append(limits.Namespaces, id)
	}
	return limits, nil
}

// ListApiKeys lists the keys that the caller may read.
func (a *Admin) ListApiKeys(ctx context.Context, r *adminv1.ListApiKeysRequest) (*adminv1.ListApiKeysResponse, error) {
	c := begin(ctx)
	var filter apikeys.Filter
	if r.GetOwnerId() != "" {
		owner, err := principalOf("owner_id", r.GetOwnerId())
		if err != nil {
			return nil, err
		}
		filter = apikeys.Filter{Owner: owner.ID, OwnerKind: owner.Kind}
	}
	keys, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.ApiKey, string, error) {
		keys, next, err := a.keys.List(ctx, c.caller, filter, p)
		if err != nil {
			return nil, "", err
		}
		var ids []sallyport.NamespaceID
		for _, k := range keys {
			ids = append(ids, k.Limits.Namespaces...)
		}
		names, err := a.directory.NamespaceNames(ctx, a.journal.Pool(), c.caller.Account, ids)
		return each(keys, func(k apikeys.Key) *adminv1.ApiKey { return a.key(c, k, names) }), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListApiKeysResponse{ApiKeys: keys, NextPageToken: next}, nil
}

func (a *Admin) key(c call, k apikeys.Key, names map[sallyport.NamespaceID]string) *adminv1.ApiKey {
	wire := &adminv1.ApiKey{
		Id: k.ID, ResourceVersion: version(k.Revision),
		Spec: &adminv1.ApiKeySpec{OwnerId: k.Owner.ID, DisplayName: k.DisplayName, Description: k.Description,
			ExpiryTime: timestamp(k.Expires), Disabled: k.Disabled},
		Limits:      &adminv1.ApiKeyLimits{ReadOnly: k.Limits.ReadOnly},
		State:       adminv1.ApiKey_State(adminv1.ApiKey_State_value["STATE_"+strings.ToUpper(string(k.State(a.now())))]),
		CreatedTime: timestamp(k.Created), LastModifiedTime: timestamp(k.Modified), LastUsedTime: timestamp(k.LastUsed),
		RetiresTime: timestamp(k.Retires), Successor: k.Successor,
	}
	for _, id := range k.Limits.Namespaces {
		wire.Limits.Namespaces = append(wire.Limits.Namespaces, c.fullName(names[id]))
	}
	for _, source := range k.Limits.Sources {
		wire.Limits.Sources = append(wire.Limits.Sources, source.String())
	}
	return wire
}

// RotateApiKey makes a key's successor.
func (a *Admin) RotateApiKey(ctx context.Context, r *adminv1.RotateApiKeyRequest) (*adminv1.RotateApiKeyResponse, error) {
	c := begin(ctx)
	if err := checkID("key_id", r.GetKeyId()); err != nil {
		return nil, err
	}
	overlap := r.GetOverlap()
	if overlap.CheckValid() != nil && overlap != nil || overlap.AsDuration() < 0 {
		return nil, sallyport.InvalidField("overlap", "must be a duration that is not negative")
	}
	expires, err := expiryOf("expiry_time", r.GetExpiryTime())
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	params := apikeys.RotateParams{Overlap: overlap.AsDuration(), DisplayName: r.GetDisplayName(), Expires: expires}
	made, done, err := a.keys.Rotate(ctx, c.caller, op, r.GetKeyId(), params)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.RotateApiKeyResponse{KeyId: made.Key.ID, Token: made.Token.Reveal(), AsyncOperationId: done.OperationID}
	// The rotation stands whatever becomes of this read: the token must get out.
	if old, err := a.keys.Get(ctx, c.caller, r.GetKeyId()); err == nil {
		resp.OldKeyRetiresTime = timestamp(old.Retires)
	}
	return resp, nil
}
