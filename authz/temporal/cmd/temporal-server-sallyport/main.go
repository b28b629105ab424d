// Command temporal-server-sallyport is the Temporal server with Sallyport's
// authorizer. It takes the place of temporal-server: the same flags, the same
// YAML with a section "sallyport".
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"go.temporal.io/server/common/headers"
	_ "go.temporal.io/server/common/persistence/sql/sqlplugin/mysql"      // the server's plugin for MySQL
	_ "go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql" // the server's plugin for PostgreSQL
)

type cli struct {
	Version kong.VersionFlag `short:"v" help:"Print the Temporal server's version."`

	Start startCommand `cmd:"" help:"Start the server from its YAML."`
	Dev   devCommand   `cmd:"" help:"Start a whole server on SQLite, for development."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "temporal-server-sallyport:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("temporal-server-sallyport"),
		kong.Description("The Temporal server with Sallyport's authorizer."),
		kong.Writers(stdout, stderr),
		kong.Vars{"version": headers.ServerVersion},
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return err
	}
	return command.Run()
}
