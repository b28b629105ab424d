package mail_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

// nowhere takes every mail.
type nowhere struct{}

func (nowhere) Send(context.Context, mail.Message) error { return nil }

// The end is quick and quiet, whenever it comes.
func TestEndsQuickly(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	for _, after := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond,
		100 * time.Millisecond, time.Second, 2*time.Second - time.Millisecond, 2 * time.Second, 2*time.Second + time.Millisecond} {
		m := newMailer(t, pool, nowhere{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		time.Sleep(after)
		cancel()
		begun := time.Now()
		err := <-done
		if took := time.Since(begun); err != nil || took > 2*time.Second {
			t.Errorf("asked to end after %s: got %v after %s", after, err, took)
		}
		if said := m.logs.String(); strings.TrimSpace(said) != "" {
			t.Errorf("asked to end after %s: logged %s", after, said)
		}
	}
}

// Nor does it wait for a database that has gone.
func TestEndsQuicklyWithoutDatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	m := newMailer(t, pool, nowhere{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for leads := false; !leads; time.Sleep(10 * time.Millisecond) {
		if err := pool.QueryRow(ctx, `select exists (select from river_leader)`).Scan(&leads); err != nil {
			t.Fatal(err)
		}
	}
	pool.Close()
	cancel()
	begun := time.Now()
	err := <-done
	if took := time.Since(begun); err != nil || took > 3*time.Second {
		t.Errorf("got %v after %s", err, took)
	}
}
