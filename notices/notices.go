// Package notices tells people by mail what they would otherwise learn from an
// outage: certificates that expire soon, and changes that take away what
// certificates in use need. It asks the domain what there is to tell through
// the functions of its Config, and knows what was told already, once for all
// copies of the service.
package notices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Config of Notices.
type Config struct {
	Pool   *pgxpool.Pool // required
	Mailer *mail.Mailer  // required
	// Recipients are told of what concerns the namespace. Required:
	// directory.Directory.Recipients.
	Recipients func(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) ([]directory.Recipient, error)
	// Expiring lists the certificates of all accounts that people are told of now,
	// each with the smallest threshold that it is within. Nil: Run does nothing.
	Expiring func(ctx context.Context, q pg.Querier, now time.Time) ([]Expiring, error)
	Every    time.Duration    // how often Run looks; zero: 15 minutes
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: slog.Default()
}

// Notices tells people. It is safe for concurrent use.
type Notices struct {
	pool       *pgxpool.Pool
	mailer     *mail.Mailer
	recipients func(context.Context, pg.Querier, sallyport.AccountID, sallyport.NamespaceID) ([]directory.Recipient, error)
	expiring   func(context.Context, pg.Querier, time.Time) ([]Expiring, error)
	every      time.Duration
	now        func() time.Time
	log        *slog.Logger
}

// New makes Notices. Run must be running for expiry to be told of.
func New(c Config) (*Notices, error) {
	if c.Pool == nil || c.Mailer == nil || c.Recipients == nil {
		return nil, errors.New("notices: Config needs Pool, Mailer and Recipients")
	}
	if c.Every == 0 {
		c.Every = 15 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Notices{pool: c.Pool, mailer: c.Mailer, recipients: c.Recipients, expiring: c.Expiring,
		every: c.Every, now: c.Now, log: c.Logger}, nil
}

// Kind says what expires.
type Kind string

const (
	CA   Kind = "ca"   // of a namespace's bundle
	Leaf Kind = "leaf" // a client certificate in use
)

// Expiring is a certificate that expires soon.
type Expiring struct {
	Account     sallyport.AccountID
	Namespace   sallyport.NamespaceID
	Name        string // the namespace's, without the account
	Kind        Kind
	Fingerprint string // SHA-256, hex
	Subject     string // as the certificate says: not to be trusted
	NotAfter    time.Time
	Days        int // the threshold: it has at most so many left
}

// topic is what one mail is about.
type topic struct {
	account   sallyport.AccountID
	namespace sallyport.NamespaceID
	name      string
	kind      Kind
	days      int
}

// Sweep tells of every certificate that expires soon and was not told of at its
// threshold yet, in one mail for all of a kind in a namespace. A namespace gets at
// most one mail a day about leaves: what expires in between waits for the next.
// The mail and the memory of it are one transaction, so that there is one also
// when several copies of the service sweep at once, or one dies. It returns how
// many topics were told.
func (n *Notices) Sweep(ctx context.Context) (int, error) {
	now := sallyport.Micros(n.now())
	list, err := n.expiring(ctx, n.pool, now)
	if err != nil {
		return 0, fmt.Errorf("reading what expires: %w", err)
	}
	byTopic := map[topic][]Expiring{}
	var order []topic
	for _, e := range list {
		t := topic{e.Account, e.Namespace, e.Name, e.Kind, e.Days}
		if byTopic[t] == nil {
			order = append(order, t)
		}
		byTopic[t] = append(byTopic[t], e)
	}
	told := 0
	var failed error
	for _, t := range order {
		done, err := n.tell(ctx, t, byTopic[t], now)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("telling of namespace %s of %s: %w", t.namespace, t.account, err))
		}
		if done {
			told++
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := forget(ctx, n.pool, now.Add(-keepAfter)); err != nil {
		failed = errors.Join(failed, err)
	}
	return told, failed
}

// keepAfter is how long after a certificate's end it is known that it was told of.
const keepAfter = 30 * 24 * time.Hour

// leafPause is the shortest time between two mails about leaves of a namespace.
const leafPause = 24 * time.Hour

// tell sends the topic's mail about those that were not told of yet, if any.
func (n *Notices) tell(ctx context.Context, t topic, list []Expiring, now time.Time) (done bool, err error) {
	err = pgx.BeginFunc(ctx, n.pool, func(tx pgx.Tx) error {
		if err := lockNamespace(ctx, tx, t); err != nil {
			return err
		}
		if t.kind == Leaf {
			last, err := lastTold(ctx, tx, t)
			if err != nil || now.Sub(last) < leafPause {
				return err
			}
		}
		fresh, err := remember(ctx, tx, t, list, now)
		if err != nil || len(fresh) == 0 {
			return err
		}
		list = slices.DeleteFunc(slices.Clone(list), func(e Expiring) bool { return !fresh[e.Fingerprint] })
		slices.SortFunc(list, func(a, b Expiring) int {
			if c := a.NotAfter.Compare(b.NotAfter); c != 0 {
				return c
			}
			return strings.Compare(a.Fingerprint, b.Fingerprint)
		})
		done = true
		return n.send(ctx, tx, t.account, t.namespace, t.content(list, now))
	})
	return done && err == nil, err
}

// send enqueues the mail for everybody who is told of the namespace.
func (n *Notices) send(ctx context.Context, tx pgx.Tx, account sallyport.AccountID, namespace sallyport.NamespaceID, c mail.Content) error {
	list, err := n.recipients(ctx, tx, account, namespace)
	if err != nil {
		return err
	}
	users := make([]string, len(list))
	for i, r := range list {
		users[i] = r.User
	}
	return n.mailer.Enqueue(ctx, tx, account, users, c)
}

// Taken is a change of a namespace that took away what certificates in use need.
type Taken struct {
	Account      sallyport.AccountID
	Namespace    sallyport.NamespaceID
	Name         string   // the namespace's, without the account
	Caller       string   // id of the principal who made the change
	What         string   // what was taken away
	Fingerprints []string // of certificates that stop working: some of them
	Count        int      // of all of them
	Less         int      // of them that are accepted for reading only
	AtLeast      bool     // there may be more than Count, which may be 0 then: not all could be looked at
}

// Warn enqueues the warning in the transaction of the change.
func (n *Notices) Warn(ctx context.Context, tx pgx.Tx, t Taken) error {
	return n.send(ctx, tx, t.Account, t.Namespace, t.content(sallyport.Micros(n.now())))
}

// Run sweeps until the context ends.
func (n *Notices) Run(ctx context.Context) error {
	if n.expiring == nil {
		return nil
	}
	tick := time.NewTicker(n.every)
	defer tick.Stop()
	for {
		if _, err := n.Sweep(ctx); err != nil && ctx.Err() == nil {
			n.log.WarnContext(ctx, "telling of what expires", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
