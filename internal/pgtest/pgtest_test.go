package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestCloneIsPrivateAndMigrated(t *testing.T) {
	shared, a, b := pgtest.DB(t), pgtest.Clone(t), pgtest.Clone(t)
	exec(t, a, "CREATE TABLE only_in_a (id int)")
	for name, db := range map[string]*pgxpool.Pool{"shared": shared, "a": a, "b": b} {
		if err := pg.CheckSchema(t.Context(), db); err != nil {
			t.Errorf("%s is not migrated: %v", name, err)
		}
		var found bool
		if err := db.QueryRow(t.Context(), "SELECT to_regclass('only_in_a') IS NOT NULL").Scan(&found); err != nil {
			t.Fatal(err)
		}
		if want := name == "a"; found != want {
			t.Errorf("%s has a's table: got %v, want %v", name, found, want)
		}
	}
}

func TestSharedIsOne(t *testing.T) {
	first, second := pgtest.DB(t), pgtest.DB(t)
	if first != second {
		t.Error("two calls of DB gave two databases")
	}
}

func TestClonesAreDropped(t *testing.T) {
	var name string
	t.Run("inner", func(t *testing.T) {
		db := pgtest.Clone(t)
		if err := db.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
		conn, err := db.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Release) // runs before the drop
		pool, err := pg.Open(t.Context(), pgtest.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
	})
	var left int
	err := pgtest.DB(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("databases named %q after the test: got %d, %v; want 0", name, left, err)
	}
}

// TestConcurrentClones proves that parallel tests do not disturb each other's clones.
func TestConcurrentClones(t *testing.T) {
	for range 8 {
		t.Run("clone", func(t *testing.T) {
			t.Parallel()
			exec(t, pgtest.Clone(t), "CREATE TABLE mine (id int)")
		})
	}
}

func TestServerOutlivesTests(t *testing.T) {
	select {
	case <-pgtest.Server(t).Done():
		t.Error("the server has ended")
	default:
	}
}

func exec(t *testing.T, db *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := db.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}
