package temporal

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/api"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
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
	ctx, cancel := context.WithCancel(ctx)
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
	if !d.Until.IsZero() {
		timer := time.AfterFunc(time.Until(d.Until), cancel)
		defer timer.Stop()
	}
	resp, err := handler(ctx, req)
	// Also what arrived just before the cancellation is not for him any more.
	if d := p.decide(w.credential, w.method, w.namespace); !d.Allow {
		p.metrics.endedPolls.Inc()
		return nil, refusal(d)
	}
	return resp, err
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
