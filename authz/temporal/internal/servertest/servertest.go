// Package servertest starts Temporal servers with the authorizer for tests: in
// the test's process on a replica made by hand, or as a process of the built
// command.
package servertest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
	"go.temporal.io/server/common/primitives"
	"google.golang.org/grpc"
)

// Server is a server in the test's process.
type Server struct {
	Frontend string // host:port, plaintext
	Internal *grpc.ClientConn
	Metrics  *prometheus.Registry
}

// Start runs a server on SQLite in memory that decides by the replica, and
// stops it when the test ends.
func Start(t testing.TB, policy *replica.Replica) *Server {
	t.Helper()
	config, err := server.Dev(server.DevConfig{Listen: netip.MustParseAddrPort("127.0.0.1:0"), LogLevel: "fatal"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := config.DialInternalFrontend(config.Address(primitives.InternalFrontendService))
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	plugin, err := temporal.New(temporal.Config{
		Replica:          policy,
		InternalFrontend: conn,
		Metrics:          registry,
		Logger:           slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(config, plugin.Options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		plugin.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		conn.Close()
		if err := s.Stop(); err != nil {
			t.Error("stopping the server:", err)
		}
	})
	return &Server{Frontend: config.Address(primitives.FrontendService), Internal: conn, Metrics: registry}
}

// Build compiles temporal-server-sallyport into the folder and gives its path.
func Build(t testing.TB, dir string) string {
	t.Helper()
	binary := filepath.Join(dir, "temporal-server-sallyport")
	build := exec.Command("go", "build", "-o", binary, "github.com/sallyport-iam/sallyport/authz/temporal/cmd/temporal-server-sallyport")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building temporal-server-sallyport: %v\n%s", err, out)
	}
	return binary
}

// Process is a running temporal-server-sallyport.
type Process struct {
	Frontend string // host:port; empty until Ready
	command  *exec.Cmd
	ready    string
	ended    chan struct{} // closed when the process has ended
	err      error         // how it ended
}

// Run starts `temporal-server-sallyport dev` with further arguments, at least
// --data, --sallyport and --key-file. It listens on a free port unless the
// arguments say otherwise, and is killed when the test ends.
func Run(t testing.TB, binary string, args ...string) *Process {
	t.Helper()
	p := &Process{ready: filepath.Join(t.TempDir(), "ready.json"), ended: make(chan struct{})}
	p.command = exec.Command(binary, append([]string{"dev", "--listen", "127.0.0.1:0", "--ready-file", p.ready}, args...)...)
	p.command.Stdout, p.command.Stderr = t.Output(), t.Output()
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.Kill)
	return p
}

// Ready waits until the server serves and has a policy.
func (p *Process) Ready(t testing.TB) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		content, err := os.ReadFile(p.ready)
		if err == nil {
			var ready struct{ Frontend string }
			if err := json.Unmarshal(content, &ready); err != nil {
				t.Fatal(err)
			}
			p.Frontend = ready.Frontend
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		select {
		case <-p.ended:
			t.Fatal("temporal-server-sallyport ended before it was ready:", p.err)
		case <-deadline:
			t.Fatal("temporal-server-sallyport was not ready in a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the process as an operator does, and fails the test if it does not
// end cleanly.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.err != nil {
			t.Error("temporal-server-sallyport:", p.err)
		}
	case <-time.After(time.Minute):
		p.Kill()
		t.Error("temporal-server-sallyport did not end on SIGTERM")
	}
}

// Kill ends the process at once.
func (p *Process) Kill() {
	p.command.Process.Kill()
	<-p.ended
}
