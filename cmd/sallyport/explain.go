package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type explainCommand struct {
	Method    string `help:"The gRPC method: StartWorkflowExecution, OperatorService/ListSearchAttributes, or in full." required:"" placeholder:"METHOD"`
	Namespace string `help:"The namespace that the call names. Empty: none." placeholder:"NAMESPACE"`
	Key       string `help:"Id of the key. Empty: the key or certificate that is logged in with." xor:"key" placeholder:"ID"`
	KeyFile   string `help:"File with a whole key, to check what a client really sends." xor:"key" placeholder:"FILE"`
}

// Run asks what an authorizer that holds the newest state would decide.
func (c *explainCommand) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request := &adminv1.ExplainRequest{Namespace: client.fullName(c.Namespace), KeyId: c.Key}
	if request.Method, err = fullMethod(c.Method); err != nil {
		return err
	}
	switch {
	case c.KeyFile != "":
		token, err := readKeyFile(c.KeyFile)
		if err != nil {
			return err
		}
		request.Token = token.Reveal()
	case c.Key == "" && client.pair != nil:
		request.Certificate = chainPEM(client.pair.Certificate)
	case c.Key == "":
		request.KeyId = client.keyID
	}
	return s.explain(ctx, client, request)
}

// explain asks and shows the answer; exitDenied if it is no.
func (s *session) explain(ctx context.Context, client *client, request *adminv1.ExplainRequest) error {
	decision, err := client.admin.Explain(ctx, request)
	if err != nil {
		return err
	}
	if err := s.show(decision, func() error { return s.decision(request, decision) }); err != nil {
		return err
	}
	if !decision.GetAllowed() {
		return exitDenied
	}
	return nil
}

func (s *session) decision(r *adminv1.ExplainRequest, d *adminv1.ExplainResponse) error {
	answer := "allowed"
	if !d.GetAllowed() {
		answer = "denied (" + d.GetKind() + ")"
	}
	grant, principal, revision := "", "", ""
	if g := d.GetGrant(); g != nil {
		grant = fmt.Sprintf("%s on %s %s, held by %s", g.GetRole(), g.GetScope(), g.GetTarget(), g.GetSubject())
	}
	if d.GetPrincipalId() != "" {
		principal = d.GetPrincipalKind() + " " + d.GetPrincipalId()
	}
	if h := d.GetHead(); h.GetRevision() > 0 {
		revision = fmt.Sprintf("%d (epoch %d)", h.GetRevision(), h.GetEpoch())
	}
	return s.fields([2]string{"answer", answer}, [2]string{"reason", d.GetReason()}, [2]string{"method", r.GetMethod()},
		[2]string{"namespace", r.GetNamespace()}, [2]string{"principal", principal}, [2]string{"key", d.GetKeyId()}, [2]string{"certificate", d.GetCertificateFingerprint()},
		[2]string{"grant", grant}, [2]string{"revision", revision}, [2]string{"until", moment(d.GetUntil())})
}

// fullMethod completes a method's name with Temporal's packages. Names in full
// stay as they are.
func fullMethod(name string) (string, error) {
	packages := map[string]string{
		"WorkflowService": "temporal.api.workflowservice.v1.",
		"OperatorService": "temporal.api.operatorservice.v1.",
		"AdminService":    "temporal.server.api.adminservice.v1.",
	}
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	switch {
	case !ok:
		service, method = "WorkflowService", service
	case strings.Contains(service, "."):
		return "/" + service + "/" + method, nil
	}
	if packages[service] == "" || method == "" || strings.ContainsAny(method, "./ ") {
		return "", errors.New("give --method as StartWorkflowExecution, as OperatorService/ListSearchAttributes, or in full as /temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution")
	}
	return "/" + packages[service] + service + "/" + method, nil
}
