package replica

import (
	"crypto/tls"
	"net/netip"

	"github.com/sallyport-iam/sallyport/credential"
)

// presented is a chain that a client presented, with what was found out about it.
type presented struct {
	*credential.Presented
}

// Credential reads what a call brought along: the value of its Authorization
// header, "" for none, and the state of its TLS connection, nil for none. Where
// there is a header it alone counts. from is the caller's address; keys that are
// narrowed to networks need it.
func (r *Replica) Credential(authorization string, connection *tls.ConnectionState, from netip.Addr) Credential {
	c := CredentialFromHeader(authorization, from)
	if connection == nil {
		return c
	}
	if c.Kind == NoCredential && len(connection.PeerCertificates) > 0 {
		p := &presented{credential.NewPresented(connection.PeerCertificates)}
		c.Kind, c.Certificate, c.Account, c.presented = Certificate, p.Presented, p.Account, p
	}
	return c
}
