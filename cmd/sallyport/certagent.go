package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport/credential"
)

type certAgent struct {
	ServiceAccount string `help:"Id of the service account (sa_…) that the certificate is." required:"" placeholder:"ID"`
	Dir            string `help:"Directory for tls.crt, tls.key and ca.crt. It is made when it is missing." required:"" placeholder:"DIR"`
	Lifetime       span   `help:"How long a certificate lives: 10m to 90d." default:"24h" placeholder:"24h"`
	RenewBefore    share  `help:"How long before its end it is renewed: a part of its life, or a time; at most a half, and at least 5m, or a third of a shorter life." default:"1/3" placeholder:"1/3"`
	KeyType        string `help:"p256, p384, rsa2048 or rsa4096; every certificate gets a new key." enum:"p256,p384,rsa2048,rsa4096" default:"p256" placeholder:"p256"`
	Once           bool   `help:"Renew now if it is time to, and end: for cron."`
	Now            bool   `help:"Renew at the start, even if it is not time to."`
	Exec           string `help:"Command to run, by sh, after each new certificate, and again until it succeeds." placeholder:"COMMAND"`
	StatusFile     string `help:"File for what a health check may read: when the next renewal is, and the last error. JSON." placeholder:"FILE"`
}

// leastBefore is how long before its end a certificate is renewed at least, or a
// third of a shorter life: what was connected with it goes on until servers close
// the connection, replica.MaxConnectionAge later, and must not see it expire.
const leastBefore = 5 * time.Minute

// check refuses a time before the end that would not be kept, since what is
// renewed in the first half of its life would be renewed for ever; and one that
// is too late for open connections.
func (c *certAgent) check() error {
	least := min(leastBefore, time.Duration(c.Lifetime)/3).Round(time.Second)
	if before := c.RenewBefore.part(time.Duration(c.Lifetime)).Round(time.Second); before < least {
		return fmt.Errorf("--renew-before leaves %v: workers stay connected with the old certificate for minutes, and would see it expire; give at least %v", before, least)
	}
	if half := time.Duration(c.Lifetime) / 2; c.RenewBefore.fixed > half {
		return fmt.Errorf("--renew-before %v is more than half of --lifetime %v; give at most %v", c.RenewBefore.fixed, time.Duration(c.Lifetime), half)
	}
	return nil
}

// Run keeps the certificate fresh until it is told to end.
func (c *certAgent) Run(ctx context.Context, s *session) error {
	if err := c.check(); err != nil {
		return err
	}
	dir, err := openCertDir(c.Dir)
	if err != nil {
		return err
	}
	var handler slog.Handler = slog.NewTextHandler(s.stderr, nil)
	if s.json {
		handler = slog.NewJSONHandler(s.stderr, nil)
	}
	a := &agent{certAgent: *c, session: s, dir: dir, log: slog.New(handler)}
	return a.run(ctx)
}

// agent is a running certAgent.
type agent struct {
	certAgent
	session *session
	dir     certDir
	log     *slog.Logger

	held     *held
	due      time.Time // when held is to be replaced
	ask      time.Time // when the service is to be asked whether held is still good
	failures int       // since the last success
	status   agentStatus
	asked    *attempt // what may have been granted and not answered; nil: nothing
	unrun    error    // why the command has not succeeded since the last new certificate; nil: it has
}

// agentStatus is the status file.
type agentStatus struct {
	ServiceAccount string     `json:"serviceAccount"`
	CertificateID  string     `json:"certificateId,omitempty"`
	Fingerprint    string     `json:"fingerprint,omitempty"`
	NotAfter       *time.Time `json:"notAfter,omitempty"`
	NextRenewal    *time.Time `json:"nextRenewal,omitempty"`
	Failures       int        `json:"failures"` // since the last success
	LastError      string     `json:"lastError,omitempty"`
	LastErrorTime  *time.Time `json:"lastErrorTime,omitempty"`
}

