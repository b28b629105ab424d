package temporal

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc/peer"
)

// caller is what the claim mapper found, as Claims.Extensions. It holds no
// secret.
type caller struct {
	credential replica.Credential
}

// claimMapper never errs, since the server answers a mapper's error without a
// reason, and never sets a role: claims with roles are the server's own.
type claimMapper struct {
	replica *replica.Replica
}

// AuthInfoRequired is false: also calls without a credential are mapped, and
// refused with a reason.
func (claimMapper) AuthInfoRequired() bool { return false }

func (m claimMapper) GetClaims(info *authorization.AuthInfo) (*authorization.Claims, error) {
	var header string
	var connection *tls.ConnectionState
	if info != nil {
		header = info.AuthToken
		if info.TLSConnection != nil {
			connection = &info.TLSConnection.State
		}
	}
	var both struct { // one allocation
		claims authorization.Claims
		caller caller
	}
	both.caller.credential = m.replica.Credential(header, connection, netip.Addr{})
	both.claims.Extensions = &both.caller
	return &both.claims, nil
}

// callerOf gives the caller of claims that our claim mapper made; nil for others.
func callerOf(claims *authorization.Claims) *caller {
	if claims == nil {
		return nil
	}
	c, _ := claims.Extensions.(*caller)
	return c
}

// isServer reports whether the claims are exactly those that the server gives
// to its own services on the internal frontend. Clients cannot bring them: the
// claims of their calls come from our claim mapper.
func isServer(claims *authorization.Claims) bool {
	return claims != nil &&
		claims.System == authorization.RoleAdmin &&
		claims.AuthType == authorization.InternalPrincipalType &&
		claims.Subject == authorization.InternalPrincipalName &&
		claims.Namespaces == nil && claims.Extensions == nil
}

// credentialIn is the caller's credential with the address that the call came
// from; the claim mapper is not told the address.
func (c *caller) credentialIn(ctx context.Context) replica.Credential {
	credential := c.credential
	if p, ok := peer.FromContext(ctx); ok {
		if tcp, ok := p.Addr.(*net.TCPAddr); ok {
			credential.From = tcp.AddrPort().Addr().Unmap()
		}
	}
	return credential
}
