package main

import (
	"context"
	"path/filepath"

	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
	"go.temporal.io/server/common/primitives"
)

// startCommand has the flags of temporal-server.
type startCommand struct {
	Root        string   `short:"r" default:"." env:"TEMPORAL_ROOT" help:"Folder that --config-dir is relative to."`
	ConfigDir   string   `short:"c" aliases:"config" default:"config" env:"TEMPORAL_CONFIG_DIR" help:"Folder of base.yaml, <env>.yaml and <env>_<zone>.yaml."`
	Env         string   `short:"e" default:"development" env:"TEMPORAL_ENVIRONMENT" help:"Which of the folder's files to take."`
	Zone        string   `aliases:"az" env:"TEMPORAL_AVAILABILITY_ZONE" help:"Availability zone."`
	ConfigFile  string   `env:"TEMPORAL_SERVER_CONFIG_FILE_PATH" help:"One file instead of a folder."`
	Service     []string `aliases:"svc,services" env:"TEMPORAL_SERVICES" help:"Services to start. Default: all, with the internal frontend."`
	AllowNoAuth bool     `hidden:"" env:"TEMPORAL_ALLOW_NO_AUTH" help:"Accepted for compatibility; this server always has an authorizer."`
	ReadyFile   string   `help:"Written when the server serves and has a policy: JSON with the frontend's address."`
}

func (c *startCommand) Run(ctx context.Context) error {
	files := server.Files{File: c.ConfigFile, Dir: filepath.Join(c.Root, c.ConfigDir), Env: c.Env, Zone: c.Zone}
	services := c.Service
	if len(services) == 0 {
		services = server.Services()
	}
	config, section, err := server.Load(files, services)
	if err != nil {
		return err
	}
	if !config.Serves(primitives.FrontendService) && !config.Serves(primitives.InternalFrontendService) {
		return serveBackend(ctx, config)
	}
	return serve(ctx, config, section, c.ReadyFile)
}
