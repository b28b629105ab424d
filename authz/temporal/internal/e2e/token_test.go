package e2e_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/stack"
)

// cluster is an issuer of service accounts' tokens as a Kubernetes cluster is one.
type cluster struct {
	t      *testing.T
	issuer string
	key    *rsa.PrivateKey
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, key: key}
	answer := func(v func() any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(v()); err != nil {
				t.Error(err)
			}
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /.well-known/openid-configuration", answer(func() any {
		return map[string]any{"issuer": c.issuer, "jwks_uri": c.issuer + "/openid/v1/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}}
	}))
	mux.Handle("GET /openid/v1/jwks", answer(func() any {
		return map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "k8s-1", "use": "sig", "alg": "RS256",
			"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}}}
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	c.issuer = server.URL
	return c
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// token is what a pod of the service account finds in its projected volume.
func (c *cluster) token(audience, name, uid string) string {
	now := time.Now().Unix()
	header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": "k8s-1"})
	if err != nil {
		c.t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"iss": c.issuer, "sub": "system:serviceaccount:workers:" + name, "aud": []string{audience},
		"iat": now, "nbf": now, "exp": now + 3600, "jti": fmt.Sprint(time.Now().UnixNano()), "kubernetes.io": map[string]any{"namespace": "workers",
			"pod": map[string]string{"name": name + "-0", "uid": "pod-1"}, "serviceaccount": map[string]string{"name": name, "uid": uid}}})
	if err != nil {
		c.t.Fatal(err)
	}
	text := encode(header) + "." + encode(claims)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, c.key, crypto.SHA256, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	return text + "." + encode(signature)
}

// federate lets the cluster's service account "worker" be ours.
func (w *world) federate(c *cluster, serviceAccount string) *adminv1.FederationRule {
	w.t.Helper()
	var made *adminv1.CreateFederationRuleResponse
	err := w.Admin(w.t.Context(), w.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) (err error) {
		made, err = admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{Spec: &adminv1.FederationRuleSpec{
			ServiceAccountId: serviceAccount, Issuer: c.issuer, Conditions: []*adminv1.ClaimCondition{
				{Claim: "sub", Equals: []*structpb.Value{structpb.NewStringValue("system:serviceaccount:workers:worker")}},
				{Claim: "kubernetes.io.serviceaccount.uid", Equals: []*structpb.Value{structpb.NewStringValue("uid-1")}}}}})
		return err
	})
	if err == nil {
		err = stack.AwaitID(w.t.Context(), w.cloud, made.GetAsyncOperationId())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return made.GetFederationRule()
}

// provider is a worker's credentials: tokens of a minute, each fetched when the
// last one has less than twenty seconds left.
type provider struct {
	fetch func(context.Context) (string, error)

	mu      sync.Mutex
	token   string
	until   time.Time
	fetched int
}

func (p *provider) get(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Until(p.until) > 20*time.Second {
		return p.token, nil
	}
	until := time.Now().Add(time.Minute)
	token, err := p.fetch(ctx)
	if err == nil {
		p.token, p.until = token, until
		p.fetched++
	}
	return p.token, err
}

func (p *provider) rounds() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetched
}

// byKey fetches tokens with the API key.
func (w *world) byKey(serviceAccount, key string) *provider {
	return &provider{fetch: func(ctx context.Context) (string, error) {
		return w.Token(ctx, w.Sallyport.HTTP, url.Values{"grant_type": {"client_credentials"}, "client_id": {serviceAccount}, "client_secret": {key}}, nil)
	}}
}

// byCluster exchanges tokens of the cluster's service account.
func (w *world) byCluster(c *cluster, serviceAccount, name, uid string) *provider {
	return &provider{fetch: func(ctx context.Context) (string, error) {
		return w.Token(ctx, w.Sallyport.HTTP, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"},
			"subject_token": {c.token(w.Sallyport.HTTP+"/account/"+w.Sallyport.Account, name, uid)}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
			"account": {w.Sallyport.Account}, "service_account": {serviceAccount}}, nil)
	}}
}

