package temporal

import (
	"context"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/api"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/nexus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	noClaims          = "the call has no claims of Sallyport's claim mapper: the server is set up without it"
	unknownID         = "no namespace with this id that you may read; describe it by its name, <name>.<account>"
	noEndpoint        = "no Nexus endpoint of this name whose namespace you may write to"
	beingSetUp        = "the namespace is being set up on this server; try again in a second"
	takenByHand       = "the namespace is not set up on this server, which has one of the same name that was made by hand: its operator has to remove that one"
	takenByOld        = "the namespace is not set up on this server, which keeps an older one of the same name after a restore of the access service: its operator has to remove that one"
	takenFor          = "the namespace is not set up on this server yet, which keeps an older one of the same name until %s: wait, or ask its operator to remove that one"
	setUpFails        = "setting up the namespace on this server fails; it is tried again now and then, and its operator finds the cause in the server's log"
	setUpRefused      = "the namespace is not set up on this server, which refuses to do so or to remove an older one of the same name: its operator finds the cause in the server's log"
	describeNamespace = api.WorkflowServicePrefix + "DescribeNamespace"
	dispatchEndpoint  = api.NexusServicePrefix + "DispatchByEndpoint"
)

// Authorize decides one call. A refusal is an error that holds the reason, of
// code Unauthenticated, PermissionDenied or (not a denial) Unavailable or, where
// the server's operator has to act first, FailedPrecondition.
func (p *Plugin) Authorize(ctx context.Context, claims *authorization.Claims, target *authorization.CallTarget) (authorization.Result, error) {
	if isServer(claims) {
		return authorization.Result{
			Decision:  authorization.DecisionAllow,
			Principal: &common.Principal{Type: claims.AuthType, Name: claims.Subject},
		}, nil
	}
	c := callerOf(claims)
	if c == nil {
		return refuse(replica.Decision{Kind: sallyport.PermissionDenied, Reason: noClaims}, target)
	}
	d := p.authorize(c.credentialIn(ctx), target)
	p.metrics.observe(d)
	if !d.Allow {
		return refuse(d, target)
	}
	result := authorization.Result{Decision: authorization.DecisionAllow, Reason: d.Reason}
	if d.Principal.ID != "" {
		result.Principal = &common.Principal{Type: string(d.Principal.Kind), Name: d.Principal.ID}
	}
	return result, nil
}

func (p *Plugin) authorize(credential replica.Credential, target *authorization.CallTarget) replica.Decision {
	namespace := target.Namespace
	elsewhere := credential
	elsewhere.Name = "" // what a call brings about elsewhere may be in any namespace
	if derived(target) {
		credential = elsewhere
	}
	if r, ok := target.Request.(*workflowservice.DescribeNamespaceRequest); ok && namespace == "" && r.GetId() != "" {
		if namespace = p.reconciler.nameOf(r.GetId()); namespace == "" {
			return p.without(credential, target.APIName, unknownID)
		}
		return instead(p.ask(credential, target.APIName, namespace), credential, unknownID)
	}
	d := p.ask(credential, target.APIName, namespace)
	if !d.Allow {
		return d
	}
	for _, endpoint := range endpointsOf(target.Request) {
		if endpoint == nexus.SystemEndpoint {
			continue // the server itself lets it reach the caller's namespace only
		}
		// The server delivers the operation in its own name: here is the only
		// place where the caller's right to call the endpoint can be asked for.
		targetNamespace := p.reconciler.namespaceOfEndpoint(endpoint)
		if targetNamespace == "" {
			d.Allow, d.Kind, d.Reason = false, sallyport.PermissionDenied, noEndpoint
			return d
		}
		if n := p.ask(elsewhere, dispatchEndpoint, targetNamespace); !n.Allow {
			return instead(n, elsewhere, noEndpoint)
		}
	}
	return d
}

// derived reports whether the target's namespace is not the one that the client
// called: that of a command of its workflow, or of a Nexus endpoint.
func derived(target *authorization.CallTarget) bool {
	if target.APIName == dispatchEndpoint {
		return true
	}
	r, ok := target.Request.(interface{ GetNamespace() string })
	return ok && r.GetNamespace() != target.Namespace
}

// ask decides a call that a client made, and notes what it brought along.
func (p *Plugin) ask(credential replica.Credential, method, namespace string) replica.Decision {
	now := time.Now()
	d := p.replica.Decide(credential, method, namespace, now)
	p.replica.MarkUsed(d, now)
	return p.obstructed(d, namespace)
}

// decide is ask for what is not a call of its own: nothing is noted.
func (p *Plugin) decide(credential replica.Credential, method, namespace string) replica.Decision {
	return p.obstructed(p.replica.Decide(credential, method, namespace, time.Now()), namespace)
}

// obstructed denies what the server does not have: the namespace that the
// replica means.
func (p *Plugin) obstructed(d replica.Decision, namespace string) replica.Decision {
	if d.Allow && d.Namespace != "" {
		if o := p.reconciler.obstacle(namespace, d.Namespace); o.kind != "" {
			d.Allow, d.Kind, d.Reason = false, o.kind, o.reason
		}
	}
	return d
}

// without is the decision about something that does not exist for the caller:
// what is wrong with his credential comes first.
func (p *Plugin) without(credential replica.Credential, method, reason string) replica.Decision {
	d := p.replica.Decide(credential, method, "", time.Now())
	if d.Allow {
		d.Allow, d.Kind = false, sallyport.PermissionDenied
	}
	return instead(d, credential, reason)
}

// instead is the decision with a reason that does not tell the namespace's name,
// which is not the caller's to learn. What is wrong with a certificate is a
// matter of the namespace, too.
func instead(d replica.Decision, credential replica.Credential, reason string) replica.Decision {
	switch {
	case d.Kind == sallyport.PermissionDenied:
		d.Reason = reason
	case d.Kind == sallyport.Unauthenticated && credential.Kind == replica.Certificate:
		d.Kind, d.Reason = sallyport.PermissionDenied, reason
	}
	return d
}

// endpointsOf are the Nexus endpoints that the request would have called.
func endpointsOf(request any) []string {
	var endpoints []string
	switch r := request.(type) {
	case *workflowservice.StartNexusOperationExecutionRequest:
		endpoints = append(endpoints, r.GetEndpoint())
	case *workflowservice.RespondWorkflowTaskCompletedRequest:
		for _, c := range r.GetCommands() {
			if c.GetCommandType() == enums.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION {
				endpoints = append(endpoints, c.GetScheduleNexusOperationCommandAttributes().GetEndpoint())
			}
		}
	}
	return endpoints
}

// refuse gives the reason in both ways that the server passes on. A stream's
// error it passes on as it is, so that one has to be a gRPC status already.
func refuse(d replica.Decision, target *authorization.CallTarget) (authorization.Result, error) {
	err := refusal(d)
	if target.Request == nil {
		err = serviceerror.ToStatus(err).Err()
	}
	return authorization.Result{Decision: authorization.DecisionDeny, Reason: d.Reason}, err
}

// refusal is the error of a decision that does not allow.
func refusal(d replica.Decision) error {
	switch d.Kind {
	case sallyport.Unauthenticated:
		return status.Error(codes.Unauthenticated, d.Reason)
	case sallyport.Unavailable:
		return serviceerror.NewUnavailable(d.Reason)
	case sallyport.Conflict: // not for clients to try again
		return serviceerror.NewFailedPrecondition(d.Reason)
	default:
		return serviceerror.NewPermissionDenied(d.Reason, d.Reason)
	}
}
