package notices_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/notices"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const day = 24 * time.Hour

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is a Notices over a database of its own, with what expires and who is
// told as the test says.
type world struct {
	*notices.Notices
	pool *pgxpool.Pool

	mu         sync.Mutex
	now        time.Time
	expiring   []notices.Expiring
	recipients map[sallyport.NamespaceID][]directory.Recipient
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{pool: pgtest.Clone(t), now: start,
		recipients: map[sallyport.NamespaceID][]directory.Recipient{"ns_orders": {{User: "u_ann"}, {User: "u_bob"}}, "ns_bills": {{User: "u_ann"}}}}
	w.Notices = w.notices(t)
	return w
}

// notices is one copy of the service.
func (w *world) notices(t testing.TB) *notices.Notices {
	t.Helper()
	mailer, err := mail.New(mail.Config{Pool: w.pool})
	if err != nil {
		t.Fatal(err)
	}
	n, err := notices.New(notices.Config{Pool: w.pool, Mailer: mailer,
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Expiring: func(context.Context, pg.Querier, time.Time) ([]notices.Expiring, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			var list []notices.Expiring
			for _, e := range w.expiring {
				if e.Days = threshold(e.NotAfter.Sub(w.now), e.Kind); e.Days > 0 {
					list = append(list, e)
				}
			}
			return list, nil
		},
		Recipients: func(_ context.Context, _ pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) ([]directory.Recipient, error) {
			if account != "acct2" {
				return nil, errors.New("of another account")
			}
			return w.recipients[namespace], nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// threshold is what the domain says, 0 for nothing.
func threshold(left time.Duration, kind notices.Kind) int {
	for _, days := range []int{5, 10, 15} {
		if left > 0 && left <= time.Duration(days)*day && (days == 5 || kind == notices.CA) {
			return days
		}
	}
	return 0
}

// sweep lets the time pass to the day after start, and gives the mails of the
// sweep: user and subject.
func (w *world) sweep(t testing.TB, days float64) []string {
	t.Helper()
	w.mu.Lock()
	w.now = start.Add(time.Duration(days * float64(day)))
	w.mu.Unlock()
	if _, err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.mails(t)
}

// mails takes what is enqueued.
func (w *world) mails(t testing.TB) []string {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), `
		with taken as (delete from river_job returning id, args)
		select concat_ws(' ', args->>'account', args->>'user', args->'content'->>'subject')
		from taken
		order by id`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func expiring(kind notices.Kind, namespace, fingerprint string, days float64) notices.Expiring {
	return notices.Expiring{Account: "acct2", Namespace: sallyport.NamespaceID("ns_" + namespace), Name: namespace, Kind: kind,
		Fingerprint: fingerprint, Subject: "CN=" + fingerprint, NotAfter: start.Add(time.Duration(days * float64(day)))}
}

func wantMails(t testing.TB, when string, got []string, want ...string) {
	t.Helper()
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func TestCAsAreToldOfThreeTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expiring = []notices.Expiring{expiring(notices.CA, "orders", "a", 20)}
	subject := "1 client CA certificate of namespace orders.acct2 expires within %d days"
	for _, step := range []struct {
		day  float64
		days int // of the notice; 0: none
	}{{0, 0}, {4.9, 0}, {5, 15}, {5.1, 0}, {9.9, 0}, {10.1, 10}, {12, 0}, {15.5, 5}, {16, 0}, {19.9, 0}, {20, 0}, {21, 0}} {
		var want []string
		if step.days > 0 {
			want = []string{"acct2 u_ann " + fmt.Sprintf(subject, step.days), "acct2 u_bob " + fmt.Sprintf(subject, step.days)}
		}
		w.Notices = w.notices(t) // restarted in between
		wantMails(t, fmt.Sprintf("day %v", step.day), w.sweep(t, step.day), want...)
	}
	var kept int
	count := func() int {
		if err := w.pool.QueryRow(t.Context(), `select count(*) from notices`).Scan(&kept); err != nil {
			t.Fatal(err)
		}
		return kept
	}
	if count() != 3 {
		t.Errorf("%d notices are known, want 3", kept)
	}
	w.sweep(t, 51)
	if count() != 0 {
		t.Errorf("long after the end %d notices are known", kept)
	}
}

func TestALateNoticeIsOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expiring = []notices.Expiring{expiring(notices.CA, "bills", "a", 3)}
	wantMails(t, "the first sweep", w.sweep(t, 0), "acct2 u_ann 1 client CA certificate of namespace bills.acct2 expires within 5 days")
	wantMails(t, "the second", w.sweep(t, 1))
}

func TestOneMailForAllOfAKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 60 {
		w.expiring = append(w.expiring, expiring(notices.Leaf, "bills", fmt.Sprintf("leaf%02d", i), 3+float64(i)/100))
	}
	w.expiring = append(w.expiring, expiring(notices.CA, "bills", "ca1", 4), expiring(notices.CA, "bills", "ca2", 14), expiring(notices.CA, "bills", "ca3", 4.5))
	wantMails(t, "the sweep", w.sweep(t, 0),
		"acct2 u_ann 60 client certificates in use on namespace bills.acct2 expire within 5 days",
		"acct2 u_ann 2 client CA certificates of namespace bills.acct2 expire within 5 days",
		"acct2 u_ann 1 client CA certificate of namespace bills.acct2 expires within 15 days")
}

func TestLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expiring = []notices.Expiring{expiring(notices.Leaf, "bills", "now", 4), expiring(notices.Leaf, "bills", "later", 10), expiring(notices.Leaf, "bills", "soon", 5.5), expiring(notices.Leaf, "bills", "soon2", 5.6)}
	wantMails(t, "the first day", w.sweep(t, 0), "acct2 u_ann 1 client certificate in use on namespace bills.acct2 expires within 5 days")
	wantMails(t, "later that day: it waits", w.sweep(t, 0.7))
	wantMails(t, "the next day", w.sweep(t, 1), "acct2 u_ann 2 client certificates in use on namespace bills.acct2 expire within 5 days")
	wantMails(t, "the day after", w.sweep(t, 2))
	wantMails(t, "the last", w.sweep(t, 5), "acct2 u_ann 1 client certificate in use on namespace bills.acct2 expires within 5 days")
	w.expiring = []notices.Expiring{expiring(notices.CA, "orders", "of another account", 8)}
	w.expiring[0].Account = "acct3"
	if _, err := w.Sweep(t.Context()); err == nil {
		t.Error("a failure to tell was not reported")
	}
	var n int
	if err := w.pool.QueryRow(t.Context(), `select count(*) from notices where account_id = 'acct3'`).Scan(&n); err != nil || n != 0 {
		t.Errorf("what could not be told counts as told: %d, %v", n, err)
	}
}

func TestCopiesTellOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 {
		name := fmt.Sprintf("n%d", i)
		w.recipients[sallyport.NamespaceID("ns_"+name)] = []directory.Recipient{{User: "u_" + name}}
		w.expiring = append(w.expiring, expiring(notices.CA, name, "a", 3), expiring(notices.Leaf, name, "b", 3))
	}
	var wg sync.WaitGroup
	for range 4 {
		n := w.notices(t)
		wg.Go(func() {
			if _, err := n.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	counts := map[string]int{}
	for _, m := range w.mails(t) {
		counts[m]++
	}
	for m, n := range counts {
		if n != 1 {
			t.Errorf("%d times: %s", n, m)
		}
	}
	if len(counts) != 40 {
		t.Errorf("%d mails, want 40", len(counts))
	}
}

func TestWarn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	taken := notices.Taken{Account: "acct2", Namespace: "ns_orders", Name: "orders", Caller: "u_eve", What: "the CA ab12 was removed", Fingerprints: []string{"f1", "f2"}, Count: 2}
	undone := errors.New("undone")
	err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
		if err := w.Warn(t.Context(), tx, taken); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	wantMails(t, "of a change that was undone", w.mails(t))
	if err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error { return w.Warn(t.Context(), tx, taken) }); err != nil {
		t.Fatal(err)
	}
	subject := "A change of namespace orders.acct2 turns away clients that used it"
	wantMails(t, "of the change", w.mails(t), "acct2 u_ann "+subject, "acct2 u_bob "+subject)
}

// TestTexts reads the mails as people get them. With NOTICES_OUT they are
// written to that folder, to be looked at.
func TestTexts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hostile := expiring(notices.CA, "bills", strings.Repeat("cd", 32), 4)
	hostile.Subject = "CN=Pay now at https://evil.example/pay <b>!</b>,O=" + strings.Repeat("x", 300)
	w.expiring = []notices.Expiring{expiring(notices.CA, "bills", strings.Repeat("ab", 32), 3.1), hostile}
	for i := range 52 {
		w.expiring = append(w.expiring, expiring(notices.Leaf, "bills", fmt.Sprintf("%064x", i), 1.2))
	}
	outbox, err := mail.NewOutbox(w.pool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
		return w.Warn(t.Context(), tx, notices.Taken{Account: "acct2", Namespace: "ns_bills", Name: "bills", Caller: "u_eve",
			What: "UpdateNamespace removed 1 CA and 1 filter that certificates in use need.", Fingerprints: []string{strings.Repeat("12", 32), strings.Repeat("34", 32)}, Count: 2, AtLeast: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	mails := deliver(t, w.pool, outbox, 3)
	for _, test := range []struct {
		subject string
		text    []string
	}{
		{"2 client CA certificates of namespace bills.acct2 expire within 5 days", []string{
			"- Subject: CN=" + strings.Repeat("ab", 32) + "\n  Expires: 2026-11-04 14:24 UTC (in 3 days)\n  SHA-256: abab",
			"    sallyport cert check --namespace bills.acct2 --with new-bundle.pem\n", "Subject: CN=Pay now at https:\u2060/\u2060/\u2060evil.\u2060example/\u2060pay <b>!</\u2060b>",
			"You get this mail as an owner or admin of account acct2,"}},
		{"52 client certificates in use on namespace bills.acct2 expire within 5 days", []string{"(in 28 hours)", "And 2 more.", "sallyport cert seen --namespace bills.acct2"}},
		{"A change of namespace bills.acct2 turns away clients that used it", []string{
			"At 2026-11-01 12:00 UTC u_eve changed namespace bills.acct2: UpdateNamespace\nremoved 1 CA and 1 filter that certificates in use need.\n", "more than 2 client certificates", strings.Repeat("12", 32) + "\n- SHA-256: 3434"}},
	} {
		m, ok := mails[test.subject]
		if !ok {
			t.Errorf("there is no mail %q", test.subject)
			continue
		}
		for _, words := range test.text {
			if !strings.Contains(m.Text, words) {
				t.Errorf("%s: the text lacks %q:\n%s", test.subject, words, m.Text)
			}
		}
		for line := range strings.Lines(m.Text) {
			if len([]rune(line)) > 140 { // commands and subjects are not broken
				t.Errorf("%s: a long line: %s", test.subject, line)
			}
		}
		if strings.Contains(m.HTML, "<b>") || strings.Contains(m.HTML, "https://") {
			t.Errorf("%s: the HTML holds what a certificate says as markup:\n%s", test.subject, m.HTML)
		}
		if dir := os.Getenv("NOTICES_OUT"); dir != "" {
			name := dir + "/" + strings.ReplaceAll(test.subject, " ", "-")
			if err := errors.Join(os.WriteFile(name+".txt", []byte(m.Text), 0o644), os.WriteFile(name+".html", []byte(m.HTML), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// deliver runs a mailer until n mails are in the outbox, and gives them by subject.
func deliver(t testing.TB, pool *pgxpool.Pool, outbox *mail.Outbox, n int) map[string]mail.Kept {
	t.Helper()
	mailer, err := mail.New(mail.Config{Pool: pool, Sender: outbox, From: mail.Address{Email: "cloud@example.com"},
		Email: func(_ context.Context, _ pg.Querier, _ sallyport.AccountID, user string) (string, error) {
			return user + "@example.org", nil
		},
		Name: func(_ context.Context, _ pg.Querier, _ sallyport.AccountID, user, principal string) (string, error) {
			if user == "u_bob" {
				return "eve@example.org", nil
			}
			return principal, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- mailer.Run(ctx) }()
	var list []mail.Kept
	for len(list) < n && ctx.Err() == nil {
		if list, err = outbox.Mails(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	mails := map[string]mail.Kept{}
	for _, k := range list {
		if k, err = outbox.Mail(ctx, k.ID); err != nil {
			t.Fatal(err)
		}
		mails[k.Subject] = k
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return mails
}

func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expiring = []notices.Expiring{expiring(notices.CA, "bills", "a", 3)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var n int
		if err := w.pool.QueryRow(t.Context(), `select count(*) from river_job`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("Run told nobody")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := notices.New(notices.Config{}); err == nil {
		t.Error("Notices without anything were made")
	}
}

// TestWhoChanged: the mail names who made the change to those who may see that,
// and tells what becomes of the certificates.
func TestWhoChanged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		count, less int
		text        string
	}{
		"stopped":      {2, 0, "are not accepted any more. If"},
		"read":         {2, 2, "are accepted for reading only. If"},
		"either":       {2, 1, "are not accepted any more, or for reading only (1 of them). If"},
		"not all seen": {0, 0, "lately for all to be looked at; some of them may not be accepted any more. If"},
	} {
		w := newWorld(t)
		err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
			return w.Warn(t.Context(), tx, notices.Taken{Account: "acct2", Namespace: "ns_orders", Name: "orders", Caller: "u_eve", What: "x", Fingerprints: slices.Repeat([]string{"f1"}, min(test.count, 1)), Count: test.count, AtLeast: test.count == 0, Less: test.less})
		})
		if err != nil {
			t.Fatal(err)
		}
		outbox, err := mail.NewOutbox(w.pool)
		if err != nil {
			t.Fatal(err)
		}
		deliver(t, w.pool, outbox, 2)
		list, err := outbox.Mails(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("%d mails, %v", len(list), err)
		}
		for _, k := range list {
			m, err := outbox.Mail(t.Context(), k.ID)
			if err != nil {
				t.Fatal(err)
			}
			who := " u_eve changed namespace"
			if strings.Contains(m.To.Email, "u_bob") {
				who = " (u_eve) changed namespace"
			}
			text := strings.Join(strings.Fields(m.Text), " ")
			if !strings.Contains(text, who) || strings.Contains(text, "eve@") != strings.Contains(m.To.Email, "u_bob") || !strings.Contains(text, test.text) {
				t.Errorf("%s, to %s: the text lacks %q or %q:\n%s", name, m.To.Email, who, test.text, m.Text)
			}
		}
	}
}
