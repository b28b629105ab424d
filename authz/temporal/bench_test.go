package temporal_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/clientca"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"google.golang.org/grpc/credentials"
)

// BenchmarkAuthorize is what the server does for each call, from the header to
// the decision: by Sallyport with a key and with a certificate, and by Temporal's own claim mapper and authorizer,
// beside the floor, which is a hash and a look-up.
func BenchmarkAuthorize(b *testing.B) {
	target := &authorization.CallTarget{
		APIName:   "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution",
		Namespace: orders,
		Request:   &workflowservice.StartWorkflowExecutionRequest{Namespace: orders},
	}
	authorizeTLS := func(b *testing.B, mapper authorization.ClaimMapper, authorizer authorization.Authorizer, info authorization.AuthInfo) {
		b.ReportAllocs()
		for b.Loop() {
			claims, err := mapper.GetClaims(&info)
			if err != nil {
				b.Fatal(err)
			}
			result, err := authorizer.Authorize(b.Context(), claims, target)
			if err != nil || result.Decision != authorization.DecisionAllow {
				b.Fatal(result, err)
			}
		}
	}
	authorize := func(b *testing.B, mapper authorization.ClaimMapper, authorizer authorization.Authorizer, header string) {
		authorizeTLS(b, mapper, authorizer, authorization.AuthInfo{AuthToken: header})
	}

	r := openReplica(b)
	p := newPolicy(b, r, "acme2")
	p.namespace("ns_orders", "orders", 3)
	p.worker("sa_writer", "ns_orders", sallyport.PermissionWrite)
	token := p.key("sa_writer", func(k *object.Key) { k.Expires = time.Now().Add(24 * time.Hour).UnixMicro() })
	plugin, err := temporal.New(temporal.Config{Replica: r})
	if err != nil {
		b.Fatal(err)
	}

	b.Run("floor", func(b *testing.B) {
		known := map[[32]byte]bool{sha256.Sum256([]byte(token)): true}
		b.ReportAllocs()
		for b.Loop() {
			if !known[sha256.Sum256([]byte(token))] {
				b.Fatal("unknown")
			}
		}
	})
	b.Run("sallyport", func(b *testing.B) {
		authorize(b, plugin.ClaimMapper(), plugin, "Bearer "+token)
	})
	ca, issuer := newCA(b, "acme"), newCA(b, "managed")
	p.takes("ns_orders", "orders", []*clientca.CA{ca}, object.CertificateFilter{CommonName: "worker*"})
	p.issues(issuer)
	for name, certificate := range map[string]*tls.Certificate{
		"sallyport-certificate": leaf(b, ca, "worker-1", nil), "sallyport-managed": managed(b, issuer, "acme2", "sa_writer"),
	} {
		b.Run(name, func(b *testing.B) {
			authorizeTLS(b, plugin.ClaimMapper(), plugin, authorization.AuthInfo{TLSConnection: &credentials.TLSInfo{
				State: tls.ConnectionState{ServerName: "localhost", PeerCertificates: []*x509.Certificate{certificate.Leaf}},
			}})
		})
	}
	b.Run("default-RS256", func(b *testing.B) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			b.Fatal(err)
		}
		claims := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
			"sub": "writer", "exp": time.Now().Add(24 * time.Hour).Unix(), "permissions": []string{orders + ":write"},
		})
		claims.Header["kid"] = "k"
		signed, err := claims.SignedString(key)
		if err != nil {
			b.Fatal(err)
		}
		mapper := authorization.NewDefaultJWTClaimMapper(oneKey{&key.PublicKey}, &config.Authorization{}, log.NewNoopLogger())
		authorize(b, mapper, authorization.NewDefaultAuthorizer(), "Bearer "+signed)
	})
}

// oneKey provides one RSA key for every id.
type oneKey struct{ key *rsa.PublicKey }

func (k oneKey) RsaKey(string, string) (*rsa.PublicKey, error) { return k.key, nil }
func (k oneKey) EcdsaKey(string, string) (*ecdsa.PublicKey, error) {
	return nil, errors.New("no ECDSA key")
}
func (k oneKey) HmacKey(string, string) ([]byte, error) { return nil, errors.New("no HMAC key") }
func (k oneKey) SupportedMethods() []string             { return []string{jwt.SigningMethodRS256.Name} }
func (k oneKey) Close()                                 {}
