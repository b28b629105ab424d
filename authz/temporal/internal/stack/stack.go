// Package stack runs sallyportd and temporal-server-sallyport as processes, as
// a user would: for the end-to-end tests and the demo.
package stack

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/cloud-sdk/cloudclient"
)

// Config of a Stack.
type Config struct {
	Dir        string    // for data and logs; must exist
	Root       string    // of the repository, to build the programs from; empty: they are in Bin already
	Bin        string    // where the programs are, or are built to
	Log        io.Writer // nil: files in Dir
	Persist    bool      // keep the Temporal server's data over a restart
	ServerArgs []string  // more flags for the Temporal server
}

// Sallyport is what `sallyportd dev` says of itself.
type Sallyport struct {
	GRPC       string `json:"grpc"`
	Plaintext  string `json:"plaintext"`
	HTTP       string `json:"http"` // also the issuer of access tokens
	MTLS       string `json:"mtls"` // where tokens are bound to certificates
	CA         string `json:"ca"`
	Account    string `json:"account"`
	Key        string `json:"key"`
	KeyFile    string `json:"key_file"`
	Authorizer string `json:"authorizer_key_file"`
}

// Stack is the running processes. Its methods are for one goroutine.
type Stack struct {
	config    Config
	Sallyport Sallyport
	Frontend  string // the Temporal server's address, with TLS under the service's CA
	sallyport *process
	server    *process
}

// Build makes the programs in c.Bin.
func Build(ctx context.Context, c Config) error {
	for _, program := range []struct{ dir, pkg string }{
		{c.Root, "./cmd/sallyportd"}, {c.Root, "./cmd/sallyport"},
		{filepath.Join(c.Root, "authz", "temporal"), "./cmd/temporal-server-sallyport"},
	} {
		//nolint:gosec // G204: our own programs, for tests and the demo
		build := exec.CommandContext(ctx, "go", "build", "-o", c.Bin+"/", program.pkg)
		build.Dir = program.dir
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", program.pkg, err, out)
		}
	}
	return nil
}

// Start starts both.
func Start(ctx context.Context, c Config) (*Stack, error) {
	s := &Stack{config: c}
	if err := s.StartSallyport(ctx); err != nil {
		return s, err
	}
	return s, s.StartServer(ctx)
}

// StartSallyport starts the service, on the same addresses as before if it ran.
func (s *Stack) StartSallyport(ctx context.Context) error {
	ready := filepath.Join(s.config.Dir, "sallyport.json")
	args := []string{"dev", "--data", filepath.Join(s.config.Dir, "sallyport"), "--ready-file", ready}
	on := [...]string{s.Sallyport.GRPC, s.Sallyport.Plaintext, s.Sallyport.HTTP, s.Sallyport.MTLS}
	for i, flag := range []string{"--listen", "--plaintext-listen", "--http-listen", "--mtls-listen"} {
		address := on[i][strings.LastIndexByte(on[i], '/')+1:] // without http://
		if address == "" {
			address = "127.0.0.1:0"
		}
		args = append(args, flag, address)
	}
	p, err := s.start(ctx, "sallyportd", args, ready, &s.Sallyport)
	s.sallyport = p
	return err
}

// StartServer starts the Temporal server, on the same address as before if it ran.
func (s *Stack) StartServer(ctx context.Context) error {
	ready := filepath.Join(s.config.Dir, "server.json")
	listen := s.Frontend
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	args := []string{"dev", "--data", filepath.Join(s.config.Dir, "temporal"), "--sallyport", s.Sallyport.GRPC,
		"--sallyport-ca", s.Sallyport.CA, "--key-file", s.Sallyport.Authorizer, "--listen", listen, "--ready-file", ready,
		"--tls-cert", filepath.Join(filepath.Dir(s.Sallyport.CA), "server.pem"), "--tls-key", filepath.Join(filepath.Dir(s.Sallyport.CA), "server-key.pem")}
	if s.config.Persist {
		args = append(args, "--persist")
	}
	var says struct{ Frontend string }
	p, err := s.start(ctx, "temporal-server-sallyport", append(args, s.config.ServerArgs...), ready, &says)
	s.server, s.Frontend = p, says.Frontend
	return err
}

// StopSallyport ends the service with the signal and waits for it.
func (s *Stack) StopSallyport(signal syscall.Signal) error { return s.sallyport.stop(signal) }

// StopServer ends the Temporal server with the signal and waits for it.
func (s *Stack) StopServer(signal syscall.Signal) error { return s.server.stop(signal) }

// Stop ends both.
func (s *Stack) Stop() error {
	var errs []error
	for _, p := range []*process{s.server, s.sallyport} {
		if p != nil {
			errs = append(errs, p.stop(syscall.SIGTERM))
		}
	}
	return errors.Join(errs...)
}

// Cloud is a client of CloudService with the key, over TLS.
func (s *Stack) Cloud(key string) (*cloudclient.Client, error) {
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	return cloudclient.New(cloudclient.Options{HostPort: s.Sallyport.GRPC, APIKey: key,
		TLSConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  io.Closer
}

func (s *Stack) start(ctx context.Context, name string, args []string, ready string, says any) (*process, error) {
	if err := os.Remove(ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	//nolint:gosec // G204: our own programs, for tests and the demo
	p := &process{cmd: exec.Command(filepath.Join(s.config.Bin, name), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = s.config.Log, s.config.Log
	if s.config.Log == nil {
		file, err := os.OpenFile(filepath.Join(s.config.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		p.cmd.Stdout, p.cmd.Stderr, p.log = file, file, file
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	for {
		text, err := os.ReadFile(ready)
		if err == nil {
			return p, json.Unmarshal(text, says)
		}
		select {
		case <-ctx.Done():
			return p, fmt.Errorf("starting %s: %w", name, ctx.Err())
		case <-p.done:
			return p, fmt.Errorf("%s ended before it was ready: %s; see its log", name, p.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) stop(signal syscall.Signal) error {
	if p.log != nil {
		defer p.log.Close()
	}
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end and was killed", p.cmd.Path)
	}
}