// clientOf is the real SDK's client with tokens of the provider. every is told of
// each attempt of each call; nil: nobody is.
func (w *world) clientOf(p *provider, every func(method string, err error)) client.Client {
	w.t.Helper()
	options, err := w.Options(w.namespace)
	if err != nil {
		w.t.Fatal(err)
	}
	options.Credentials = client.NewAPIKeyDynamicCredentials(p.get)
	if every != nil {
		tell := func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, resp, conn, opts...)
			every(method, err)
			return err
		}
		options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(tell)}
	}
	c, err := client.NewLazyClient(options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// Workers whose tokens live for a minute, got with an API key or for a token of
// their cluster, work on over the tokens' ends without one failed call. Then what
// the tokens rest on ends, and they are out, their polls that wait included.
func TestWorkersWithTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	pods := newCluster(t)
	federated, _, _ := w.serviceAccount("pods", identity.NamespaceAccess_PERMISSION_WRITE)
	rule := w.federate(pods, federated)
	if _, err := w.byCluster(pods, federated, "other", "uid-1").get(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("for a token of another workload of the cluster: %v", err)
	}
	keyID, key, err := stack.CreateKey(t.Context(), w.cloud, w.account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	providers := map[string]*provider{"key": w.byKey(w.account, key), "cluster": w.byCluster(pods, federated, "worker", "uid-1")}

	var stopping atomic.Bool
	var calls atomic.Int64
	every := func(method string, err error) {
		if calls.Add(1); err != nil && !stopping.Load() {
			t.Errorf("%s: %v", method, err)
		}
	}
	clients := map[string]client.Client{}
	var load sync.WaitGroup
	loaded, stop := context.WithTimeout(t.Context(), 65*time.Second) // past the end of the first tokens
	defer stop()
	for name, p := range providers {
		c := w.clientOf(p, every)
		clients[name] = w.clientOf(p, nil)
		worker := runWorker(t, c, "q-"+name)
		defer worker.Stop()
		load.Go(func() {
			slow, err := c.ExecuteWorkflow(loaded, client.StartWorkflowOptions{ID: "slow-" + name, TaskQueue: "q-" + name}, "greet", "world")
			if err != nil {
				t.Error(err)
				return
			}
			for n := 0; loaded.Err() == nil && !t.Failed(); n++ {
				if err := runOne(c, "q-"+name, fmt.Sprintf("load-%s-%d", name, n)); err != nil {
					t.Error(err)
				}
				time.Sleep(200 * time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var answer string
			if err := c.SignalWorkflow(ctx, "slow-"+name, "", "greeting", "hi"); err != nil {
				t.Error(err)
			} else if err := slow.Get(ctx, &answer); err != nil || answer != "HI WORLD" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	load.Wait()
	t.Logf("%d calls with %d and %d tokens", calls.Load(), providers["key"].rounds(), providers["cluster"].rounds())
	if calls.Load() < 100 || providers["key"].rounds() < 2 || providers["cluster"].rounds() < 2 {
		t.Error("that is no load")
	}
	stopping.Store(true)

	for name, test := range map[string]struct {
		end    func(context.Context) (string, error)
		reason string
	}{
		"key": {func(ctx context.Context) (string, error) { return stack.DeleteKey(ctx, w.cloud, keyID) }, "API key that the token was made with"},
		"cluster": {func(ctx context.Context) (operation string, err error) {
			err = w.Admin(ctx, w.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) error {
				got, err := admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: rule.GetId()})
				if err != nil {
					return err
				}
				if got.GetFederationRule().GetLastUsedTime() == nil {
					t.Error("the rule shows no use")
				}
				done, err := admin.DeleteFederationRule(ctx, &adminv1.DeleteFederationRuleRequest{RuleId: rule.GetId(), ResourceVersion: got.GetFederationRule().GetResourceVersion()})
				operation = done.GetAsyncOperationId()
				return err
			})
			if err != nil {
				return "", err
			}
			return operation, stack.AwaitID(ctx, w.cloud, operation)
		}, "federation rule"},
	} {
		t.Run(name+" ends", func(t *testing.T) { w.cutOff(t, clients[name], test.end, test.reason) })
	}
}

// A token that is bound to a certificate is good on connections that were made
// with it alone.
func TestATokenOfACertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shared)
	ca := newCA(t, "anybody")
	own, others := leaf(t, ca, "own", nil), leaf(t, ca, "others", nil)
	token, err := w.Token(t.Context(), w.Sallyport.MTLS, url.Values{"grant_type": {"client_credentials"}, "client_id": {w.account}, "client_secret": {w.key}}, own)
	if err != nil {
		t.Fatal(err)
	}
	options, err := w.Options(w.namespace)
	if err != nil {
		t.Fatal(err)
	}
	options.Credentials = client.NewAPIKeyStaticCredentials(token)
	for name, test := range map[string]struct {
		certificate func() client.Client
		reason      string // "": let in
	}{
		"its own": {func() client.Client { return w.clientWith(options, own) }, ""},
		"another": {func() client.Client { return w.clientWith(options, others) }, "bound to a client certificate"},
		"none":    {func() client.Client { return w.client(token) }, "bound to a client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.start(test.certificate(), "q", "with "+name)
			if test.reason != "" {
				refused(t, err, test.reason)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A signing key that somebody may have stolen is revoked: what it signed is out,
// on the server at once, and new tokens work.
func TestARevokedSigningKeyIsOut(t *testing.T) {
	w := newWorld(t, shared) // not beside other tests that have tokens
	p := w.byKey(w.account, w.key)
	c := w.clientOf(p, nil)
	old, err := p.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := w.client(old)
	keys := func(args ...string) string {
		t.Helper()
		args = append([]string{"token-key", args[0], "--data", filepath.Dir(w.Sallyport.KeyFile)}, args[1:]...)
		out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "sallyportd"), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	active := regexp.MustCompile(`(?m)^(\S+)  active`).FindStringSubmatch(keys("list"))
	if active == nil {
		t.Fatalf("there is no active key:\n%s", keys("list"))
	}
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		ended <- poll(ctx, other, w.namespace)
	}()
	time.Sleep(300 * time.Millisecond) // the poll waits
	if err := w.start(c, "q", "before"); err != nil {
		t.Fatal(err)
	}
	keys("revoke", active[1])
	began := time.Now()
	select {
	case err := <-ended:
		refused(t, err, "token")
	case <-time.After(10 * time.Second):
		t.Fatal("the poll still waits after 10 s")
	}
	t.Logf("the poll ended after %v", time.Since(began))
	refused(t, w.start(other, "q", "denied"), "token")
	fresh := w.byKey(w.account, w.key)
	if err := w.start(w.clientOf(fresh, nil), "q", "after"); err != nil {
		t.Errorf("with a new token: %v", err)
	}
}

func poll(ctx context.Context, c client.Client, in string) error {
	_, err := c.WorkflowService().PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: in, TaskQueue: &taskqueue.TaskQueue{Name: "empty"}})
	return err
}

// clientWith is a client of the options with a certificate.
func (w *world) clientWith(options client.Options, certificate *tls.Certificate) client.Client {
	w.t.Helper()
	options.ConnectionOptions.TLS = options.ConnectionOptions.TLS.Clone()
	options.ConnectionOptions.TLS.Certificates = []tls.Certificate{*certificate}
	c, err := client.NewLazyClient(options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}
