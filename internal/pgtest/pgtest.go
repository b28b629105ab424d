// Package pgtest gives tests real PostgreSQL databases, migrated to the
// newest schema: one server per test process, one shared database per package,
// and private clones for tests of what is global.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgserver"
)

// folder begins the name of a test process's folder among temporary files.
const folder = "sallyport-pgtest-"

// template is the migrated database that all others are cloned from.
const template = "template_sallyport"

// process is what the tests of this process share. It is a variable because
// TestMain has no other way to hand something to tests.
var process struct {
	running bool // under Main
	mu      sync.Mutex
	started bool
	dir     string
	server  *pgserver.Server
	admin   *pgxpool.Pool // of database postgres: creates and drops the others
	shared  *pgxpool.Pool
	clones  int
	err     error // why there is no server; sticks
}

// Main runs the tests, stops the server if one was started, removes its data
// and exits. The server starts when the first test asks for it.
func Main(m *testing.M) {
	process.running = true
	code := m.Run()
	if err := shutdown(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Server is the process's PostgreSQL server. Without PostgreSQL programs on the
// machine the test is skipped, or fails if the environment has CI set.
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	process.mu.Lock()
	defer process.mu.Unlock()
	return server(t)
}

// DB is the package's database, shared by all tests of the process: make an
// account of your own in it and run in parallel.
func DB(t testing.TB) *pgxpool.Pool {
	t.Helper()
	process.mu.Lock()
	defer process.mu.Unlock()
	server(t)
	if process.shared == nil {
		pool, err := clone(t.Context(), "shared")
		if err != nil {
			t.Fatal(err)
		}
		process.shared = pool
	}
	return process.shared
}

// Clone is a database of the test's own, dropped at its end.
func Clone(t testing.TB) *pgxpool.Pool {
	t.Helper()
	name := newName(t)
	pool, err := clone(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, name, pool) })
	return pool
}

// URL is the URL of a database of the test's own, dropped at its end together
// with the connections that are still open.
func URL(t testing.TB) string {
	t.Helper()
	name := newName(t)
	if err := create(t.Context(), name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, name, nil) })
	return process.server.URL(name)
}

// newName names a clone, starting the server if need be.
func newName(t testing.TB) string {
	t.Helper()
	process.mu.Lock()
	defer process.mu.Unlock()
	server(t)
	process.clones++
	return fmt.Sprintf("clone_%d", process.clones)
}

// server starts the server once. The caller holds process.mu.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	if !process.running {
		t.Fatal("pgtest: the package needs: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if !process.started {
		process.started = true
		process.err = start(context.Background())
	}
	var missing *pgserver.ProgramsError
	switch {
	case errors.As(process.err, &missing) && os.Getenv("CI") == "":
		t.Skip("SKIPPED, nothing was tested: ", missing)
	case process.err != nil:
		t.Fatal(process.err)
	}
	return process.server
}

// start starts the server and makes the template database.
func start(ctx context.Context) error {
	sweep()
	var err error
	process.dir, err = os.MkdirTemp("", folder+"*")
	if err != nil {
		return err
	}
	if err := os.Chmod(process.dir, 0o711); err != nil { //nolint:gosec // for PostgreSQL's account; what is inside is closed
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	process.server, err = pgserver.Start(ctx, pgserver.Config{Dir: process.dir, NoSync: true})
	if err != nil {
		return err
	}
	process.admin, err = pg.Open(ctx, process.server.URL("postgres"))
	if err != nil {
		return err
	}
	if err := create(ctx, template, "template0"); err != nil {
		return err
	}
	pool, err := pg.Open(ctx, process.server.URL(template))
	if err != nil {
		return err
	}
	defer pool.Close() // a template with connections cannot be cloned
	return pg.Migrate(ctx, pool)
}

// sweep removes the servers' folders of test processes that were killed or
// panicked: those older than a minute whose lock is free. What cannot be removed
// is left to the next.
func sweep() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), folder+"*", "server.lock")) // fails on a bad pattern only
	for _, path := range locks {
		lock, err := os.Open(path)
		if err != nil {
			continue // another user's, or gone by now
		}
		info, err := lock.Stat()
		if err == nil && time.Since(info.ModTime()) > time.Minute && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		lock.Close()
	}
}

// shutdown undoes start.
func shutdown() error {
	process.mu.Lock()
	defer process.mu.Unlock()
	for _, pool := range []*pgxpool.Pool{process.shared, process.admin} {
		if pool != nil {
			pool.Reset() // a test that leaks a connection must not hang Close
		}
	}
	var err error
	if process.server != nil {
		err = process.server.Stop()
	}
	if process.dir != "" {
		err = errors.Join(err, os.RemoveAll(process.dir))
	}
	return err
}

// clone makes a database from the template and opens it.
func clone(ctx context.Context, name string) (*pgxpool.Pool, error) {
	if err := create(ctx, name, template); err != nil {
		return nil, err
	}
	// The pool outlives the test that asked for it first.
	return pg.Open(context.WithoutCancel(ctx), process.server.URL(name))
}

func create(ctx context.Context, name, from string) error {
	sql := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " TEMPLATE " + pgx.Identifier{from}.Sanitize()
	if _, err := process.admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("creating the test database %s: %w", name, err)
	}
	return nil
}

// drop removes a database. It runs in a cleanup, when the test's context has ended.
func drop(t testing.TB, name string, pool *pgxpool.Pool) {
	t.Helper()
	_, err := process.admin.Exec(context.Background(), "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	if err != nil {
		t.Errorf("dropping the test database %s: %v", name, err)
	}
	if pool != nil {
		pool.Close()
	}
}
