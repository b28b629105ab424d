// Package mail is what every mail of the product goes through: jobs in the
// database that are enqueued in the transaction of their cause, and a sender
// that works them off.
//
// A mail is delivered at least once. Its Message-ID is that of its job, so that
// the second copy after a crash is recognisable. A job names its recipient by
// the user's id; the address is looked up when it is sent, and is in no job and
// no log.
//
// A program makes a Sender (NewSMTP; in development an Outbox, whose Handler
// shows what was sent), a Mailer with it, and runs Run beside its servers.
// Programs that only enqueue need neither Sender nor Run.
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Sender delivers one message, or says that it could not. It gives an error
// that wraps ErrRefused when trying again cannot help. Its errors are kept and
// logged: they name no address.
type Sender interface {
	Send(ctx context.Context, m Message) error
}

// ErrRefused is wrapped by a Sender's error about a message that will never be
// taken.
var ErrRefused = errors.New("refused for good")

// Config of a Mailer.
type Config struct {
	Pool *pgxpool.Pool // required
	From Address       // whom mails are from; required with Sender
	// Sender delivers. Nil: this program only enqueues.
	Sender Sender
	// Email gives the address of a user of an account, as it is now; NotFound when
	// there is nobody to mail (any more). Required with Sender.
	Email func(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) (string, error)
	// Name gives what a user may know a principal of the account as, now: a name, or
	// the principal's id. Nil: principals are named by their ids.
	Name    func(ctx context.Context, q pg.Querier, account sallyport.AccountID, user, principal string) (string, error)
	Now     func() time.Time      // nil: time.Now
	Logger  *slog.Logger          // nil: slog.Default()
	Metrics prometheus.Registerer // nil: none
}

// Mailer enqueues mails and delivers them. It is safe for concurrent use.
type Mailer struct {
	pool   *pgxpool.Pool
	from   Address
	sender Sender
	email  func(context.Context, pg.Querier, sallyport.AccountID, string) (string, error)
	name   func(context.Context, pg.Querier, sallyport.AccountID, string, string) (string, error)
	now    func() time.Time
	log    *slog.Logger
	jobs   *river.Client[pgx.Tx]
	mails  *prometheus.CounterVec

	underWay atomic.Int64 // mails that are being sent
}

// New makes a Mailer. With a Sender, Run must be running.
func New(c Config) (*Mailer, error) {
	if c.Pool == nil {
		return nil, errors.New("mail: Config needs Pool")
	}
	if c.Sender != nil {
		if c.Email == nil {
			return nil, errors.New("mail: Config with a Sender needs Email")
		}
		if err := c.From.check(); err != nil {
			return nil, fmt.Errorf("mail: the sender's address: %w", err)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	m := &Mailer{pool: c.Pool, from: c.From, sender: c.Sender, email: c.Email, name: c.Name, now: c.Now, log: c.Logger,
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_mails_total",
			Help: "Attempts to send a mail: sent, failed (it is tried again), given_up, or dropped since its recipient is gone."}, []string{"result"})}
	if c.Metrics != nil {
		if err := c.Metrics.Register(m.mails); err != nil {
			return nil, fmt.Errorf("mail: registering metrics: %w", err)
		}
	}
	var err error
	m.jobs, err = m.newClient()
	return m, err
}

// Enqueue makes a mail of the content for each of the users, in the transaction
// of its cause: the mails go out when that commits, and only then.
func (m *Mailer) Enqueue(ctx context.Context, tx pgx.Tx, account sallyport.AccountID, users []string, content Content) error {
	if len(users) == 0 {
		return nil
	}
	jobs := make([]river.InsertManyParams, len(users))
	for i, user := range users {
		jobs[i] = river.InsertManyParams{Args: job{Account: account, User: user, Content: content}}
	}
	if _, err := m.jobs.InsertManyTx(ctx, tx, jobs); err != nil {
		return fmt.Errorf("enqueueing mails: %w", err)
	}
	return nil
}
