package oidc

import (
	"slices"
	"strings"
)

const (
	microsoftVersion = "/v2.0"
	tenantTemplate   = "{tenantid}"
	// personalTenant is that of accounts which belong to no organization.
	personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// splitMicrosoft takes an issuer of Microsoft apart: what is before the tenant, and
// the tenant. The tenant is "" if the text is not one.
func splitMicrosoft(issuer string) (base, tenant string) {
	rest, ok := strings.CutSuffix(issuer, microsoftVersion)
	if !ok {
		return "", ""
	}
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 {
		return "", ""
	}
	return rest[:slash], rest[slash+1:]
}

// microsoftTenant is the tenant of a connection's issuer: an id, organizations or
// common; "" for all else.
func microsoftTenant(issuer string) string {
	_, tenant := splitMicrosoft(issuer)
	if tenant == "organizations" || tenant == "common" || tenantID.MatchString(tenant) {
		return tenant
	}
	return ""
}

// microsoftAnnounced is what the discovery document says of itself.
func microsoftAnnounced(issuer string) string {
	base, tenant := splitMicrosoft(issuer)
	if tenantID.MatchString(tenant) {
		return issuer
	}
	return base + "/" + tenantTemplate + microsoftVersion
}

// microsoftIssued is the tenant whose issuer iss is, "" if it is not one that the
// connection's issuer stands for.
func microsoftIssued(issuer, iss string) string {
	base, tenant := splitMicrosoft(iss)
	ownBase, own := splitMicrosoft(issuer)
	switch {
	case base != ownBase || !tenantID.MatchString(tenant):
		return ""
	case own == tenant, own == "common", own == "organizations" && tenant != personalTenant:
		return tenant
	}
	return ""
}

// checkTenant checks that a token is of a tenant that may sign in. All tenants share
// keys and document, so that nothing but the issuer, the tid in it and the key's own
// issuer tell one tenant's token from another's.
func (p Provider) checkTenant(got claims, used key) error {
	iss, tenant := got.text("iss"), got.text("tid")
	switch {
	case tenant == "" || microsoftIssued(p.Issuer, iss) != tenant:
		return refuse(WrongIssuer, "the token is of the issuer %s with the tenant %s; the connection's is %s", show(got["iss"]), show(got["tid"]), show(p.Issuer))
	case used.issuer != "" && strings.ReplaceAll(used.issuer, tenantTemplate, tenant) != iss:
		return refuse(WrongIssuer, "the token of the issuer %s is signed with a key of %s", show(iss), show(used.issuer))
	case p.Tenants != nil && !slices.Contains(p.Tenants, tenant):
		return refuse(NotAllowed, "the tenant %s is not one of those that may sign in", show(tenant))
	}
	return nil
}
