// Command sallyportd is the Sallyport service and its operator's commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/sallyport-iam/sallyport"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		os.Exit(end(err, os.Stderr))
	}
}

// end is the program's exit status for an error. It says what went wrong.
func end(err error, stderr io.Writer) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintln(stderr, "sallyportd:", message(err))
	return 1
}

// exitStatus ends the program with a status, when the answer is on stdout
// already and is no error.
type exitStatus int

const exitUnproved exitStatus = 3 // receipt, token-key revoke: done, and not (yet) enforced everywhere

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// message is an error's text with its cause: the operator may see everything.
func message(err error) string {
	var e *sallyport.Error
	if errors.As(err, &e) && e.Err != nil && err.Error() == e.Error() { // not wrapped
		return fmt.Sprintf("%s\n  cause: %v", (&sallyport.Error{Kind: e.Kind, Field: e.Field, Msg: e.Msg}).Error(), e.Err)
	}
	return err.Error()
}

// env is what every command gets beside its own flags.
type env struct {
	stdout, stderr io.Writer
}

// run carries out one command line. It ends when the command is done or ctx is.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c commands
	exited := false
	parser, err := kong.New(&c, kong.Name("sallyportd"), kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }),
		kong.Description("Sallyport: identity and access for a multi-tenant gRPC server."),
		kong.DefaultEnvars("SALLYPORT"), kong.Configuration(strictJSON), kong.UsageOnError())
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if exited {
		return nil
	}
	if err != nil {
		return err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(env{stdout, stderr})
}
