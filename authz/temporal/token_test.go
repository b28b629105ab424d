package temporal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/query/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const tokenIssuer = "https://sallyport.example.net"

// tokens gives out tokens of acme's sa_writer by the rule wif_1 or an API key.
type tokens struct {
	bed  *bed
	keys *policy // of account 00000
	key  *ecdsa.PrivateKey
}

func newTokens(t *testing.T, b *bed) *tokens {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k := &tokens{b, newPolicy(t, b.replica, sallyport.SystemAccount), key}
	put(k.keys, object.KindTokenKey, "kid-1", object.TokenKey{Key: der, Issuer: tokenIssuer, Audiences: []string{"temporal"}})
	k.allow()
	return k
}

// allow makes the rule.
func (k *tokens) allow() {
	put(k.bed.acme, object.KindFederationRule, "wif_1", object.FederationRule{ServiceAccount: "sa_writer", Version: 1})
}

// token makes one that lives until then, cut to seconds.
func (k *tokens) token(t testing.TB, until time.Time, change func(*credential.Token)) string {
	t.Helper()
	token := credential.Token{ID: sallyport.NewID("tok_"), Account: "acme2", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_writer"},
		Rule: "wif_1", RuleVersion: 1, Audience: []string{"temporal"}, Issued: time.Now().Add(-time.Second), Expires: until}
	if change != nil {
		change(&token)
	}
	raw, err := credential.SignToken(token, tokenIssuer, "kid-1", k.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// in is the first whole second after the duration.
func in(d time.Duration) time.Time { return time.Now().Add(d + time.Second).Truncate(time.Second) }

// What a token rests on ends the polls that were begun with it, and the calls after.
func TestPollEndsWithItsToken(t *testing.T) {
	b := newBed(t)
	k := newTokens(t, b)
	key := b.acme.key("sa_writer", nil)
	parsed, _, err := credential.ParseAPIKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*credential.Token)
		end    func()
		reason string
	}{
		{"the rule is deleted", nil, func() { b.acme.remove(object.KindFederationRule, "wif_1"); t.Cleanup(k.allow) }, "federation rule"},
		{"the API key is deleted", func(c *credential.Token) { c.Key, c.Rule, c.RuleVersion = parsed.ID, "", 0 }, func() { b.acme.end(key) }, "API key"},
		{"the signing key is revoked", nil, func() { k.keys.remove(object.KindTokenKey, "kid-1") }, "revoked"},
	} {
		k.allow()
		token := k.token(t, in(time.Minute), test.change)
		ended := make(chan error, 1)
		poll := &workflowservice.PollActivityTaskQueueRequest{Namespace: orders, TaskQueue: &taskqueue.TaskQueue{Name: sallyport.NewID("tq_")}}
		go func() {
			_, err := b.client.PollActivityTaskQueue(as(t, token), poll)
			ended <- err
		}()
		select {
		case err := <-ended:
			t.Fatalf("%s: the poll did not wait: %v", test.name, err)
		case <-time.After(500 * time.Millisecond):
		}
		began := time.Now()
		test.end()
		err := <-ended
		if got := status.Convert(err); got.Code() != codes.Unauthenticated || !contains(got.Message(), test.reason) {
			t.Errorf("%s: the poll ended with %v", test.name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: the poll ended only after %v", test.name, took)
		}
		if _, err := b.client.PollActivityTaskQueue(as(t, token), poll); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: the next poll: %v", test.name, err)
		}
	}
}

