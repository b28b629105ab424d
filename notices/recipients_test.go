package notices_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
	"github.com/sallyport-iam/sallyport/notices"
)

// TestWhoIsTold goes the whole way, from a change in a real account to the mails
// in the outbox: owners, admins and the namespace's admins, but for him who was
// removed before his mail was sent.
func TestWhoIsTold(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pool := pgtest.Clone(t)
	j, err := journal.New(journal.Config{Pool: pool, Resolve: func(_ context.Context, _ pg.Querier, c sallyport.Caller) (sallyport.Caller, error) { return c, nil }})
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(directory.Config{Journal: j, Pages: page.NewSigner([32]byte{1}), Regions: []directory.Region{{ID: "aws-us-east-1", Cell: "one"}}})
	if err != nil {
		t.Fatal(err)
	}
	operator := sallyport.OperatorCaller("acct2", "test")
	if _, _, _, err := d.CreateAccount(ctx, operator, journal.Operation{Type: "CreateAccount"},
		directory.AccountParams{ID: "acct2", Name: "Test", OwnerEmail: "owner@example.org"}); err != nil {
		t.Fatal(err)
	}
	n, _, err := d.CreateNamespace(ctx, operator, journal.Operation{Type: "CreateNamespace"},
		directory.NamespaceParams{Name: "orders", Region: "aws-us-east-1", RetentionDays: 7, APIKeyAuth: true})
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]string{}
	for email, access := range map[string]directory.Access{
		"admin@example.org": {Role: sallyport.RoleAdmin}, "reader@example.org": {Role: sallyport.RoleRead}, "leaver@example.org": {Role: sallyport.RoleAdmin},
		"namespace@example.org": {Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionAdmin}},
	} {
		u, _, err := d.CreateUser(ctx, operator, journal.Operation{Type: "CreateUser"}, directory.UserParams{Email: email, Access: access})
		if err != nil {
			t.Fatal(err)
		}
		users[email] = u.ID
	}
	outbox, err := mail.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	mailer, err := mail.New(mail.Config{Pool: pool, Sender: outbox, From: mail.Address{Email: "cloud@example.com"},
		Email: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) (string, error) {
			r, err := d.Recipient(ctx, q, account, user)
			return r.Email, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	told, err := notices.New(notices.Config{Pool: pool, Mailer: mailer, Recipients: d.Recipients})
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Commit(ctx, operator, "acct2", journal.Operation{Type: "UpdateNamespace"}, func(tx *journal.Tx) error {
		return told.Warn(ctx, tx.Transaction(), notices.Taken{Account: "acct2", Namespace: n.ID, Name: n.Name, Caller: users["admin@example.org"],
			What: "client CAs were removed", Fingerprints: []string{"ab"}, Count: 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeleteUser(ctx, operator, journal.Operation{Type: "DeleteUser"}, users["leaver@example.org"], 0); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- mailer.Run(running) }()
	for left := -1; left != 0; time.Sleep(20 * time.Millisecond) {
		if err := pool.QueryRow(ctx, `select count(*) from river_job where state <> 'completed'`).Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mails, err := outbox.Mails(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var to []string
	for _, m := range mails {
		to = append(to, m.To.Email)
	}
	slices.Sort(to)
	if diff := cmp.Diff([]string{"admin@example.org", "namespace@example.org", "owner@example.org"}, to); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
