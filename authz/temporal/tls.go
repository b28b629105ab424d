package temporal

import (
	"crypto/tls"
	"fmt"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/rpc/encryption"
)

// FrontendTLS gives the server's TLS (for WithTLSConfigFactory) with a frontend
// that asks every client for a certificate and turns none away in the handshake:
// whose certificates count is a matter of the namespace that is called. The
// frontend's own certificates stay the provider's, also those of single hosts;
// what the services show each other is not touched.
//
// A frontend that verifies client certificates itself is an error, since a
// client that it turned away would see a TLS alert instead of a reason.
func FrontendTLS(provider encryption.TLSConfigProvider) (encryption.TLSConfigProvider, error) {
	base, err := provider.GetFrontendServerConfig()
	if err != nil {
		return nil, fmt.Errorf("loading the frontend's certificate: %w", err)
	}
	if base == nil {
		return provider, nil // plaintext
	}
	frontend, err := replica.ServerTLS(replica.TLSConfig{Base: base})
	if err != nil {
		return nil, err
	}
	return frontendTLS{provider, frontend}, nil
}

type frontendTLS struct {
	encryption.TLSConfigProvider
	frontend *tls.Config
}

// GetFrontendServerConfig gives what the frontend listens with.
func (f frontendTLS) GetFrontendServerConfig() (*tls.Config, error) { return f.frontend, nil }
