package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

// TestMain is also the program that TestAKilledSenderLosesNothing kills.
func TestMain(m *testing.M) {
	if address := os.Getenv("MAIL_TEST_SMTP"); address != "" {
		if err := deliver(os.Getenv("MAIL_TEST_DATABASE"), address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

func deliver(url, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := pg.Open(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	sender, err := mail.NewSMTP(mail.SMTPConfig{Address: address, TLS: mail.NoTLS})
	if err != nil {
		return err
	}
	m, err := mail.New(mail.Config{Pool: pool, Sender: sender, From: from, Email: emailOf, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return m.Run(ctx)
}

var from = mail.Address{Name: "Example Cloud", Email: "cloud@example.com"}

// emailOf knows every user but u_gone.
func emailOf(_ context.Context, _ pg.Querier, _ sallyport.AccountID, user string) (string, error) {
	switch user {
	case "u_gone":
		return "", sallyport.NotFound.Errorf("there is no user %s", user)
	case "u_odd":
		return "odd\r\nRCPT TO:<victim@example.org>@example.com", nil
	}
	return user + "@example.org", nil
}

var content = mail.Content{Subject: "Hello", Paragraphs: []string{"A paragraph."}, Reason: "A test."}

// mailer is a Mailer over a database, and what it logged.
type mailer struct {
	*mail.Mailer
	pool *pgxpool.Pool
	logs *logs
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newMailer(t testing.TB, pool *pgxpool.Pool, sender mail.Sender) mailer {
	t.Helper()
	l := new(logs)
	m, err := mail.New(mail.Config{Pool: pool, Sender: sender, From: from, Email: emailOf, Logger: slog.New(slog.NewTextHandler(l, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return mailer{m, pool, l}
}

// run delivers until the test ends.
func (m mailer) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (m mailer) enqueue(t testing.TB, users ...string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), m.pool, func(tx pgx.Tx) error { return m.Enqueue(t.Context(), tx, "acct2", users, content) })
	if err != nil {
		t.Fatal(err)
	}
}

// jobs counts the jobs by state.
func (m mailer) jobs(t testing.TB) map[string]int {
	t.Helper()
	rows, err := m.pool.Query(t.Context(), `select state::text, count(*) from river_job group by state`)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	var state string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error { counts[state] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return counts
}

func (m mailer) exec(t testing.TB, sql string) {
	t.Helper()
	if _, err := m.pool.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(45 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 45 s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestMailsGoOutWithTheirCause(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := startSMTP(t, true, false)
	m := newMailer(t, pgtest.Clone(t), newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots}))
	m.run(t)
	undone := errors.New("undone")
	err := pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		if err := m.Enqueue(ctx, tx, "acct2", []string{"u_never"}, content); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	m.enqueue(t, "u_ann", "u_gone", "u_bob")
	m.enqueue(t) // to nobody
	eventually(t, "three jobs done", func() bool { return m.jobs(t)["completed"] == 3 })
	var to []string
	ids := map[string]bool{}
	for _, mail := range server.got() {
		to = append(to, mail.to...)
		ids[id(t, mail)] = true
	}
	if diff := cmp.Diff([]string{"u_ann@example.org", "u_bob@example.org"}, to, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if len(ids) != 2 {
		t.Errorf("two mails have the Message-IDs %v", ids)
	}
	var args string
	if err := m.pool.QueryRow(ctx, `select string_agg(args::text, ' ') from river_job`).Scan(&args); err != nil || strings.Contains(args, "@") {
		t.Errorf("the jobs hold addresses: %s, %v", args, err)
	}
}

func id(t testing.TB, r received) string {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(r.data))
	if err != nil {
		t.Fatal(err)
	}
	return m.Header.Get("Message-Id")
}

// TestEnqueueDoesNotNotify: NOTIFY inside the caller's transaction would order
// all commits of the server.
func TestEnqueueDoesNotNotify(t *testing.T) {
	t.Parallel()
	m := newMailer(t, pgtest.Clone(t), nil)
	c, err := m.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Exec(t.Context(), `listen "public.river_insert"`); err != nil {
		t.Fatal(err)
	}
	m.enqueue(t, "u_ann")
	m.exec(t, `notify "public.river_insert", 'the end'`)
	n, err := c.Conn().WaitForNotification(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n.Payload != "the end" {
		t.Errorf("enqueueing notified: %s", n.Payload)
	}
	if err := m.Run(t.Context()); err != nil { // without a sender it ends at once
		t.Error(err)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	server := startSMTP(t, true, false)
	var attempts atomic.Int32
	server.refuse(func(s *smtpServer) {
		s.onRcpt = func() error {
			if attempts.Add(1) < 3 {
				return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "<u_ann@example.org>: later"}
			}
			return nil
		}
	})
	m := newMailer(t, pgtest.Clone(t), newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots}))
	m.enqueue(t, "u_ann")
	m.run(t)
	for want := range int32(2) {
		eventually(t, "a failed attempt", func() bool { return m.jobs(t)["retryable"] == 1 && attempts.Load() == want+1 })
		var wait time.Duration
		if err := m.pool.QueryRow(t.Context(), `select scheduled_at - attempted_at from river_job`).Scan(&wait); err != nil {
			t.Fatal(err)
		}
		if base := 15 * time.Second << want; wait < base-time.Second || wait > base+5*time.Second {
			t.Errorf("after attempt %d it waits %s, want about %s", want+1, wait, base)
		}
		m.exec(t, `update river_job set scheduled_at = now()`) // time passes
	}
	eventually(t, "the mail is sent", func() bool { return m.jobs(t)["completed"] == 1 })
	if n := len(server.got()); n != 1 {
		t.Errorf("the server has %d mails", n)
	}
	m.noAddresses(t)
}

// noAddresses fails the test if an address is in the logs or with the jobs.
func (m mailer) noAddresses(t testing.TB) {
	t.Helper()
	var rows string
	if err := m.pool.QueryRow(t.Context(), `select coalesce(string_agg(river_job::text, ' '), '') from river_job`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{rows, m.logs.String()} {
		if strings.Contains(text, "example.org") {
			t.Errorf("an address is kept or logged:\n%s", text)
		}
	}
}

func TestGivenUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, user, sql string
		code            int
		words           string
	}{
		{"refused for good", "u_ann", "", 550, "550 5.1.1"},
		{"the last attempt", "u_ann", `update river_job set attempt = max_attempts - 1`, 451, "451 4.1.1"},
		{"an address that is none", "u_odd", "", 250, "not one that can be mailed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := startSMTP(t, true, false)
			server.refuse(func(s *smtpServer) {
				s.onRcpt = func() error {
					return &smtp.SMTPError{Code: test.code, EnhancedCode: smtp.EnhancedCode{test.code / 100, 1, 1}, Message: "<u_ann@example.org> no"}
				}
			})
			m := newMailer(t, pgtest.Clone(t), newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots}))
			m.enqueue(t, test.user)
			if test.sql != "" {
				m.exec(t, test.sql)
			}
			m.run(t)
			eventually(t, "the job is given up", func() bool { return m.jobs(t)["cancelled"] == 1 })
			if text := m.logs.String(); !strings.Contains(text, "a mail was given up") || !strings.Contains(text, test.words) || !strings.Contains(text, test.user) {
				t.Errorf("logged: %s", text)
			}
			if n := len(server.got()); n != 0 {
				t.Errorf("the server has %d mails", n)
			}
			m.noAddresses(t)
		})
	}
}

// TestAKilledSenderLosesNothing kills the sender (SIGKILL) after the server has
// the mail and before the sender knows.
func TestAKilledSenderLosesNothing(t *testing.T) {
	t.Parallel()
	server := startSMTP(t, false, false)
	pool := pgtest.Clone(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "MAIL_TEST_SMTP="+server.address, "MAIL_TEST_DATABASE="+pool.Config().ConnString())
	child.Stderr = os.Stderr
	started, killed := make(chan *os.Process, 1), make(chan error, 1)
	server.refuse(func(s *smtpServer) {
		s.onData = func() error {
			if process, ok := <-started; ok {
				killed <- process.Kill()
			}
			return nil
		}
	})
	m := newMailer(t, pool, newSMTP(t, mail.SMTPConfig{Address: server.address, TLS: mail.NoTLS}))
	m.enqueue(t, "u_ann")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	started <- child.Process
	close(started)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if got := m.jobs(t); got["running"] != 1 {
		t.Fatalf("after the kill the jobs are %v", got)
	}
	// Five minutes later: the dead program's lease as leader is over.
	m.exec(t, `update river_job set attempted_at = attempted_at - interval '5 minutes'`)
	m.exec(t, `delete from river_leader`)
	m.run(t)
	eventually(t, "the job was rescued", func() bool { return m.jobs(t)["retryable"] == 1 || m.jobs(t)["completed"] == 1 })
	m.exec(t, `update river_job set scheduled_at = now() where state = 'retryable'`)
	eventually(t, "the mail is sent", func() bool { return m.jobs(t)["completed"] == 1 })
	mails := server.got()
	if len(mails) != 2 || id(t, mails[0]) != id(t, mails[1]) {
		t.Errorf("want the mail twice with one Message-ID, got %d: %+v", len(mails), mails)
	}
}

// TestTwoCopies: two copies of the service send each mail once.
func TestTwoCopies(t *testing.T) {
	t.Parallel()
	server := startSMTP(t, true, false)
	pool := pgtest.Clone(t)
	sender := newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots})
	one, two := newMailer(t, pool, sender), newMailer(t, pool, sender)
	one.run(t)
	two.run(t)
	var users []string
	for i := range 40 {
		users = append(users, fmt.Sprintf("u_%d", i))
	}
	one.enqueue(t, users...)
	eventually(t, "all are sent", func() bool { return one.jobs(t)["completed"] == len(users) })
	if n := len(server.got()); n != len(users) {
		t.Errorf("the server has %d mails of %d", n, len(users))
	}
}

// TestRiversTables compares the tables of our migration with what River's own
// migrations make.
func TestRiversTables(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool := pgtest.Clone(t)
	quiet := &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)}
	ours, err := rivermigrate.New(riverpgxv5.New(pool), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if result, err := ours.Validate(ctx, nil); err != nil || !result.OK {
		t.Errorf("River misses migrations: %+v, %v", result, err)
	}
	if _, err := pool.Exec(ctx, `create schema theirs`); err != nil {
		t.Fatal(err)
	}
	theirs, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet.Logger, Schema: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(shape(t, pool, "theirs"), shape(t, pool, "public")); diff != "" {
		t.Errorf("the tables differ from River's (-theirs +ours):\n%s", diff)
	}
}

// shape describes River's tables in a schema: columns, constraints, indexes,
// enums and functions.
func shape(t testing.TB, pool *pgxpool.Pool, schema string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select replace(x, $1 || '.', '')
		from (
		    select concat_ws(' ', 'column', table_name, column_name, data_type, udt_name, character_maximum_length, is_nullable, column_default)
		    from information_schema.columns
		    where table_schema = $1 and table_name like 'river%'
		    union all
		    select concat_ws(' ', 'constraint', r.relname, c.conname, pg_get_constraintdef(c.oid))
		    from pg_constraint c
		    join pg_class r on r.oid = c.conrelid
		    where c.connamespace = $1::regnamespace and r.relname like 'river%'
		    union all
		    select concat_ws(' ', 'index', indexdef)
		    from pg_indexes
		    where schemaname = $1 and tablename like 'river%'
		    union all
		    select concat_ws(' ', 'table', relname, relpersistence)
		    from pg_class
		    where relnamespace = $1::regnamespace and relkind = 'r' and relname like 'river%'
		    union all
		    select concat_ws(' ', 'enum', t.typname, e.enumlabel, row_number() over (partition by t.oid order by e.enumsortorder))
		    from pg_enum e
		    join pg_type t on t.oid = e.enumtypid
		    where t.typnamespace = $1::regnamespace
		    union all
		    select concat_ws(' ', 'function', proname, provolatile, prosrc)
		    from pg_proc
		    where pronamespace = $1::regnamespace and proname like 'river%'
		) as shape (x)
		order by x`, schema)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) < 40 {
		t.Fatalf("only %d lines for schema %s", len(lines), schema)
	}
	return lines
}
