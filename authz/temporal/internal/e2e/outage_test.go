package e2e_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/sdk/client"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/stack"
)

// With the service killed the server goes on deciding, also after its own
// restart; when the service is back, changes arrive; and a database restored to
// an older state un-revokes nothing until the operator says that it is right.
func TestOutageAndRestore(t *testing.T) {
	if noStack != "" {
		t.Skip(noStack)
	}
	dir, err := os.MkdirTemp("/tmp", "sallyport-outage-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	metrics := freeAddress(t)
	own, err := startIn(t.Context(), dir, true, "--metrics-listen", metrics, "--namespace-grace", "1s")
	if own != nil {
		t.Cleanup(func() { own.Stop() })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			printLogs(dir)
		}
	})
	w := newWorld(t, own)
	ctx := t.Context()
	_, readerID, reader := w.serviceAccount("reader", identity.NamespaceAccess_PERMISSION_READ)
	customers, managed, managedID := w.mtls(newCA(t, "acme"))
	revokedID, revoked, err := w.IssueCertificate(ctx, w.cloud, w.account)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Revoke(ctx, w.cloud, &adminv1.RevokeRequest{CertificateId: revokedID}); err != nil {
		t.Fatal(err)
	}

	decides := func(when string) {
		t.Helper()
		if err := w.start(w.fresh(w.key), "q", "good "+when); err != nil {
			t.Errorf("%s, a good key: %v", when, err)
		}
		refused(t, w.start(w.fresh(reader), "q", "bad "+when), "write")
		refused(t, w.start(w.fresh(""), "q", "bad "+when), "API key")
		for kind, certificate := range map[string]*tls.Certificate{"customer's": customers, "managed": managed} {
			if err := w.start(w.clientTLS(certificate), "q", kind+" "+when); err != nil {
				t.Errorf("%s, a %s certificate: %v", when, kind, err)
			}
		}
		refused(t, w.start(w.clientTLS(revoked), "q", "revoked "+when), "revoked")
	}
	decides("with everything well")

	if err := own.StopSallyport(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	decides("with the service killed")
	if err := own.StopServer(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := own.StartServer(deadline(t)); err != nil {
		t.Fatal(err)
	}
	decides("with the service killed and the server restarted")

	if err := own.StartSallyport(deadline(t)); err != nil {
		t.Fatal(err)
	}
	backup(t, own, filepath.Join(dir, "backup"))
	if _, err := stack.CreateNamespace(ctx, w.cloud, "since-the-backup"); err != nil {
		t.Fatal(err)
	}
	awaitMetric(t, metrics, `sallyport_temporal_namespace_changes_total{action="register"}`, "1") // since the server's restart
	if _, err := stack.DeleteKey(ctx, w.cloud, w.keyID); err != nil {
		t.Fatal(err)
	}
	awaitRefusal(t, w, w.key)
	if _, err := stack.DeleteKey(ctx, w.cloud, readerID); err != nil {
		t.Fatal(err)
	}
	awaitRefusal(t, w, reader)
	if _, err := w.Revoke(ctx, w.cloud, &adminv1.RevokeRequest{CertificateId: managedID}); err != nil {
		t.Fatal(err)
	}
	refused(t, w.start(w.clientTLS(managed), "q", "revoked"), "revoked")

	restore(t, own, filepath.Join(dir, "backup"))
	time.Sleep(3 * time.Second) // longer than the authorizer needs to be back
	refused(t, w.start(w.fresh(w.key), "q", "restored"), "key")
	refused(t, w.start(w.clientTLS(managed), "q", "restored"), "revoked")
	_, madeAfter, err := stack.CreateKey(ctx, w.cloud, w.account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if err := w.start(w.fresh(madeAfter), "q", "too early"); err == nil {
		t.Error("a key that only the restored history knows was let in beside the older history")
	}

	out, err := exec.CommandContext(ctx, filepath.Join(programs, "sallyportd"), "account", "new-epoch", own.Sallyport.Account,
		"--data", filepath.Dir(own.Sallyport.KeyFile), "--reason", "restored a backup").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	began := time.Now()
	for w.start(w.fresh(madeAfter), "q", "new epoch") != nil {
		if time.Since(began) > 15*time.Second {
			t.Fatal("the operator's word did not arrive in 15 s")
		}
		time.Sleep(100 * time.Millisecond)
	}

	// What was made since the backup is kept for the operator.
	awaitMetric(t, metrics, "sallyport_temporal_namespace_conflicts", "1")
	time.Sleep(3 * time.Second) // longer than the grace
	if deleted := metric(t, metrics, `sallyport_temporal_namespace_changes_total{action="delete"}`); deleted != "" {
		t.Errorf("%s namespaces were deleted after a restore", deleted)
	}
}

func awaitMetric(t *testing.T, address, name, want string) {
	t.Helper()
	for began := time.Now(); metric(t, address, name) != want; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 15*time.Second {
			t.Fatalf("%s is %q after 15 s, want %q", name, metric(t, address, name), want)
		}
	}
}

// metric gives a metric's value, "" if it has none.
func metric(t *testing.T, address, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// freeAddress is one on loopback where nobody listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// fresh is a client whose connection was not open during an outage.
func (w *world) fresh(key string) client.Client { return w.client(key) }

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func awaitRefusal(t *testing.T, w *world, key string) {
	t.Helper()
	began := time.Now()
	for {
		_, err := w.fresh(key).DescribeWorkflowExecution(t.Context(), "x", "")
		if err != nil && isDenial(err) {
			return
		}
		if time.Since(began) > 15*time.Second {
			t.Fatalf("a revocation did not arrive in 15 s after the service came back: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// backup copies the stopped database, and starts it again.
func backup(t *testing.T, s *stack.Stack, to string) {
	t.Helper()
	if err := s.StopSallyport(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	copyTree(t, filepath.Join(filepath.Dir(s.Sallyport.KeyFile), "postgres"), to)
	if err := s.StartSallyport(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

func restore(t *testing.T, s *stack.Stack, from string) {
	t.Helper()
	if err := s.StopSallyport(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(filepath.Dir(s.Sallyport.KeyFile), "postgres")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	copyTree(t, from, data)
	if err := s.StartSallyport(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying: %v\n%s", err, out)
	}
}
