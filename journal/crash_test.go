package journal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgserver"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// slowCommits makes every commit that writes an entry of the type "Slow" last
// for a while inside COMMIT, which no client sees the end of in time.
func slowCommits(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		create function slow_commit() returns trigger language plpgsql as $$
		begin
			if new.type = 'Slow' then perform pg_sleep(1); end if;
			return null;
		end $$`)
	if err == nil {
		_, err = pool.Exec(t.Context(), `
			create constraint trigger slow_commit after insert on entries
			deferrable initially deferred for each row execute function slow_commit()`)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// breakDuringCommit starts a slow change, lets do break its commit, and gives
// what the change answered.
func breakDuringCommit(t *testing.T, j *journal.Journal, account sallyport.AccountID, operator sallyport.Caller, do func(cancel context.CancelFunc, pid uint32)) (journal.Committed, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pid := make(chan uint32, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		backend := <-pid
		time.Sleep(300 * time.Millisecond) // now inside COMMIT
		do(cancel, backend)
	})
	defer wg.Wait()
	return j.Commit(ctx, operator, account, journal.Operation{ID: "slow", Type: "Slow"}, func(tx *journal.Tx) error {
		var backend uint32
		if err := tx.QueryRow(ctx, `select pg_backend_pid()`).Scan(&backend); err != nil {
			return err
		}
		pid <- backend
		return put(ctx, "g_slow", "one")(tx)
	})
}

func TestUnknownOutcomeIsLookedUp(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	slowCommits(t, pool)
	j := newJournal(t, journal.Config{Pool: pool})

	t.Run("the client goes away and the server commits", func(t *testing.T) {
		account, operator := newAccount(t, j)
		done, err := breakDuringCommit(t, j, account, operator, func(cancel context.CancelFunc, _ uint32) { cancel() })
		head, verifyErr := j.VerifyAccount(t.Context(), account)
		if verifyErr != nil {
			t.Fatal(verifyErr)
		}
		// pgx asks the server to cancel: both ends are right, but the answer must
		// agree with what is in the database.
		switch {
		case err == nil && (head.Revision != 2 || done.Head != head):
			t.Errorf("told that %+v was done, the head is %+v", done, head)
		case err != nil && (!errors.Is(err, sallyport.Unavailable) || head.Revision != 1):
			t.Errorf("told %v, the head is %+v", err, head)
		}
	})
	t.Run("the server ends the connection", func(t *testing.T) {
		account, operator := newAccount(t, j)
		_, err := breakDuringCommit(t, j, account, operator, func(_ context.CancelFunc, pid uint32) {
			if _, err := pool.Exec(t.Context(), `select pg_terminate_backend($1)`, pid); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, sallyport.Unavailable) {
			t.Errorf("got %v, want Unavailable", err)
		}
		done, err := j.Commit(t.Context(), operator, account, journal.Operation{ID: "slow", Type: "Slow"}, put(t.Context(), "g_slow", "one"))
		if err != nil || done.Replayed || done.Head.Revision != 2 {
			t.Errorf("asked again: %+v, %v; want it done now", done, err)
		}
	})
}

// A commit that PostgreSQL says may not have reached the standby is never
// reported as done.
func TestACommitThatIsNotReplicatedIsNotDone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pgtest.Server(t) // skips where there is no PostgreSQL
	server, pool, _ := ownServer(t)
	defer server.Stop()
	j := newJournal(t, journal.Config{Pool: pool})
	account, operator := newAccount(t, j)
	if _, err := pool.Exec(ctx, `alter system set synchronous_standby_names = 'nobody'`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `select pg_reload_conf()`); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() { // somebody cancels whatever waits for the standby
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				pool.Exec(ctx, `select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`)
			}
		}
	})
	_, err := j.Commit(ctx, operator, account, journal.Operation{ID: "x", Type: "Put"}, put(ctx, "g_1", "one"))
	if !errors.Is(err, sallyport.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
	if _, err := pool.Exec(ctx, `alter system reset synchronous_standby_names`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `select pg_reload_conf()`); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	done, err := j.Commit(ctx, operator, account, journal.Operation{ID: "x", Type: "Put"}, put(ctx, "g_1", "one"))
	if err != nil || !done.Replayed || done.Head.Revision != 2 {
		t.Errorf("asked again with replication well: %+v, %v; want the first one's answer", done, err)
	}
}

// ownServer is a durable server of the test's own, migrated.
func ownServer(t *testing.T) (server *pgserver.Server, pool *pgxpool.Pool, dir string) {
	t.Helper()
	parent, err := os.MkdirTemp("/tmp", "sallyport-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir = filepath.Join(parent, "pg")
	server, pool = startServer(t, dir)
	if err := pg.Migrate(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	return server, pool, dir
}

func startServer(t *testing.T, dir string) (*pgserver.Server, *pgxpool.Pool) {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pg.Open(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return server, pool
}

const (
	crashURL      = "SALLYPORT_TEST_CRASH_URL"
	crashAccounts = "SALLYPORT_TEST_CRASH_ACCOUNTS"
)

// TestCrashWriter is the process that TestKill kills: four writers per account
// that print every operation they were told is done.
func TestCrashWriter(t *testing.T) {
	url := os.Getenv(crashURL)
	if url == "" {
		t.Skip("runs as a child of TestKill only")
	}
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal(t, journal.Config{Pool: pool})
	var print sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		account := sallyport.AccountID(strings.Split(os.Getenv(crashAccounts), ",")[w%2])
		wg.Go(func() {
			for {
				done, err := j.Commit(t.Context(), sallyport.OperatorCaller(account, "w"), account, journal.Operation{Type: "Put"},
					func(tx *journal.Tx) error { // two objects that must never be seen apart
						return errors.Join(put(t.Context(), "g_a", fmt.Sprint(tx.Revision()))(tx), put(t.Context(), "g_b", fmt.Sprint(tx.Revision()))(tx))
					})
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				print.Lock()
				fmt.Printf("done %s %s %d\n", account, done.OperationID, done.Head.Revision)
				print.Unlock()
			}
		})
	}
	wg.Wait()
}

// Nothing acknowledged is lost and nothing half done is seen when the service
// or the database is killed under concurrent writers.
func TestKill(t *testing.T) {
	t.Parallel()
	pgtest.Server(t)
	server, pool, dir := ownServer(t)
	j := newJournal(t, journal.Config{Pool: pool})
	a, _ := newAccount(t, j)
	b, _ := newAccount(t, j)
	acknowledged := map[string]int64{} // "account operation" to revision
	for round := range 4 {
		child := exec.Command(os.Args[0], "-test.run=^TestCrashWriter$")
		child.Env = append(os.Environ(), crashURL+"="+server.URL("postgres"), crashAccounts+"="+string(a)+","+string(b))
		child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(700+150*round)*time.Millisecond, func() {
			if round%2 == 1 {
				killPostmaster(t, dir)
				time.Sleep(50 * time.Millisecond)
			}
			child.Process.Kill()
		})
		collect(t, out, acknowledged)
		child.Wait()
		if round%2 == 1 {
			pool.Close()
			<-server.Done()
			server.Stop()
			server, pool = startServer(t, dir)
			j = newJournal(t, journal.Config{Pool: pool})
		}
	}
	defer server.Stop()
	if len(acknowledged) < 20 {
		t.Fatalf("only %d changes were acknowledged: the test proves nothing", len(acknowledged))
	}
	for key, revision := range acknowledged {
		account, id, _ := strings.Cut(key, " ")
		done, err := j.Operation(t.Context(), sallyport.AccountID(account), id)
		if err != nil || done.Head.Revision != revision {
			t.Errorf("acknowledged %s at %d: now %+v, %v", key, revision, done.Head, err)
		}
	}
	for _, account := range []sallyport.AccountID{a, b} {
		if _, err := j.VerifyAccount(t.Context(), account); err != nil {
			t.Error(err)
		}
		batch, err := j.Snapshot(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, o := range batch.Objects {
			seen[o.ID] = string(o.Data)
		}
		if seen["g_a"] != seen["g_b"] || seen["g_a"] != strconv.FormatInt(batch.Head.Revision, 10) {
			t.Errorf("half a change is seen: %v at %d", seen, batch.Head.Revision)
		}
	}
}

func collect(t *testing.T, out io.Reader, acknowledged map[string]int64) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var account, id string
		var revision int64
		if n, _ := fmt.Sscanf(lines.Text(), "done %s %s %d", &account, &id, &revision); n == 3 {
			acknowledged[account+" "+id] = revision
		}
	}
}

// killPostmaster is kill -9 of the database: its backends notice and end.
func killPostmaster(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Errorf("postmaster.pid: %v, %v", files, err)
		return
	}
	file, err := os.ReadFile(files[0])
	if err != nil {
		t.Error(err)
		return
	}
	line, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Error(err)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
