// Package clients_test runs public clients of Temporal Cloud's API, unchanged
// and from their own sources, against a sallyportd started for the test.
package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/cloudclient"
)

const (
	providerModule = "github.com/temporalio/terraform-provider-temporalcloud"
	providerSource = "https://" + providerModule
	repository     = "../.." // from this folder
)

// mustPass lists the provider's acceptance tests that need only what we serve.
// Those that the provider decides by itself are here too: they show that it runs.
func mustPass() []string {
	return []string{
		"TestAccBasicUser",
		"TestAccBasicUserWithNamespaceAccesses",
		"TestAccBasicUserWithEmptyNamespaceAccesses",
		"TestAccBasicUserWithDuplicateNamespaceAccesses",
		"TestAccBasicUserWithMultipleNamespaceAccesses",
		"TestAccDataSource_User",
		"TestAccUsers",

		"TestAccBasicServiceAccount",
		"TestAccBasicServiceAccount_Description",
		"TestAccBasicServiceAccountWithNamespaceAccesses",
		"TestAccBasicServiceAccountWithEmptyNamespaceAccesses",
		"TestAccBasicServiceAccountWithDuplicateNamespaceAccesses",
		"TestAccBasicServiceAccountOrderingNamespaceAccesses",
		"TestAccNamespaceScopedServiceAccount",
		"TestAccNamespaceScopedServiceAccountMutualExclusivity",
		"TestAccNamespaceScopedServiceAccountNamespaceAccessesConflict",
		"TestAccServiceAccountMissingAccessConfiguration",
		"TestAccDataSource_ServiceAccount",
		"TestAccDataSource_NamespaceScopedServiceAccount",
		"TestAccServiceAccounts",
		"TestAccServiceAccountsWithBothTypes",

		"TestAccBasicApiKey",
		"TestAccDisableApiKey",

		"TestAccGroup_Basic",
		"TestAccGroup_WithAccesses",
		"TestAccGroupMembers_Basic",
		"TestAccGroupAccess_Basic",
		"TestAccGroupAccess_WithNamespaceAccesses",
		"TestAccGroupAccess_WithEmptyNamespaceAccesses",
		"TestAccDataSource_SCIM_Group",

		"TestAccBasicNamespace",
		"TestAccBasicAzureNamespace",
		"TestAccBasicNamespaceWithApiKeyAuth",
		"TestAccBasicNamespaceWithCertFilters",
		"TestAccSpacesBetweenCertificateStrings",
		"TestAccNamespaceNameValidation",
		"TestAccNamespaceInvalidRegion",
		"TestAccNamespaceInvalidRegionAPIValidation",
		"TestAccNamespaceWithCodecServer",
		"TestAccNamespaceRenameForcesReplacement",
		"TestAccNamespaceImport",
		"TestAccNamespaceImportSearchAttribute",
		"TestAccNamespaceWithSearchAttributesUpdate",
		"TestAccNamespaceCapacityProvisionedOnCreateErrors",
		"TestAccNamespaceCapacityCannotBeUnset",
		"TestAccNamespaceWithFairness",
		"TestAccNamespaceFairnessCannotBeUnset",
		"TestAccNamespaceTagsResource_ValidationErrors",
		"TestAccDataSource_Namespace",
		"TestAccNamespaces",
		"TestAccRegion",
		"TestAccConnectivityRuleResource_ValidationErrors",
	}
}

// leftOut names the provider's other acceptance tests and why we do not run them.
func leftOut() map[string]string {
	const (
		rules = "connectivity rules are not served"
		nexus = "Nexus endpoints are not served"
		sinks = "export and audit log sinks are not served"
	)
	return map[string]string{
		"TestAccNamespaceWithSearchAttributes":             "RenameCustomSearchAttribute is not served",
		"TestAccNamespaceTagsResource":                     "UpdateNamespaceTags is not served",
		"TestAccNamespaceWithCapacity":                     "expects provisioned capacity to be delivered, which a namespace of ours does not have",
		"TestAccNamespaceWithConnectivityRuleIds":          rules,
		"TestAccConnectivityRuleResource_Public":           rules,
		"TestAccConnectivityRuleResource_Public_StableIps": rules,
		"TestAccConnectivityRuleResource_AWS_Private":      rules,
		"TestAccDataSource_ConnectivityRule_Public":        rules,
		"TestAccDataSource_ConnectivityRule_Private":       rules,
		"TestAccNexusEndpointResource":                     nexus,
		"TestAccDataSource_NexusEndpoint":                  nexus,
		"TestAccDataSource_NexusEndpoints":                 nexus,
		"TestAccNamespaceExportSink_S3":                    sinks,
		"TestAccNamespaceExportSink_GCS":                   sinks,
		"TestAccAccountAuditLogSink_Kinesis":               sinks,
		"TestAccAccountAuditLogSink_PubSub":                sinks,
	}
}

