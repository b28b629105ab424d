package pgserver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pgserver"
)

// holdEnv makes the test binary a process that runs a server on the folder
// that it names until it is killed.
const holdEnv = "PGSERVER_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		s, err := pgserver.Start(context.Background(), pgserver.Config{Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		<-s.Done()
		return
	}
	os.Exit(m.Run())
}

func TestRestartKeepsData(t *testing.T) {
	dir := filepath.Join(tempDir(t), "made", "when missing")
	config := pgserver.Config{Dir: dir, Port: 6000, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s := startConfig(t, config)
	insert(t, s, 1)
	for _, name := range []string{"data", "run"} { // the password is none
		if got := os.FileMode(stat(t, filepath.Join(dir, name)).Mode).Perm(); got != 0o700 {
			t.Errorf("mode of %s: got %o, want 700", name, got)
		}
	}
	stop(t, s)
	begin := time.Now()
	s = startConfig(t, config)
	t.Logf("restart took %v", time.Since(begin))
	wantRows(t, s, 1)
	stop(t, s)
	stop(t, s) // again: harmless
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	dir := tempDir(t)
	first := start(t, dir)
	_, err := pgserver.Start(t.Context(), pgserver.Config{Dir: dir})
	if !errors.Is(err, sallyport.Conflict) || !strings.Contains(err.Error(), "another server runs on "+dir) {
		t.Errorf("second server on the folder: got %v, want Conflict that names the folder", err)
	}
	insert(t, first, 1) // undisturbed
	stop(t, first)
	start(t, dir)
}

// TestKilledPostgres kills the database under an open connection, which keeps
// its backend busy, and starts anew at once.
func TestKilledPostgres(t *testing.T) {
	dir := tempDir(t)
	s := start(t, dir)
	insert(t, s, 1)
	conn := connect(t, s)
	go func() { _, _ = conn.Exec(context.Background(), "SELECT pg_sleep(60)") }()
	kill(t, postmaster(t, dir))
	<-s.Done()
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop after the kill: got %v, want an error that tells of it", err)
	}
	wantRows(t, start(t, dir), 1)
}

// TestKilledParent kills the process that runs the server; PostgreSQL must go,
// and the next start must wait for that and find the data.
func TestKilledParent(t *testing.T) {
	dir := tempDir(t)
	for round := 1; round <= 3; round++ {
		holder := hold(t, dir)
		line := make([]byte, 6)
		if _, err := holder.out.Read(line); err != nil || string(line) != "ready\n" {
			t.Fatalf("the holding process wrote %q, %v", line, err)
		}
		holder.kill(t)
		s := start(t, dir)
		insert(t, s, round)
		wantRows(t, s, round)
		stop(t, s)
	}
}

// TestKilledDuringInit kills the process while it makes the cluster, at
// several moments: the next start never sees half a cluster.
func TestKilledDuringInit(t *testing.T) {
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			dir := tempDir(t)
			holder := hold(t, dir)
			for begin := time.Now(); len(glob(t, dir, "initdb-*")) == 0; time.Sleep(time.Millisecond) {
				if time.Since(begin) > 30*time.Second {
					t.Fatal("no cluster is being made")
				}
			}
			time.Sleep(after)
			holder.kill(t)
			s := start(t, dir)
			insert(t, s, 1)
			if left := glob(t, dir, "initdb-*"); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// TestForeignServer has somebody start PostgreSQL on the data by hand.
func TestForeignServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("finds the program by /proc")
	}
	dir := tempDir(t)
	s := start(t, dir)
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", postmaster(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)

	data := filepath.Join(dir, "data")
	cmd := exec.Command(program, "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories="+data)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		owner := stat(t, data)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
		if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // of t.TempDir
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGQUIT); _ = cmd.Wait() })
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if content, err := os.ReadFile(filepath.Join(data, "postmaster.pid")); err == nil && strings.Contains(string(content), "ready") {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("PostgreSQL does not start by hand")
		}
	}
	_, err = pgserver.Start(t.Context(), pgserver.Config{Dir: dir})
	if !errors.Is(err, sallyport.Conflict) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("got %v, want Conflict that names process %d", err, cmd.Process.Pid)
	}
}

// TestReusedProcessID has the pid file of a killed server name a process that
// lives and is no PostgreSQL, as happens in containers.
func TestReusedProcessID(t *testing.T) {
	dir := tempDir(t)
	s := start(t, dir)
	insert(t, s, 1)
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	content, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(content), "\n")
	stop(t, s)
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRows(t, start(t, dir), 1)
}

