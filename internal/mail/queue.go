package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/sallyport-iam/sallyport"
)

const (
	queue       = "mail"
	workers     = 4
	maxAttempts = 20 // with the waits of NextRetry, two and a half days
	firstWait   = 15 * time.Second
	longestWait = 6 * time.Hour
	pollEvery   = time.Second
	// attemptTime is the longest that one attempt may take, and rescueAfter when
	// the job of a program that died is taken over by another.
	attemptTime = time.Minute
	rescueAfter = 3 * time.Minute
	// drain is how long mails under way may take when the program ends.
	drain = 5 * time.Second
	// leave is how long River may take beside that. Without a database it would
	// try for many seconds to tell the others that it goes.
	leave = time.Second
	// keepGivenUp is how long an operator can see what was not delivered.
	keepGivenUp = 30 * 24 * time.Hour
)

// job is one mail to one user, as it is kept.
type job struct {
	Account sallyport.AccountID `json:"account"`
	User    string              `json:"user"` // id
	Content Content             `json:"content"`
}

// Kind names the job's type in the table.
func (job) Kind() string { return "mail" }

// InsertOpts are the same for all mails.
func (job) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: queue, MaxAttempts: maxAttempts}
}

// quietDriver never notifies. River's InsertTx sends NOTIFY inside the caller's
// transaction, also when its client only polls, unless the database is known
// not to support it; and NOTIFY takes a lock at commit that orders all commits
// of the server.
type quietDriver struct{ *riverpgxv5.Driver }

// SupportsListener and SupportsListenNotify make the client poll.
func (quietDriver) SupportsListener() bool     { return false }
func (quietDriver) SupportsListenNotify() bool { return false }

// warnings leaves out what River tells of its ordinary life.
type warnings struct{ slog.Handler }

// Enabled reports whether the record is a warning or worse, and wanted.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// WithAttrs and WithGroup keep the handler what it is.
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(name string) slog.Handler   { return warnings{w.Handler.WithGroup(name)} }

func (m *Mailer) newClient() (*river.Client[pgx.Tx], error) {
	c := &river.Config{PollOnly: true, Logger: slog.New(warnings{m.log.Handler()}), FetchPollInterval: pollEvery, JobTimeout: attemptTime,
		RescueStuckJobsAfter: rescueAfter, DiscardedJobRetentionPeriod: keepGivenUp, CancelledJobRetentionPeriod: keepGivenUp,
		SoftStopTimeout: drain, Workers: river.NewWorkers()}
	if err := river.AddWorkerSafely(c.Workers, &worker{m: m}); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	if m.sender != nil {
		c.Queues = map[string]river.QueueConfig{queue: {MaxWorkers: workers}}
	}
	client, err := river.NewClient[pgx.Tx](quietDriver{riverpgxv5.New(m.pool)}, c)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return client, nil
}

// Run delivers what is enqueued until the context ends. Without a Sender it
// does nothing.
func (m *Mailer) Run(ctx context.Context) error {
	if m.sender == nil {
		return nil
	}
	for ctx.Err() == nil {
		err := m.deliverUntil(ctx)
		if err == nil {
			return nil
		}
		m.log.WarnContext(ctx, "starting to deliver mails", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
	return nil
}

// deliverUntil runs River until the context ends. Once it runs, River is asked to
// stop and not given the context's end: what that breaks off it logs as errors.
func (m *Mailer) deliverUntil(ctx context.Context) error {
	running, breakOff := context.WithCancel(context.WithoutCancel(ctx))
	defer breakOff()
	started := context.AfterFunc(ctx, breakOff)
	err := m.jobs.Start(running)
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if started() {
		<-ctx.Done()
	}
	patience := leave
	if m.underWay.Load() > 0 {
		patience += drain
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := m.jobs.Stop(ending); err != nil {
		m.log.WarnContext(ctx, "the delivery of mails did not end in time; mails under way may be sent twice", "error", err)
	}
	return nil
}

type worker struct {
	river.WorkerDefaults[job]
	m *Mailer
}

// NextRetry doubles the wait with each attempt.
func (w *worker) NextRetry(j *river.Job[job]) time.Time {
	wait := firstWait
	for range j.Attempt - 1 {
		wait = min(2*wait, longestWait)
	}
	return w.m.now().Add(wait)
}

// Work tries to deliver one mail. Nothing that it logs or returns, to be kept
// with the job, names the recipient but by id.
func (w *worker) Work(ctx context.Context, j *river.Job[job]) error {
	m := w.m
	m.underWay.Add(1)
	defer m.underWay.Add(-1)
	err := m.deliver(ctx, j)
	switch {
	case err == nil:
		m.mails.WithLabelValues("sent").Inc()
		return nil
	case errors.Is(err, sallyport.NotFound):
		m.mails.WithLabelValues("dropped").Inc()
		return nil
	case errors.Is(err, ErrRefused), j.Attempt >= j.MaxAttempts:
		m.mails.WithLabelValues("given_up").Inc()
		m.log.ErrorContext(ctx, "a mail was given up", "job", j.ID, "account", j.Args.Account, "user", j.Args.User,
			"subject", j.Args.Content.Subject, "attempts", j.Attempt, "error", err)
		return river.JobCancel(err)
	}
	m.mails.WithLabelValues("failed").Inc()
	m.log.WarnContext(ctx, "a mail was not sent; it will be tried again", "job", j.ID, "attempt", j.Attempt, "error", err)
	return err
}

func (m *Mailer) deliver(ctx context.Context, j *river.Job[job]) error {
	email, err := m.email(ctx, m.pool, j.Args.Account, j.Args.User)
	if err != nil {
		return err
	}
	to := Address{Email: email}
	if err := to.check(); err != nil {
		return fmt.Errorf("%w: the user's address is not one that can be mailed", ErrRefused)
	}
	content := j.Args.Content
	if content.Principal != "" && m.name != nil {
		name, err := m.name(ctx, m.pool, j.Args.Account, j.Args.User, content.Principal)
		if err != nil {
			return err
		}
		content = content.naming(name)
	}
	message, err := content.message(m.from, to, m.messageID(j))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return m.sender.Send(ctx, message)
}

// messageID is the same for all attempts of a job, and another for the job that
// has its number after a restore of the database.
func (m *Mailer) messageID(j *river.Job[job]) string {
	return fmt.Sprintf("%d.%d@%s", j.ID, j.CreatedAt.UnixMicro(), m.from.domain())
}
