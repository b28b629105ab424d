package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
	"go.temporal.io/server/common/primitives"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// serveBackend runs services that no tenant reaches until ctx ends.
func serveBackend(ctx context.Context, config server.Config) error {
	s, err := server.Start(config, nil)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return s.Stop()
}

// serve runs the server and its authorizer until ctx ends.
func serve(ctx context.Context, config server.Config, section server.Section, readyFile string) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	conn, err := internalFrontend(config, section)
	if err != nil {
		return err
	}
	if conn != nil {
		defer conn.Close()
	}
	replicaConfig, err := section.Replica()
	if err != nil {
		return err
	}
	replicaConfig.Logger, replicaConfig.Metrics = logger, registry
	policy, err := replica.Open(replicaConfig)
	if err != nil {
		return fmt.Errorf("opening the policy's copy: %w", err)
	}
	pluginConfig := temporal.Config{Replica: policy, NamespaceGrace: section.NamespaceGrace, Metrics: registry, Logger: logger}
	if conn != nil { // a nil *ClientConn is not a nil interface
		pluginConfig.InternalFrontend = conn
	}
	plugin, err := temporal.New(pluginConfig)
	if err != nil {
		return errors.Join(err, policy.Close())
	}
	s, err := server.Start(config, plugin.Options())
	if err != nil {
		return errors.Join(err, policy.Close())
	}

	// The authorizer works until the server has drained.
	lasting, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	g, working := errgroup.WithContext(lasting)
	g.Go(func() error { return policy.Run(working) })
	g.Go(func() error { return plugin.Run(working) })
	if section.MetricsListen != "" {
		g.Go(func() error { return serveMetrics(working, section.MetricsListen, registry) })
	}
	if readyFile != "" {
		g.Go(func() error {
			return writeReady(working, readyFile, config.Address(primitives.FrontendService), policy)
		})
	}
	select {
	case <-ctx.Done():
	case <-working.Done(): // one of them failed
	}
	stopped := s.Stop()
	done()
	return errors.Join(g.Wait(), stopped, policy.Close())
}

// internalFrontend connects to the internal frontend of this process or to the
// configured one; nil if there is neither.
func internalFrontend(config server.Config, section server.Section) (*grpc.ClientConn, error) {
	address := section.InternalFrontend
	if address == "" && config.Serves(primitives.InternalFrontendService) {
		address = config.Address(primitives.InternalFrontendService)
	}
	if address == "" {
		return nil, nil
	}
	return config.DialInternalFrontend(address)
}

func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving metrics: %w", err)
	case <-ctx.Done():
		return s.Close()
	}
}

// writeReady writes the file, as a whole, when the frontend takes connections
// and the policy's copy is complete.
func writeReady(ctx context.Context, path, frontend string, policy *replica.Replica) error {
	for ticker := time.NewTicker(20 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", frontend)
		if err == nil {
			conn.Close()
			if policy.Ready() {
				ticker.Stop()
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	content, err := json.Marshal(map[string]string{"frontend": frontend})
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, append(content, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
