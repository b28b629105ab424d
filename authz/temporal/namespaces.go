package temporal

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Keys of what is kept in a Temporal namespace's data. A namespace without the
// first one was not made here and is never touched.
const (
	dataNamespace = "sallyport.namespace_id"
	dataHead      = "sallyport.head"  // epoch.revision of the account at which it existed: when it was registered, or later
	dataSince     = "sallyport.since" // when, RFC 3339
)

// registered is a namespace that the server has.
type registered struct {
	name      string
	temporal  string // the server's id
	namespace sallyport.NamespaceID
	account   sallyport.AccountID
	retention time.Duration
	head      sallyport.Head
	since     time.Time
	settles   time.Time // zero: the server's caches know it
}

// list reads all that the server has.
func (r *reconciler) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	last := r.known.Load()
	next := &known{byName: map[string]registered{}, byID: map[string]string{}, endpoints: map[string]string{}}
	for token := []byte(nil); ; {
		page, err := r.frontend.ListNamespaces(ctx, &workflowservice.ListNamespacesRequest{PageSize: 1000, NextPageToken: token})
		if err != nil {
			return fmt.Errorf("listing the server's namespaces: %w", err)
		}
		for _, described := range page.GetNamespaces() {
			next.add(describe(described), last)
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	for token := []byte(nil); ; {
		page, err := r.operator.ListNexusEndpoints(ctx, &operatorservice.ListNexusEndpointsRequest{PageSize: 100, NextPageToken: token})
		if err != nil {
			return fmt.Errorf("listing the server's Nexus endpoints: %w", err)
		}
		for _, e := range page.GetEndpoints() {
			next.endpoints[e.GetSpec().GetName()] = e.GetSpec().GetTarget().GetWorker().GetNamespace()
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	r.known.Store(next)
	return nil
}

// add puts a namespace in. When last had another one of the name or none, the
// server's caches may still, too.
func (k *known) add(ns registered, last *known) {
	if last != nil {
		before, ok := last.byName[ns.name]
		switch {
		case !ok:
			ns.settles = time.Now().Add(missTime)
		case before.temporal == ns.temporal:
			ns.settles = before.settles
		default:
			ns.settles = time.Now().Add(settleTime)
		}
	}
	k.byName[ns.name] = ns
	if ns.namespace != "" {
		k.byID[ns.temporal] = ns.name
	}
}

func describe(d *workflowservice.DescribeNamespaceResponse) registered {
	info := d.GetNamespaceInfo()
	ns := registered{
		name:      info.GetName(),
		temporal:  info.GetId(),
		namespace: sallyport.NamespaceID(info.GetData()[dataNamespace]),
		account:   sallyport.AccountID(info.GetName()[strings.LastIndexByte(info.GetName(), '.')+1:]),
		retention: d.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(),
	}
	epoch, revision, _ := strings.Cut(info.GetData()[dataHead], ".")
	ns.head.Epoch, _ = strconv.ParseInt(epoch, 10, 64)
	ns.head.Revision, _ = strconv.ParseInt(revision, 10, 64)
	ns.since, _ = time.Parse(time.RFC3339, info.GetData()[dataSince])
	return ns
}

func formatHead(head sallyport.Head) string {
	return fmt.Sprintf("%d.%d", head.Epoch, head.Revision)
}

func retention(ns replica.Namespace) time.Duration {
	return time.Duration(max(ns.RetentionDays, 1)) * 24 * time.Hour
}

// register makes the namespace, or learns of the one that another server made
// in the meantime.
func (r *reconciler) register(ctx context.Context, ns replica.Namespace, head sallyport.Head) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := r.frontend.RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        ns.FullName,
		Description:                      "made by Sallyport; change it there",
		WorkflowExecutionRetentionPeriod: durationpb.New(retention(ns)),
		Data: map[string]string{
			dataNamespace: string(ns.ID),
			dataHead:      formatHead(head),
			dataSince:     time.Now().UTC().Format(time.RFC3339),
		},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("registering namespace %s: %w", ns.FullName, err)
	}
	if err == nil {
		r.metrics.reconciled.WithLabelValues("register").Inc()
		r.logger.Info("namespace registered", "namespace", ns.FullName)
	}
	described, err := r.frontend.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: ns.FullName})
	if err != nil {
		return fmt.Errorf("looking at namespace %s after registering it: %w", ns.FullName, err)
	}
	last := *r.known.Load()
	if was, ok := r.freed[ns.FullName]; ok {
		delete(r.freed, ns.FullName)
		last.byName = map[string]registered{ns.FullName: was}
	}
	r.change(func(k *known) { k.add(describe(described), &last) })
	return nil
}

// update corrects the namespace and, where a head is given, notes that it
// existed at it.
func (r *reconciler) update(ctx context.Context, ns replica.Namespace, head sallyport.Head) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &workflowservice.UpdateNamespaceRequest{
		Namespace: ns.FullName,
		Config:    &namespace.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(retention(ns))},
	}
	if head != (sallyport.Head{}) {
		req.UpdateInfo = &namespace.UpdateNamespaceInfo{Data: map[string]string{dataHead: formatHead(head)}} // the rest stays
	}
	if _, err := r.frontend.UpdateNamespace(ctx, req); err != nil {
		return fmt.Errorf("updating namespace %s: %w", ns.FullName, err)
	}
	r.metrics.reconciled.WithLabelValues("update").Inc()
	r.logger.Info("namespace updated", "namespace", ns.FullName, "retention", retention(ns))
	r.change(func(k *known) {
		has := k.byName[ns.FullName]
		has.retention = retention(ns)
		if head != (sallyport.Head{}) {
			has.head = head
		}
		k.byName[ns.FullName] = has
	})
	return nil
}

// delete removes the namespace by the server's id, so that a successor of the
// same name that another server has registered already is left alone. The name
// is free when it returns.
func (r *reconciler) delete(ctx context.Context, has registered) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var successor *workflowservice.DescribeNamespaceResponse
	for {
		_, err := r.operator.DeleteNamespace(ctx, &operatorservice.DeleteNamespaceRequest{NamespaceId: has.temporal})
		if err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("deleting namespace %s: %w", has.name, err)
		}
		// The server runs one deletion by id at a time and may have answered for
		// another server's.
		successor, err = r.frontend.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: has.name})
		if err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("looking at namespace %s after deleting it: %w", has.name, err)
		}
		if successor.GetNamespaceInfo().GetId() != has.temporal {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("deleting namespace %s: it is still there", has.name)
		case <-time.After(deleteAgain):
		}
	}
	r.freed[has.name] = has
	delete(r.seen, has.namespace)
	r.metrics.reconciled.WithLabelValues("delete").Inc()
	r.logger.Info("namespace deleted", "namespace", has.name)
	last := r.known.Load()
	r.change(func(k *known) {
		delete(k.byID, has.temporal)
		delete(k.byName, has.name)
		if successor != nil {
			k.add(describe(successor), last)
		}
	})
	return nil
}
