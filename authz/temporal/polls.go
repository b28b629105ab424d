package temporal

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/server/common/api"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// recheck is how often all polls are decided again without a change: a replica
// that grows too old makes none.
const recheck = 5 * time.Second

// polls are the calls that wait now.
type polls struct {
	mu   sync.Mutex
	open map[*poll]struct{}
}

type poll struct {
	credential replica.Credential
	method     string
	namespace  string
	cancel     context.CancelFunc
}

// interceptPoll ends a call that waits when its credential does. What the call
// was about to bring is not handed out then: a task stays for another worker.
func (p *Plugin) interceptPoll(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	claims, _ := ctx.Value(authorization.MappedClaims).(*authorization.Claims)
	c := callerOf(claims)
	if c == nil || !waits(info.FullMethod) {
		return handler(ctx, req)
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &poll{credential: c.credentialIn(ctx), method: info.FullMethod, cancel: cancel}
	if r, ok := req.(interface{ GetNamespace() string }); ok {
		w.namespace = r.GetNamespace()
	}
	p.polls.add(w)
	defer p.polls.remove(w)

	// A change between the authorizer's decision and add woke nobody.
	d := p.decide(w.credential, w.method, w.namespace)
	if !d.Allow {
		return nil, refusal(d)
	}
	until := d.Until
	waiting, stop := w.waitUntil(waiting, until)
	defer stop()
	resp, err := handler(waiting, req)
	// Also what arrived just before the cancellation is not for him any more.
	d = p.decide(w.credential, w.method, w.namespace)
	if !d.Allow {
		p.metrics.endedPolls.Inc()
	}
	switch {
	case w.credential.Kind == replica.Token && ctx.Err() == nil && time.Until(until) < handOver/2 && (!d.Allow || timedOut(err)):
		return nil, serviceerror.NewUnavailable(tokenEnds)
	case !d.Allow:
		return nil, refusal(d)
	}
	return resp, err
}

const (
	// handOver is how long before the end of a token the wait for tasks ends that was
	// begun with it. Tokens live for minutes only, and a worker's next poll brings a
	// new one: its polls end empty, as they do when there is nothing to do, and no task
	// is handed out that it could not get any more.
	handOver  = time.Second
	tokenEnds = "the token ends, with which this call waited; try again with a new one" // clients of Temporal do
)

// waitUntil has the wait end in time before the credential does; until is zero if
// it does not end by itself.
func (w *poll) waitUntil(ctx context.Context, until time.Time) (waiting context.Context, stop func()) {
	left := time.Until(until)
	switch {
	case until.IsZero():
		return ctx, func() {}
	case w.credential.Kind != replica.Token || left < 2*handOver:
	case takesTasks(w.method):
		left -= handOver
	default:
		return context.WithDeadline(ctx, until) // before which the server answers what it has
	}
	timer := time.AfterFunc(left, w.cancel)
	return ctx, func() { timer.Stop() }
}

// takesTasks reports whether the method waits for a task, and answers that there is
// none when it is cancelled.
func takesTasks(method string) bool {
	switch method {
	case api.WorkflowServicePrefix + "PollWorkflowTaskQueue",
		api.WorkflowServicePrefix + "PollActivityTaskQueue",
		api.WorkflowServicePrefix + "PollNexusTaskQueue":
		return true
	}
	return false
}

func timedOut(err error) bool {
	code := serviceerror.ToStatus(err).Code()
	return code == codes.DeadlineExceeded || code == codes.Canceled
}

// waits reports whether the method may wait for something to happen: what the
// server calls polling, and what waits for a worker's answer.
func waits(method string) bool {
	switch method {
	case api.WorkflowServicePrefix + "QueryWorkflow",
		api.WorkflowServicePrefix + "UpdateWorkflowExecution",
		api.WorkflowServicePrefix + "ExecuteMultiOperation":
		return true
	}
	polling := api.GetMethodMetadata(method).Polling
	return polling == api.PollingAlways || polling == api.PollingCapable
}

func (p *polls) add(w *poll) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[w] = struct{}{}
}

func (p *polls) remove(w *poll) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, w)
}

func (p *polls) all() []*poll {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*poll, 0, len(p.open))
	for w := range p.open {
		all = append(all, w)
	}
	return all
}

// watchPolls decides waiting polls again after each change, until ctx ends.
func (p *Plugin) watchPolls(ctx context.Context) {
	changes, stop := p.replica.Changes()
	defer stop()
	ticker := time.NewTicker(recheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
		case <-ticker.C:
		}
		for _, w := range p.polls.all() {
			if d := p.decide(w.credential, w.method, w.namespace); !d.Allow {
				w.cancel()
			}
		}
	}
}
