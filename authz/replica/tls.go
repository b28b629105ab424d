package replica

import (
	"crypto/tls"
	"errors"
	"time"
)

// MaxConnectionAge is how long a server that decides on client certificates
// should keep a connection at most (keepalive.ServerParameters.MaxConnectionAge
// of gRPC). A client proves that it has its key when it connects and can change
// its certificate only by connecting again: this is less than the third of the
// shortest life that a managed certificate can have (10 minutes), which is when
// it is renewed at the latest, also with the tenth that gRPC adds at random.
// Decisions do not rest on it, since what expired or was revoked is refused at
// the next call of an open connection.
const MaxConnectionAge = 3 * time.Minute

// TLSConfig is what ServerTLS makes a server's configuration of. One of the two
// is required.
type TLSConfig struct {
	// Base has the server's own certificates and all that is not about clients'.
	// It must not ask for client certificates itself. It is not changed.
	Base *tls.Config
	// GetCertificate gives the server's certificate; nil: that of Base.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// ServerTLS is the TLS configuration of a server whose calls are decided by
// Decide, with Credential. The handshake asks for a client certificate, requires
// none, and verifies nothing but that the client has its key: which CAs count
// depends on the namespace that each call names, and a client that is refused
// then gets a reason that it can read instead of a TLS alert.
//
// There are no session tickets: whoever connects proves anew to have the key.
func ServerTLS(c TLSConfig) (*tls.Config, error) {
	if c.Base == nil {
		c.Base = &tls.Config{}
	}
	config, err := requestCertificates(c.Base)
	if err != nil {
		return nil, err
	}
	if c.GetCertificate != nil {
		config.GetCertificate = c.GetCertificate
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		return nil, errors.New("TLS of the server: there is no certificate of the server itself")
	}
	if inner := config.GetConfigForClient; inner != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := inner(hello)
			if err != nil || chosen == nil {
				return nil, err
			}
			return requestCertificates(chosen)
		}
	}
	return config, nil
}

var errRequiresCertificates = errors.New("TLS of the server: client certificates are checked call by call, against the CAs of the namespace; " +
	"switch off that the server requires or verifies them itself")

// requestCertificates gives a copy that only asks for client certificates.
func requestCertificates(base *tls.Config) (*tls.Config, error) {
	if base.ClientAuth > tls.RequestClientCert {
		return nil, errRequiresCertificates
	}
	config := base.Clone()
	config.ClientAuth = tls.RequestClientCert
	config.ClientCAs = nil // no hint either: it would name CAs of tenants
	config.NextProtos = []string{"h2", "http/1.1"}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.SessionTicketsDisabled = true
	return config, nil
}
