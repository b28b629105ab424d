package temporal

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

const startWorkflow = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"

// BenchmarkAuthorize compares what one call costs: Sallyport's claim mapper and
// authorizer with an API key, and the server's own for an RS256 token.
func BenchmarkAuthorize(b *testing.B) {
	for _, keys := range []int{1000, 100_000} {
		header, plugin := sallyportPlugin(b, keys)
		b.Run(fmt.Sprintf("sallyport/keys=%d", keys), func(b *testing.B) {
			benchmark(b, claimMapper{}, plugin, header)
		})
	}
	header, mapper := jwtMapper(b)
	b.Run("server-default/RS256", func(b *testing.B) {
		benchmark(b, mapper, authorization.NewDefaultAuthorizer(), header)
	})
}

func benchmark(b *testing.B, mapper authorization.ClaimMapper, authorizer authorization.Authorizer, header string) {
	b.ReportAllocs()
	for b.Loop() {
		claims, err := mapper.GetClaims(&authorization.AuthInfo{AuthToken: header})
		if err != nil {
			b.Fatal(err)
		}
		result, err := authorizer.Authorize(context.Background(), claims, &authorization.CallTarget{APIName: startWorkflow, Namespace: "orders.acct2"})
		if err != nil || result.Decision != authorization.DecisionAllow {
			b.Fatal(result, err)
		}
	}
}

func sallyportPlugin(b *testing.B, keys int) (string, *Plugin) {
	b.Helper()
	batch := replica.Batch{Account: "acct2", Head: sallyport.Head{Epoch: 1, Revision: 1}}
	add := func(kind object.Kind, id string, data []byte) {
		batch.Objects = append(batch.Objects, object.Object{Kind: kind, ID: id, Data: data})
		batch.Digest.Toggle(kind, id, data, true)
	}
	add(object.KindAccount, "acct2", object.Encode(object.Account{Status: object.Active}))
	add(object.KindNamespace, "ns_1", object.Encode(object.Namespace{Name: "orders", Project: "p_1", Cell: "c", RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true}}))
	var header string
	for range keys {
		owner, id := sallyport.NewID(sallyport.ServiceAccountPrefix), sallyport.NewID("")
		token, hash := credential.NewAPIKey("acct2", id)
		header = "Bearer " + token.Reveal()
		add(object.KindPrincipal, owner, object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1}))
		add(object.KindGrant, object.GrantID(owner, sallyport.ScopeNamespace, "ns_1"), object.Encode(object.Grant{Subject: owner, Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"}))
		add(object.KindKey, id, object.Encode(object.Key{Owner: owner, Hash: hash, Status: object.Active, Epoch: 1, Expires: time.Now().Add(time.Hour).UnixMicro()}))
	}
	r, err := replica.Open(replica.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := r.Load(batch); err != nil {
		b.Fatal(err)
	}
	plugin, err := New(Config{Replica: r})
	if err != nil {
		b.Fatal(err)
	}
	if d := r.Decide(replica.CredentialFromHeader(header, netip.Addr{}), startWorkflow, "orders.acct2", time.Now()); !d.Allow {
		b.Fatal(d.Reason)
	}
	return header, plugin
}

// oneKey is a key set with one RSA key.
type oneKey struct{ key *rsa.PublicKey }

func (k oneKey) RsaKey(string, string) (*rsa.PublicKey, error)   { return k.key, nil }
func (oneKey) EcdsaKey(string, string) (*ecdsa.PublicKey, error) { return nil, errors.New("none") }
func (oneKey) HmacKey(string, string) ([]byte, error)            { return nil, errors.New("none") }
func (oneKey) SupportedMethods() []string                        { return []string{"RS256"} }
func (oneKey) Close()                                            {}

func jwtMapper(b *testing.B) (string, authorization.ClaimMapper) {
	b.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"sub": "worker", "permissions": []string{"orders.acct2:write"}, "exp": time.Now().Add(time.Hour).Unix()})
	token.Header["kid"] = "k"
	signed, err := token.SignedString(private)
	if err != nil {
		b.Fatal(err)
	}
	return "Bearer " + signed, authorization.NewDefaultJWTClaimMapper(oneKey{&private.PublicKey}, &config.Authorization{}, log.NewNoopLogger())
}
