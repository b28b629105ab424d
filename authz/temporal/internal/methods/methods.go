// Package methods derives from the Temporal server's own tables what each of
// its methods needs. The result is checked in as authz/temporal_methods.go, so
// that programs that decide need nothing of the server.
package methods

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/api/adminservice/v1"
	"go.temporal.io/server/common/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

// Need is an authz.Need as Go source.
type Need struct {
	Scope      string
	Permission string
}

var (
	open          = Need{"Open", "NoPermission"}
	read          = Need{"Namespace", "PermissionRead"}
	write         = Need{"Namespace", "PermissionWrite"}
	controlPlane  = Need{"ControlPlane", "PermissionAdmin"}
	authenticated = Need{"Cluster", "NoPermission"}
	nobody        = Need{"Cluster", "PermissionAdmin"}
)

// exceptions are where Temporal Cloud differs from the server's metadata.
func exceptions() map[string]Need {
	return map[string]Need{
		// Cloud counts waiting for a result as write.
		api.WorkflowServicePrefix + "PollActivityExecution":       write,
		api.WorkflowServicePrefix + "PollWorkflowExecutionUpdate": write,
		// Clients ask for it before they have shown a credential.
		api.WorkflowServicePrefix + "GetSystemInfo": open,
		// Nothing of any tenant is in these; ListNamespaces is answered with what
		// the caller may read.
		api.WorkflowServicePrefix + "GetClusterInfo":      authenticated,
		api.WorkflowServicePrefix + "GetSearchAttributes": authenticated,
		api.WorkflowServicePrefix + "ListNamespaces":      authenticated,
	}
}

// Services are those that the server's frontend registers.
func Services() []grpc.ServiceDesc {
	return []grpc.ServiceDesc{
		workflowservice.WorkflowService_ServiceDesc,
		operatorservice.OperatorService_ServiceDesc,
		adminservice.AdminService_ServiceDesc,
		grpc_health_v1.Health_ServiceDesc,
		grpc_reflection_v1.ServerReflection_ServiceDesc,
		grpc_reflection_v1alpha.ServerReflection_ServiceDesc,
	}
}

// Table gives the need of every method of Services and of the names under
// which the server authorises Nexus calls. A method whose metadata the server
// does not have is an error: somebody has to decide.
func Table() (map[string]Need, error) {
	table := map[string]Need{}
	var problems []error
	add := func(method string) {
		need, err := needOf(method)
		if err != nil {
			problems = append(problems, err)
		}
		table[method] = need
	}
	for _, service := range Services() {
		for _, m := range service.Methods {
			add("/" + service.ServiceName + "/" + m.MethodName)
		}
		for _, s := range service.Streams {
			add("/" + service.ServiceName + "/" + s.StreamName)
		}
	}
	nexus, err := nexusMethods()
	if err != nil {
		return nil, err
	}
	for _, name := range nexus {
		add(api.NexusServicePrefix + name)
	}
	for method := range exceptions() {
		if _, ok := table[method]; !ok {
			problems = append(problems, fmt.Errorf("the exception %s is no method of the server", method))
		}
	}
	return table, errors.Join(problems...)
}

func needOf(method string) (Need, error) {
	if need, ok := exceptions()[method]; ok {
		return need, nil
	}
	switch {
	case strings.HasPrefix(method, "/"+grpc_health_v1.Health_ServiceDesc.ServiceName+"/"):
		return open, nil
	case strings.HasPrefix(method, "/grpc.reflection."):
		return nobody, nil
	}
	switch m := api.GetMethodMetadata(method); {
	case m.Scope == api.ScopeCluster:
		return nobody, nil
	case m.Scope == api.ScopeNamespace && m.Access == api.AccessReadOnly:
		return read, nil
	case m.Scope == api.ScopeNamespace && m.Access == api.AccessWrite:
		return write, nil
	case m.Scope == api.ScopeNamespace && m.Access == api.AccessAdmin:
		return controlPlane, nil
	}
	return nobody, fmt.Errorf("the server has no metadata for %s: decide what it needs in exceptions", method)
}

// nexusMethods reads the names from the server's source, since its table of
// them is not exported and they are no gRPC service.
func nexusMethods() ([]string, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "go.temporal.io/server/common/api").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the server's source: %w", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "metadata.go"), nil, 0)
	if err != nil {
		return nil, err
	}
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || spec.Names[0].Name != "nexusServiceMetadata" || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.CompositeLit); ok {
			for _, e := range lit.Elts {
				names = append(names, literalKey(e))
			}
		}
		return false
	})
	if len(names) == 0 || slices.Contains(names, "") {
		return nil, errors.New("nexusServiceMetadata of the server's common/api is not what it was: look at it")
	}
	return names, nil
}

func literalKey(e ast.Expr) string {
	kv, ok := e.(*ast.KeyValueExpr)
	if !ok {
		return ""
	}
	key, ok := kv.Key.(*ast.BasicLit)
	if !ok {
		return ""
	}
	name, _ := strconv.Unquote(key.Value)
	return name
}

// Source is the Go file that holds the table.
func Source() ([]byte, error) {
	table, err := Table()
	if err != nil {
		return nil, err
	}
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "go.temporal.io/server").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the server's version: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by authz/temporal/internal/genmethods from go.temporal.io/server %s. DO NOT EDIT.\n\n", bytes.TrimSpace(version))
	b.WriteString("package authz\n\nimport \"github.com/sallyport-iam/sallyport\"\n\nvar temporalMethods = map[string]Need{\n")
	for _, method := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintf(&b, "%q: {%s, sallyport.%s},\n", method, table[method].Scope, table[method].Permission)
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}
