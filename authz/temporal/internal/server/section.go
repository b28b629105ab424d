package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
	"gopkg.in/yaml.v3"
)

// Section is Sallyport's part of the server's configuration, under the key
// "sallyport".
type Section struct {
	Address           string        `yaml:"address"`             // host:port of sallyportd's gRPC; required
	CAFile            string        `yaml:"ca-file"`             // PEM; empty: the system's authorities
	KeyFile           string        `yaml:"key-file"`            // holds the authorizer's API key; required
	DataDir           string        `yaml:"data-dir"`            // of the policy's copy; required
	MaxStaleness      time.Duration `yaml:"max-staleness"`       // zero: the replica's default
	MaxAdminStaleness time.Duration `yaml:"max-admin-staleness"` // zero: the replica's default
	NamespaceGrace    time.Duration `yaml:"namespace-grace"`     // of temporal.Config; zero: its default
	MetricsListen     string        `yaml:"metrics-listen"`      // host:port for Prometheus; empty: none
	// NamespaceDomain is where each namespace has a name of its own,
	// <name>.<account>.<domain>; empty: nowhere.
	NamespaceDomain string `yaml:"namespace-domain"`
	// InternalFrontend is host:port of the cluster's internal frontend, for a
	// process that runs none.
	InternalFrontend string `yaml:"internal-frontend"`
	// AllowPlaintext accepts a frontend without TLS, where a proxy ends TLS.
	AllowPlaintext bool `yaml:"allow-plaintext"`
}

// read adds what the YAML has under "sallyport". Unknown settings are errors,
// as a misspelt limit would otherwise be no limit.
func (s *Section) read(content []byte) error {
	var file struct {
		Sallyport yaml.Node `yaml:"sallyport"`
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		return err
	}
	if file.Sallyport.IsZero() {
		return nil
	}
	section, err := yaml.Marshal(&file.Sallyport)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(section))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("in the section sallyport: %w", err)
	}
	return nil
}

func (s *Section) validate() error {
	for _, required := range []struct{ name, value string }{
		{"address", s.Address}, {"key-file", s.KeyFile}, {"data-dir", s.DataDir},
	} {
		if required.value == "" {
			return fmt.Errorf("the configuration needs sallyport.%s", required.name)
		}
	}
	if s.MaxStaleness < 0 || s.MaxAdminStaleness < 0 || s.NamespaceGrace < 0 {
		return errors.New("sallyport.max-staleness, sallyport.max-admin-staleness and sallyport.namespace-grace cannot be negative")
	}
	return nil
}

// Replica is the configuration of the replica, with the key and the
// certificate read from their files.
func (s *Section) Replica() (replica.Config, error) {
	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return replica.Config{}, fmt.Errorf("reading the authorizer's key: %w", err)
	}
	if len(bytes.TrimSpace(key)) == 0 {
		return replica.Config{}, fmt.Errorf("%s is empty: it has to hold the key that `sallyportd authorizer create` printed", s.KeyFile)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return replica.Config{}, fmt.Errorf("reading Sallyport's certificate authority: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return replica.Config{}, fmt.Errorf("%s holds no PEM certificate", s.CAFile)
		}
	}
	return replica.Config{
		Address:           s.Address,
		TLS:               tlsConfig,
		Token:             credential.Secret(strings.TrimSpace(string(key))),
		Dir:               s.DataDir,
		MaxStaleness:      s.MaxStaleness,
		MaxAdminStaleness: s.MaxAdminStaleness,
		NamespaceDomain:   s.NamespaceDomain,
	}, nil
}