const (
	// nap bounds a sleep: the machine may be suspended, and its clock set.
	nap = 30 * time.Second
	// leastPause is between two renewals, however short the certificates are that
	// the service gives: they shorten when their chain of renewals ends.
	leastPause = time.Minute
	lookEvery  = 5 * time.Minute
	shortest   = time.Second
	longest    = 5 * time.Minute
	execLimit  = time.Minute
	execAgain  = 10 * time.Second // until a command that failed is run again
)

func (a *agent) run(ctx context.Context) error {
	if err := a.load(); err != nil {
		return err
	}
	if a.Now {
		a.due = time.Time{}
	}
	for {
		if a.unrun != nil {
			a.execute(ctx)
		}
		a.look(ctx)
		if now := a.session.now(); a.held == nil || !now.Before(a.due) {
			if err := a.replace(ctx); err != nil && ctx.Err() == nil {
				if a.Once || a.hopeless(err) {
					a.failed(err, time.Time{})
					return err
				}
				now := a.session.now()
				a.due = now.Add(pauseAfter(a.failures, a.left(now), chance()))
				a.failed(err, a.due)
			}
		}
		if a.Once {
			return a.unrun
		}
		rest := nap
		if a.unrun != nil {
			rest = execAgain
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(rest, max(a.due.Sub(a.session.now()), shortest/10))):
		}
	}
}

// look finds out, at the start and now and then, whether the certificate was
// revoked: it is to be replaced then, and the attempt tells whether that is possible.
func (a *agent) look(ctx context.Context) {
	now := a.session.now()
	if a.held == nil || now.Before(a.ask) {
		return
	}
	a.ask = now.Add(lookEvery/2 + time.Duration(chance()*float64(lookEvery)))
	p, err := loadProfile(a.session.profile)
	if err == nil && a.saidRevoked(ctx, p) != nil {
		a.due = now
	}
}

// load begins with what is on the disk.
func (a *agent) load() error {
	a.status.ServiceAccount = a.ServiceAccount
	found, err := a.dir.current()
	if err != nil {
		a.log.Warn("the certificate on the disk is of no use; another one is made", "error", err)
		return nil
	}
	if found == nil {
		return nil
	}
	if _, _, id, _ := spiffe(found.pair.Leaf); id != a.ServiceAccount {
		return fmt.Errorf("%s holds a certificate of %s; give another --dir, or --service-account %s", a.Dir, id, id)
	}
	a.hold(found, time.Time{})
	return nil
}

// hold goes on with a certificate that was got at a moment; zero: long ago.
func (a *agent) hold(h *held, got time.Time) {
	leaf := h.pair.Leaf
	a.held, a.failures, a.asked = h, 0, nil
	a.due = dueAt(leaf, a.RenewBefore, got, chance())
	a.status.CertificateID, a.status.Fingerprint = h.record.GetId(), credential.Fingerprint(leaf)
	a.status.NotAfter, a.status.LastError, a.status.LastErrorTime = &leaf.NotAfter, "", nil
	a.log.Info("holding a certificate", "service_account", a.ServiceAccount, "id", h.record.GetId(), "fingerprint", a.status.Fingerprint,
		"until", leaf.NotAfter.UTC(), "next_renewal", a.due.UTC())
	a.tell(a.due)
}

// dueAt is when a certificate is to be replaced: a share of its life before its
// end, and earlier by up to a twentieth of it, so that workers which were
// started together do not renew together.
func dueAt(leaf *x509.Certificate, before share, got time.Time, chance float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	due := leaf.NotAfter.Add(-before.part(life) - time.Duration(chance*float64(life)/20))
	if least := got.Add(leastPause); due.Before(least) {
		return least
	}
	return due
}

// left is how long the certificate that is held lives.
func (a *agent) left(now time.Time) time.Duration {
	if a.held == nil {
		return 0
	}
	return a.held.pair.Leaf.NotAfter.Sub(now)
}