// TestTerraformProvider runs the acceptance tests of the public Terraform
// provider. It skips where the provider's source or terraform is missing.
func TestTerraformProvider(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not on PATH: the Terraform provider's acceptance tests DID NOT RUN")
	}
	binary := buildProvider(t, findProvider(t))
	checkNames(t, binary)

	server := startDev(t)
	seedSCIMGroup(t, server)
	results := runAcceptance(t, binary, terraform, server)
	for _, name := range mustPass() {
		t.Run(name, func(t *testing.T) {
			switch r := results[name]; {
			case r == nil || r.outcome == "":
				t.Fatal("did not run to its end")
			case r.outcome != "pass":
				t.Fatalf("%s:\n%s", r.outcome, r.output.String())
			default:
				t.Logf("passed in %.1f s", r.seconds)
			}
		})
	}
}

// findProvider returns the folder of the provider's source: the one that
// SALLYPORT_TERRAFORM_PROVIDER names (an absolute path), else
// .cache/terraform-provider.
func findProvider(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SALLYPORT_TERRAFORM_PROVIDER")
	named := dir != ""
	if !named {
		dir = filepath.Join(repository, ".cache", "terraform-provider")
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if errors.Is(err, os.ErrNotExist) && !named {
		t.Skipf("the Terraform provider's acceptance tests DID NOT RUN: get its source with `git clone %s .cache/terraform-provider`, or name a folder in SALLYPORT_TERRAFORM_PROVIDER", providerSource)
	}
	if err != nil {
		t.Fatalf("reading the provider's go.mod: %v", err)
	}
	if !bytes.HasPrefix(mod, []byte("module "+providerModule+"\n")) {
		t.Fatalf("%s is not the source of %s", dir, providerModule)
	}
	return dir
}

// acceptanceBinary is the provider's compiled tests and the folder they run in.
type acceptanceBinary struct{ path, dir string }

func buildProvider(t *testing.T, source string) acceptanceBinary {
	t.Helper()
	b := acceptanceBinary{filepath.Join(t.TempDir(), "provider.test"), filepath.Join(source, "internal", "provider")}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", b.path, ".")
	build.Dir = b.dir
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the provider's tests: %v\n%s", err, out)
	}
	return b
}

// checkNames fails when the provider has an acceptance test that the lists
// above do not know, or lacks one that they name.
func checkNames(t *testing.T, b acceptanceBinary) {
	t.Helper()
	list := exec.CommandContext(t.Context(), b.path, "-test.list", "^TestAcc[A-Z]")
	list.Dir = b.dir
	out, err := list.Output()
	if err != nil {
		t.Fatalf("listing the provider's tests: %v", err)
	}
	got := strings.Fields(string(out))
	known := append(slices.Collect(maps.Keys(leftOut())), mustPass()...)
	for _, name := range got {
		if !slices.Contains(known, name) {
			t.Errorf("%s is new in the provider: add it to mustPass or, with a reason, to leftOut", name)
		}
	}
	for _, name := range known {
		if !slices.Contains(got, name) {
			t.Errorf("%s is no longer in the provider: remove it here", name)
		}
	}
}

// result is what one acceptance test came to.
type result struct {
	outcome string // "pass", "fail", "skip"; "" when it did not end
	seconds float64
	output  strings.Builder
}

// runAcceptance runs the tests of mustPass in one process, several at a time.
func runAcceptance(t *testing.T, b acceptanceBinary, terraform string, server dev) map[string]*result {
	t.Helper()
	run := exec.CommandContext(server.ended, "go", "tool", "test2json", "-t", b.path,
		"-test.run", "^("+strings.Join(mustPass(), "|")+")$",
		"-test.v=test2json", "-test.parallel", "6", "-test.timeout", "15m")
	run.Dir = b.dir
	// Without a server each test would go on retrying for minutes. The group is
	// go, test2json, the tests and their terraforms.
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	run.Env = append(withoutClientSettings(os.Environ()),
		"TF_ACC=1",
		"TF_ACC_TERRAFORM_PATH="+terraform,
		"TF_CLI_CONFIG_FILE="+os.DevNull,
		"CHECKPOINT_DISABLE=1", // no call home for newer versions
		"TEMPORAL_CLOUD_ENDPOINT="+server.Plaintext,
		"TEMPORAL_CLOUD_ALLOW_INSECURE=true",
		"TEMPORAL_CLOUD_API_KEY="+server.Key,
	)
	var stderr bytes.Buffer
	run.Stderr = &stderr
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatalf("starting the provider's tests: %v", err)
	}
	results := collect(t, stdout)
	// A failed test is an error here too; it is reported under its own name.
	if err := run.Wait(); err != nil && len(results) == 0 {
		t.Fatalf("running the provider's tests: %v\n%s", err, stderr.String())
	}
	if server.ended.Err() != nil {
		t.Errorf("sallyportd ended under the tests: %v", context.Cause(server.ended))
	}
	return results
}

