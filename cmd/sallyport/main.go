// Command sallyport is the command line of an account's people: log in, make
// and end API keys and client certificates, ask why a call would be allowed or
// denied, see where a change is in force, and check the audit log.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, time.Now, os.Stdin, os.Stdout, os.Stderr)
	stop()
	if code := end(err, os.Stderr); code != 0 {
		os.Exit(code)
	}
}

// end is the program's exit status. It says what went wrong.
func end(err error, stderr io.Writer) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintln(stderr, "sallyport:", oneLine(err.Error()))
	return 1
}

// exitStatus ends the program with a status, when the answer is on stdout
// already and is no error.
type exitStatus int

const (
	exitDenied   exitStatus = 2 // explain, cert test, federation test: it would be refused; cert check: something would stop working
	exitUnproved exitStatus = 3 // receipt, key revoke, cert revoke: done, and not (yet) enforced everywhere
)

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// commands is the command line.
type commands struct {
	Profile string        `help:"Name of the login to use." env:"SALLYPORT_PROFILE" default:"${profile}" placeholder:"NAME"`
	Output  string        `short:"o" help:"What to print: table for people, json for programs." enum:"table,json" default:"table"`
	Timeout time.Duration `help:"How long one request may take." default:"15s"`

	Login          loginCommand           `cmd:"" help:"Check an API key or a client certificate, and keep it, with the service's address, for the other commands."`
	Whoami         whoamiCommand          `cmd:"" help:"Show who is logged in, and with what."`
	Namespace      namespaceCommands      `cmd:"" help:"Make, list and delete namespaces, and say who is let in."`
	ServiceAccount serviceAccountCommands `cmd:"" help:"Make, list and delete service accounts."`
	Key            keyCommands            `cmd:"" help:"Make, list, rotate and end API keys."`
	Cert           certCommands           `cmd:"" help:"Issue, renew, test and revoke client certificates, and keep them fresh."`
	CA             caCommands             `cmd:"" name:"ca" help:"List, add and remove the CAs whose client certificates a namespace takes."`
	Filter         filterCommands         `cmd:"" help:"Say which client certificates of those CAs are let in, and what they may do."`
	Federation     federationCommands     `cmd:"" help:"Say which workloads of other issuers are a service account without a secret of ours."`
	Token          tokenCommand           `cmd:"" help:"Get an access token of a service account; it goes to stdout. No login is needed."`
	Explain        explainCommand         `cmd:"" help:"Say whether a key would be allowed a call, and why. Exit status 0: allowed, 2: denied."`
	Receipt        receiptCommand         `cmd:"" help:"Show where a change is in force. Exit status 3: not everywhere (yet)."`
	Audit          auditCommands          `cmd:"" help:"Read and verify the account's audit log."`
}

// session is what every command gets beside its own flags.
type session struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	profile        string
	json           bool // print JSON
	timeout        time.Duration
	now            func() time.Time
}

// run carries out one command line.
func run(ctx context.Context, args []string, getenv func(string) string, now func() time.Time, stdin io.Reader, stdout, stderr io.Writer) error {
	var c commands
	exited := false
	parser, err := kong.New(&c, kong.Name("sallyport"), kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }),
		kong.Description("The command line of Sallyport. Begin with `sallyport login --help`; the manual is doc/cli.md."),
		kong.Vars{"profile": defaultProfile}, kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if exited { // --help was asked for
		return nil
	}
	if err != nil {
		var usage *kong.ParseError
		if errors.As(err, &usage) && usage.Context != nil && usage.Context.Command() != "" {
			return fmt.Errorf("%w; see `sallyport %s --help`", err, commandName(usage.Context))
		}
		return fmt.Errorf("%w; see `sallyport --help`", err)
	}
	if c.Profile == "" { // SALLYPORT_PROFILE is set, to nothing
		c.Profile = defaultProfile
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(&session{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv,
		profile: c.Profile, json: c.Output == "json", timeout: c.Timeout, now: now})
}

// commandName is the command without its arguments.
func commandName(c *kong.Context) string {
	name, _, _ := strings.Cut(c.Command(), " <")
	return name
}
