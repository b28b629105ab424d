package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/rpc/encryption"
)

// Files say where the server's YAML is: one file, or the files base.yaml,
// <env>.yaml and <env>_<zone>.yaml of a folder, later ones over earlier ones.
type Files struct {
	File string
	Dir  string
	Env  string
	Zone string
}

// Load configures a server from its own YAML and the section "sallyport" in
// it, and refuses what would let callers past the authorizer.
func Load(f Files, services []string) (Config, Section, error) {
	var section Section
	if err := f.section(&section); err != nil {
		return Config{}, section, err
	}
	t, err := f.temporal()
	if err != nil {
		return Config{}, section, fmt.Errorf("loading the server's configuration: %w", err)
	}
	c := Config{Temporal: t, Services: services, Logger: log.NewZapLogger(log.BuildZapLogger(t.Log))}
	if err := c.check(); err != nil {
		return Config{}, section, err
	}
	if c.TLS, err = encryption.NewTLSConfigProviderFromConfig(t.Global.TLS, metrics.NoopMetricsHandler, c.Logger, nil); err != nil {
		return Config{}, section, fmt.Errorf("loading the server's certificates: %w", err)
	}
	if c.Serves(primitives.FrontendService) {
		if c.TLS, err = temporal.FrontendTLS(c.TLS); err != nil {
			return Config{}, section, err
		}
	}
	if err := c.checkFrontendTLS(section); err != nil {
		return Config{}, section, err
	}
	dynamic := dynamicconfig.NewNoopClient()
	if t.DynamicConfigClient != nil {
		// It is watched as long as the process runs.
		if dynamic, err = dynamicconfig.NewFileBasedClient(t.DynamicConfigClient, c.Logger, make(chan any)); err != nil {
			return Config{}, section, fmt.Errorf("loading the dynamic configuration: %w", err)
		}
	}
	c.Dynamic, err = Enforce(dynamic)
	return c, section, err
}

func (f Files) temporal() (*config.Config, error) {
	if f.File != "" {
		return config.Load(config.WithConfigFile(f.File))
	}
	return config.Load(config.WithConfigDir(f.Dir), config.WithEnv(f.Env), config.WithZone(f.Zone))
}

func (f Files) section(s *Section) error {
	paths := []string{f.File}
	if f.File == "" {
		paths = []string{filepath.Join(f.Dir, "base.yaml"), filepath.Join(f.Dir, f.Env+".yaml")}
		if f.Zone != "" {
			paths = append(paths, filepath.Join(f.Dir, f.Env+"_"+f.Zone+".yaml"))
		}
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if f.File == "" && errors.Is(err, os.ErrNotExist) {
			continue // as the server does
		}
		if err != nil {
			return err
		}
		if content, err = render(path, content); err != nil {
			return err
		}
		if err := s.read(content); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return s.validate()
}

// render executes the file as a template where the server would: when a
// comment in its first kilobyte has "enable-template".
func render(path string, content []byte) ([]byte, error) {
	templated := false
	for line := range strings.Lines(string(content[:min(len(content), 1024)])) {
		line = strings.TrimSpace(line)
		templated = templated || strings.HasPrefix(line, "#") && strings.Contains(line, "enable-template")
	}
	if !templated {
		return content, nil
	}
	t, err := template.New(filepath.Base(path)).Funcs(sprig.FuncMap()).Parse(string(content))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// check refuses configurations under which the authorizer would not be the
// only way in.
func (c Config) check() error {
	global := c.Temporal.Global
	internode := global.TLS.Internode.Server
	switch {
	case c.Temporal.Services[string(primitives.InternalFrontendService)].RPC.GRPCPort == 0:
		return errors.New("the configuration has no service internal-frontend: add services.internal-frontend.rpc.grpcPort, since the server's own workers need a way in that tenants do not have")
	case !global.TLS.Internode.IsServerEnabled() || !internode.RequireClientAuth || len(internode.ClientCAFiles)+len(internode.ClientCAData) == 0:
		return errors.New("set global.tls.internode with server.certFile, keyFile, clientCaFiles and requireClientAuth: true: without it anybody who reaches the internal frontend is the server's administrator")
	case global.Authorization.Authorizer != "" || global.Authorization.ClaimMapper != "":
		return errors.New("remove global.authorization.authorizer and claimMapper: this server has Sallyport's")
	}
	asks := global.TLS.Frontend.Server.RequireClientAuth
	for _, host := range global.TLS.Frontend.PerHostOverrides {
		asks = asks || host.RequireClientAuth
	}
	if asks {
		return errors.New("remove requireClientAuth from global.tls.frontend.server and its hostOverrides: client certificates are checked on each call, by the CAs that the namespace takes, and a client without one would get a TLS alert instead of a reason")
	}
	return nil
}

// checkFrontendTLS asks what the server will really listen with: certificates
// of single hosts alone, for example, leave it with plaintext.
func (c Config) checkFrontendTLS(s Section) error {
	if !c.Serves(primitives.FrontendService) || s.AllowPlaintext {
		return nil
	}
	frontend, err := c.TLS.GetFrontendServerConfig()
	if err != nil {
		return fmt.Errorf("loading the frontend's certificate: %w", err)
	}
	if frontend == nil {
		return errors.New("set global.tls.frontend.server with certFile and keyFile: API keys would travel unencrypted; where a proxy ends TLS, set sallyport.allow-plaintext: true")
	}
	return nil
}