// When a token ends by itself, whoever waits with it is not told off: polls for
// tasks and for history end empty, before the token does, and what cannot is to be
// tried again.
func TestWaitsEndBeforeTheirToken(t *testing.T) {
	b := newBed(t)
	k := newTokens(t, b)
	writer := b.acme.key("sa_writer", nil)
	begin := start(orders, "waits")
	run, err := b.client.StartWorkflowExecution(as(t, writer), begin)
	if err != nil {
		t.Fatal(err)
	}
	task, err := b.client.PollWorkflowTaskQueue(as(t, writer), &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: begin.TaskQueue})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.RespondWorkflowTaskCompleted(as(t, writer), &workflowservice.RespondWorkflowTaskCompletedRequest{Namespace: orders, TaskToken: task.GetTaskToken()}); err != nil {
		t.Fatal(err)
	}
	of := &common.WorkflowExecution{WorkflowId: "waits", RunId: run.GetRunId()}
	queue := &taskqueue.TaskQueue{Name: "empty"}
	for _, test := range []struct {
		name string
		life time.Duration
		call func(context.Context) error
		want codes.Code
	}{
		{"workflow tasks", 3 * time.Second, func(ctx context.Context) error {
			_, err := b.client.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: queue})
			return err
		}, codes.OK},
		{"activity tasks", 3 * time.Second, func(ctx context.Context) error {
			_, err := b.client.PollActivityTaskQueue(ctx, &workflowservice.PollActivityTaskQueueRequest{Namespace: orders, TaskQueue: queue})
			return err
		}, codes.OK},
		{"Nexus tasks", 3 * time.Second, func(ctx context.Context) error {
			_, err := b.client.PollNexusTaskQueue(ctx, &workflowservice.PollNexusTaskQueueRequest{Namespace: orders, TaskQueue: queue})
			return err
		}, codes.OK},
		{"the history's next event", 3 * time.Second, func(ctx context.Context) error {
			page, err := b.client.GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
				Namespace: orders, Execution: of, WaitNewEvent: true, HistoryEventFilterType: enums.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT})
			if err == nil && len(page.GetNextPageToken()) == 0 {
				return fmt.Errorf("the history seems to be at its end: %v", page)
			}
			return err
		}, codes.OK},
		{"a query", 3 * time.Second, func(ctx context.Context) error {
			_, err := b.client.QueryWorkflow(ctx, &workflowservice.QueryWorkflowRequest{Namespace: orders, Execution: of, Query: &query.WorkflowQuery{QueryType: "state"}})
			return err
		}, codes.Unavailable},
		{"workflow tasks in the last second", 500 * time.Millisecond, func(ctx context.Context) error {
			_, err := b.client.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{Namespace: orders, TaskQueue: queue})
			return err
		}, codes.Unavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			until := in(test.life)
			token := k.token(t, until, nil)
			time.Sleep(time.Until(until.Add(-test.life)))
			err := test.call(as(t, token))
			if left := time.Until(until); status.Code(err) != test.want || left > 1500*time.Millisecond || left < -500*time.Millisecond {
				t.Errorf("%v before the token's end: %v; want %v", left, err, test.want)
			}
		})
	}
}

// provider is a client's credentials: tokens for a few seconds, each fetched when
// the last one has less than three seconds left.
type provider struct {
	fetch func(until time.Time) string

	mu      sync.Mutex
	token   string
	until   time.Time
	fetched int
}

func (p *provider) get(context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Until(p.until) < 3*time.Second {
		p.until = in(6 * time.Second)
		p.token = p.fetch(p.until)
		p.fetched++
	}
	return p.token, nil
}

// A worker and a client work on while their tokens come and go, and not one call of
// theirs fails.
func TestWorkerAcrossTokens(t *testing.T) {
	b := newBed(t)
	k := newTokens(t, b)
	p := &provider{fetch: func(until time.Time) string { return k.token(t, until, nil) }}
	var calls, polls atomic.Int64
	var failed sync.Map
	count := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, conn, opts...)
		switch code := status.Code(err); {
		case code != codes.OK && code != codes.Canceled:
			failed.Store(fmt.Sprintf("%s: %v", method, err), nil)
		case slices.Contains([]string{"/temporal.api.workflowservice.v1.WorkflowService/PollWorkflowTaskQueue", "/temporal.api.workflowservice.v1.WorkflowService/PollActivityTaskQueue"}, method):
			polls.Add(1)
		}
		calls.Add(1)
		return err
	}
	c, err := client.Dial(client.Options{HostPort: b.server.Frontend, Namespace: orders, Credentials: client.NewAPIKeyDynamicCredentials(p.get), Logger: silent{},
		ConnectionOptions: client.ConnectionOptions{TLSDisabled: true, DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := worker.New(c, "orders", worker.Options{})
	w.RegisterWorkflow(parent)
	w.RegisterWorkflow(child)
	w.RegisterActivity(activity)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	slow, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "slow", TaskQueue: "orders"}, parent)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- slow.Get(ctx, nil) }()
	for i := 0; p.rounds() < 4; i++ {
		run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "orders"}, child, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		var answer string
		if err := run.Get(ctx, &answer); err != nil || answer != fmt.Sprintf("packed %d", i) {
			t.Fatalf("%q, %v", answer, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	if err := c.SignalWorkflow(ctx, "slow", "", "order", "tea"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("whoever waited over %d tokens: %v", p.rounds(), err)
	}
	w.Stop()
	failed.Range(func(what, _ any) bool { t.Error(what); return true })
	t.Logf("%d calls, %d of them polls, with %d tokens", calls.Load(), polls.Load(), p.rounds())
	if polls.Load() < 10 {
		t.Error("the worker hardly polled")
	}
}

func (p *provider) rounds() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetched
}