// TestLongPath has a folder whose path is too long for a socket.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(tempDir(t), strings.Repeat("long", 30))
	s := start(t, dir)
	insert(t, s, 1)
	socket, err := os.Readlink(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	kill(t, postmaster(t, dir)) // so that the socket stays
	<-s.Done()
	if err := s.Stop(); err == nil {
		t.Error("Stop after the kill: got no error")
	}
	s = start(t, dir)
	wantRows(t, s, 1)
	stop(t, s)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder %s is left over: %v", socket, err)
	}
}

// TestClosedParent puts the folder where PostgreSQL's account cannot go.
func TestClosedParent(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("PostgreSQL runs as another user only when we are root")
	}
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "server")
	s := start(t, dir)
	insert(t, s, 1)
	stop(t, s)
	wantRows(t, start(t, dir), 1)
}

// TestOrdinaryUser runs the main tests once more without root's rights.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("is one")
	}
	needPrograms(t)
	const nobody = 65534
	dir := tempDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "pgserver.test")
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.v", "-test.timeout=2m", "-test.run=^Test(RestartKeepsData|SecondServerIsRefused|KilledParent|ForeignServer)$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestKilledParent") {
		t.Errorf("tests as an ordinary user: %v\n%s", err, out)
	}
}

func TestPrograms(t *testing.T) {
	old := tempDir(t)
	script(t, filepath.Join(old, "postgres"), "echo 'postgres (PostgreSQL) 14.9 (Debian 14.9-1)'")
	script(t, filepath.Join(old, "initdb"), "exit 1")
	broken := tempDir(t)
	script(t, filepath.Join(broken, "postgres"), "exit 1")
	script(t, filepath.Join(broken, "initdb"), "exit 1")
	otherData := tempDir(t)
	if err := os.Mkdir(filepath.Join(otherData, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(otherData, "data", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		config pgserver.Config
		want   string
	}{
		{"none", pgserver.Config{Dir: tempDir(t), BinDir: tempDir(t)}, "no PostgreSQL programs in"},
		{"broken", pgserver.Config{Dir: tempDir(t), BinDir: broken}, "asking"},
		{"too old", pgserver.Config{Dir: tempDir(t), BinDir: old}, "too old: version 14"},
		{"data of another version", pgserver.Config{Dir: otherData, BinDir: old}, "made by PostgreSQL 9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := pgserver.Start(t.Context(), test.config)
			var missing *pgserver.ProgramsError
			if !errors.As(err, &missing) || !strings.Contains(missing.Error(), test.want) || !strings.Contains(missing.Error(), "apt-get install postgresql") {
				t.Errorf("got %v, want a ProgramsError that says %q and what to install", err, test.want)
			}
		})
	}
}

func TestCanceledStart(t *testing.T) {
	needPrograms(t)
	dir := tempDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pgserver.Start(ctx, pgserver.Config{Dir: dir}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the deadline", err)
	}
	start(t, dir) // neither lock is left
}

// holder is a process that runs a server.
type holder struct {
	cmd *exec.Cmd
	out *os.File
}

func hold(t *testing.T, dir string) holder {
	t.Helper()
	needPrograms(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	h := holder{cmd: cmd, out: r}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return h
}

func (h holder) kill(t *testing.T) {
	t.Helper()
	kill(t, h.cmd.Process.Pid)
	_ = h.cmd.Wait() // "signal: killed"
}

// tempDir is a folder that PostgreSQL's account can reach.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts a server that keeps its data when processes are killed, not
// when the machine is.
func start(t *testing.T, dir string) *pgserver.Server {
	t.Helper()
	return startConfig(t, pgserver.Config{Dir: dir, NoSync: true})
}

func startConfig(t *testing.T, config pgserver.Config) *pgserver.Server {
	t.Helper()
	needPrograms(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := pgserver.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.Done():
		default:
			stop(t, s)
		}
	})
	return s
}

func stop(t *testing.T, s *pgserver.Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

// needPrograms skips where PostgreSQL is not installed, but not in CI.
func needPrograms(t *testing.T) {
	t.Helper()
	_, err := pgserver.Start(t.Context(), pgserver.Config{Dir: "/dev/null/none"})
	var missing *pgserver.ProgramsError
	if errors.As(err, &missing) {
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED, nothing was tested: ", missing)
	}
}

func connect(t *testing.T, s *pgserver.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server may be gone
	return conn
}

func insert(t *testing.T, s *pgserver.Server, row int) {
	t.Helper()
	conn := connect(t, s)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS rows (n int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO rows VALUES ($1)", row); err != nil {
		t.Fatal(err)
	}
}

// wantRows checks that the rows 1 to n are there.
func wantRows(t *testing.T, s *pgserver.Server, n int) {
	t.Helper()
	var want []int
	for row := 1; row <= n; row++ {
		want = append(want, row)
	}
	rows, err := connect(t, s).Query(t.Context(), "SELECT n FROM rows ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func postmaster(t *testing.T, dir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}