// failed tells of a failure, and when the next attempt is; zero: there is none.
func (a *agent) failed(err error, next time.Time) {
	now := a.session.now()
	left := a.left(now)
	level := slog.LevelWarn
	if next.IsZero() || left <= 0 || left < a.RenewBefore.part(time.Duration(a.Lifetime))/4 {
		level = slog.LevelError
	}
	a.failures++
	a.status.LastError, a.status.LastErrorTime = oneLine(err.Error()), &now
	details := []any{"error", err, "failures", a.failures, "certificate_lives_for", max(left, 0).Round(time.Second)}
	if !next.IsZero() {
		details = append(details, "next_attempt_in", next.Sub(now).Round(time.Millisecond))
	}
	a.log.Log(context.Background(), level, "renewing the certificate failed", details...)
	a.tell(next)
}

// chance is between 0 and 1.
func chance() float64 {
	return rand.Float64() //nolint:gosec // it only spreads requests
}

// pauseAfter is when to try again: soon, later, and more often again towards the
// end of the certificate. It doubles from a second to five minutes, by half at random, and is
// never more than a quarter of what is left.
func pauseAfter(failures int, left time.Duration, chance float64) time.Duration {
	pause := longest
	if failures < 9 {
		pause = min(shortest<<failures, longest)
	}
	if left > 0 {
		pause = min(pause, max(left/4, shortest))
	}
	return pause/2 + time.Duration(chance*float64(pause)/2)
}

// tell writes the status file; next is when the next attempt is, zero if there
// is none. Not being able to is no reason to end.
func (a *agent) tell(next time.Time) {
	if a.StatusFile == "" {
		return
	}
	a.status.Failures, a.status.NextRenewal = a.failures, nil
	if !next.IsZero() {
		a.status.NextRenewal = &next
	}
	if err := writePrivate(a.StatusFile, a.status); err != nil {
		a.log.Warn("writing the status file", "error", err)
	}
}

// hopeless: a certificate that was revoked is not to be had again by whoever
// has its key, and without any certificate a request that was refused for good
// is a mistake in how the program was called.
func (a *agent) hopeless(err error) bool {
	var revoked *revokedError
	if errors.As(err, &revoked) {
		return true
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound:
		return true
	case codes.Unauthenticated, codes.PermissionDenied:
		return a.held == nil
	case codes.Unknown: // of no call: there is no login
		return a.held == nil
	}
	return false
}

// revokedError ends the agent.
type revokedError struct {
	dir string
	err error
}

func (e *revokedError) Error() string {
	return fmt.Sprintf("the certificate in %s is revoked, and the agent does not make another one; when the worker is to be trusted again, remove the directory and start anew (%v)", e.dir, e.err)
}

func (e *revokedError) Unwrap() error { return e.err }

// replace gets a new certificate and lets it count.
func (a *agent) replace(ctx context.Context) error {
	made, err := a.obtain(ctx)
	if err != nil {
		return err
	}
	now := a.session.now()
	if err := a.dir.put(made, now); err != nil {
		return err
	}
	found, err := a.dir.current()
	if err != nil {
		return err
	}
	a.hold(found, now)
	a.execute(ctx)
	return nil
}

// execute runs the command, and notes when it fails, to be run again.
func (a *agent) execute(ctx context.Context) {
	if a.Exec == "" {
		return
	}
	failed := a.unrun != nil
	if a.unrun = a.command(ctx); a.unrun != nil {
		now := a.session.now()
		a.status.LastError, a.status.LastErrorTime = a.unrun.Error(), &now
		a.log.Error("the command after the renewal failed", "command", a.Exec, "error", a.unrun)
		a.tell(a.due)
	} else if failed {
		if a.failures == 0 { // it is not of a renewal
			a.status.LastError, a.status.LastErrorTime = "", nil
		}
		a.log.Info("the command after the renewal succeeded", "command", a.Exec)
		a.tell(a.due)
	}
}

func (a *agent) command(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, execLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", a.Exec) //nolint:gosec // whoever runs the agent gives the command
	cmd.Stdout, cmd.Stderr = a.session.stderr, a.session.stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the certificate is renewed, but the command after it failed: %w", err)
	}
	return nil
}

func saysRevoked(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition:
		return strings.Contains(status.Convert(err).Message(), "revoked")
	}
	return false
}
