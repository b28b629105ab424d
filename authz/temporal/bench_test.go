package temporal_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
)

// BenchmarkAuthorize is what the server does for each call, from the header to
// the decision: by Sallyport and by Temporal's own claim mapper and authorizer,
// beside the floor, which is a hash and a look-up.
func BenchmarkAuthorize(b *testing.B) {
	target := &authorization.CallTarget{
		APIName:   "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution",
		Namespace: orders,
		Request:   &workflowservice.StartWorkflowExecutionRequest{Namespace: orders},
	}
	authorize := func(b *testing.B, mapper authorization.ClaimMapper, authorizer authorization.Authorizer, header string) {
		b.ReportAllocs()
		for b.Loop() {
			claims, err := mapper.GetClaims(&authorization.AuthInfo{AuthToken: header})
			if err != nil {
				b.Fatal(err)
			}
			result, err := authorizer.Authorize(b.Context(), claims, target)
			if err != nil || result.Decision != authorization.DecisionAllow {
				b.Fatal(result, err)
			}
		}
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