// collect reads test2json's events until the stream ends.
func collect(t *testing.T, events io.Reader) map[string]*result {
	t.Helper()
	results := map[string]*result{}
	for decoder := json.NewDecoder(events); ; {
		var event struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return results
		} else if err != nil {
			t.Errorf("reading the provider's results: %v", err)
			return results
		}
		if event.Test == "" {
			continue
		}
		r := results[event.Test]
		if r == nil {
			r = &result{}
			results[event.Test] = r
		}
		switch event.Action {
		case "output":
			r.output.WriteString(event.Output)
		case "pass", "fail", "skip":
			r.outcome, r.seconds = event.Action, event.Elapsed
		}
	}
}

// withoutClientSettings drops what would change where the provider or terraform look.
func withoutClientSettings(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "TF_") || strings.HasPrefix(v, "TEMPORAL_")
	})
}

// seedSCIMGroup makes the group that four of the tests look for.
func seedSCIMGroup(t *testing.T, server dev) {
	t.Helper()
	client, err := cloudclient.New(cloudclient.Options{HostPort: server.Plaintext, AllowInsecure: true, APIKey: server.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.CloudService().CreateUserGroup(t.Context(), &cloudservice.CreateUserGroupRequest{
		Spec: &identity.UserGroupSpec{
			DisplayName: "scim_test",
			GroupType:   &identity.UserGroupSpec_ScimGroup{ScimGroup: &identity.SCIMGroupSpec{IdpId: "tf-basic-scim-group"}},
		},
	})
	if err != nil {
		t.Fatalf("making the SCIM group: %v", err)
	}
}

// dev is a running `sallyportd dev`, as its ready file describes it.
type dev struct {
	GRPC      string // host:port, TLS by the certificate in CA
	Plaintext string // host:port, the same gRPC services without TLS
	HTTP      string // URL
	CA        string // file
	Account   string
	Key       string // of the account's first owner

	ended context.Context // done when the process has ended; its cause says how
}

// startDev builds sallyportd, starts it on free ports with a data folder of its
// own, and stops it when the test ends.
func startDev(t *testing.T) dev {
	t.Helper()
	// Not t.TempDir: PostgreSQL does not run as root and must be able to pass
	// through, and its socket's path must stay below 100 bytes.
	dir, err := os.MkdirTemp("", "sp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	binary, ready := filepath.Join(dir, "sallyportd"), filepath.Join(dir, "ready.json")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/sallyportd")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building sallyportd: %v\n%s", err, out)
	}

	var log bytes.Buffer // read only after the process has ended
	server := exec.Command(binary, "dev", "--data", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--plaintext-listen", "127.0.0.1:0", "--ready-file", ready)
	server.Stdout, server.Stderr = &log, &log
	server.WaitDelay = 5 * time.Second // for a child that outlives it and holds the pipe
	if err := server.Start(); err != nil {
		t.Fatalf("starting sallyportd: %v", err)
	}
	ended, end := context.WithCancelCause(context.Background())
	go func() { end(server.Wait()) }()
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended.Done():
		case <-time.After(20 * time.Second):
			server.Process.Kill()
			<-ended.Done()
			t.Error("sallyportd did not stop within 20 s of SIGTERM")
		}
		if t.Failed() {
			t.Logf("sallyportd's log:\n%s", log.String())
		}
	})
	return waitReady(t, ended, ready)
}

// waitReady returns the content of the ready file as soon as it is whole.
func waitReady(t *testing.T, ended context.Context, file string) dev {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		var d dev
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &d) == nil {
			d.ended = ended
			return d
		}
		select {
		case <-ended.Done():
			t.Fatalf("sallyportd ended early: %v", context.Cause(ended))
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("sallyportd was not ready within a minute")
	return dev{}
}
