package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
)

type devCommand struct {
	Data              string        `required:"" type:"path" help:"Folder for the policy's copy, and for the database with --persist."`
	Persist           bool          `help:"Keep the server's own data in the folder. Default: in memory."`
	Sallyport         string        `required:"" placeholder:"HOST:PORT" help:"Where sallyportd serves gRPC with TLS."`
	SallyportCA       string        `name:"sallyport-ca" type:"path" help:"PEM file of its certificate authority. Default: the system's."`
	KeyFile           string        `required:"" type:"path" help:"File with the authorizer's API key."`
	Listen            string        `default:"127.0.0.1:7233" help:"Address of the frontend; port 0 takes a free one."`
	TLSCert           string        `name:"tls-cert" type:"path" help:"PEM file of the frontend's certificate. Default: plaintext, on loopback only. With sallyportd dev: server.pem beside its ca.pem."`
	TLSKey            string        `name:"tls-key" type:"path" help:"PEM file of its key."`
	NamespaceDomain   string        `placeholder:"DOMAIN" help:"Where each namespace has a name of its own, <name>.<account>.<domain>."`
	MaxConnectionAge  time.Duration `help:"After which a client has to connect again, which is when it shows a new certificate. Default, and most: 3m."`
	ReadyFile         string        `type:"path" help:"Written when the server serves and has a policy: JSON with the frontend's address."`
	MaxStaleness      time.Duration `help:"How old the policy may be to decide by."`
	MaxAdminStaleness time.Duration `help:"The same for administrative methods."`
	NamespaceGrace    time.Duration `help:"How long a namespace stays on the server whose account left the cell. Default: an hour."`
	MetricsListen     string        `placeholder:"HOST:PORT" help:"Serve Prometheus metrics here."`
	LogLevel          string        `default:"error" enum:"debug,info,warn,error,fatal" help:"Of the Temporal server's own log, which has a line at error for each refused call."`
}

func (c *devCommand) Run(ctx context.Context) error {
	listen, err := netip.ParseAddrPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w; give an IP address and a port", err)
	}
	if c.NamespaceGrace < 0 {
		return errors.New("--namespace-grace cannot be negative")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	dev := server.DevConfig{Listen: listen, MaxAge: c.MaxConnectionAge, LogLevel: c.LogLevel}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return fmt.Errorf("loading the frontend's certificate: %w", err)
		}
		dev.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	if c.Persist {
		dev.Database = filepath.Join(c.Data, "temporal.sqlite")
	}
	config, err := server.Dev(dev)
	if err != nil {
		return err
	}
	section := server.Section{
		Address:           c.Sallyport,
		CAFile:            c.SallyportCA,
		KeyFile:           c.KeyFile,
		DataDir:           filepath.Join(c.Data, "policy"),
		MaxStaleness:      c.MaxStaleness,
		MaxAdminStaleness: c.MaxAdminStaleness,
		NamespaceGrace:    c.NamespaceGrace,
		MetricsListen:     c.MetricsListen,
		NamespaceDomain:   c.NamespaceDomain,
	}
	return serve(ctx, config, section, c.ReadyFile)
}
