package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const superuser = "postgres"

// stopGrace is how long PostgreSQL may take for an orderly end.
const stopGrace = 10 * time.Second

// maxSocketPath is macOS's limit, the shortest (Linux has 107 bytes).
const maxSocketPath = 103

// cluster is a folder under the exclusive lock of this process:
//
//	server.lock    held by the process that runs the server
//	postgres.lock  inherited by PostgreSQL's processes: held until the last has ended
//	data           PostgreSQL's data directory, complete or absent
//	initdb-*       one being made
//	run            the socket's folder, or a link to it when its path would be too long
type cluster struct {
	Config
	programs programs
	account  *account // that PostgreSQL runs as; nil means our own
	lock     *os.File // server.lock
}

func (c *cluster) data() string { return filepath.Join(c.Dir, "data") }

// openCluster finds programs, makes the folder and locks it.
func openCluster(cfg Config) (*cluster, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &cluster{Config: cfg}
	if c.programs, err = findPrograms(cfg.BinDir, dataVersion(filepath.Join(dir, "data"))); err != nil {
		return nil, err
	}
	if c.account, err = unprivileged(); err != nil {
		return nil, err
	}
	mode := os.FileMode(0o700)
	if c.account != nil {
		mode = 0o711 // PostgreSQL's account passes through; data and run are its own, 0700
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, err
	}
	if c.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if c.lock, err = openLock(filepath.Join(c.Dir, "server.lock")); err != nil {
		return nil, err
	}
	if err := flock(c.lock); err != nil {
		c.lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, sallyport.Conflict.Errorf("another server runs on %s: stop it or choose another folder", c.Dir)
		}
		return nil, fmt.Errorf("locking %s: %w", c.Dir, err)
	}
	if err := c.checkOwner(); err != nil {
		c.lock.Close()
		return nil, err
	}
	return c, nil
}

// checkOwner checks that an existing data folder is that of the account that
// PostgreSQL would run as.
func (c *cluster) checkOwner() error {
	uid := os.Geteuid()
	if c.account != nil {
		uid = int(c.account.uid)
	}
	info, err := os.Stat(c.data())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != uid {
		return sallyport.Conflict.Errorf("%s belongs to user id %d and PostgreSQL would run as %d: start as the user who made it or choose another folder", c.data(), stat.Uid, uid)
	}
	return nil
}

// claim takes postgres.lock. It is free unless our predecessor was killed and
// its PostgreSQL is still ending (the kernel told it to, where the kernel can):
// then it is told so and waited for.
func (c *cluster) claim(ctx context.Context) (*os.File, error) {
	file, err := openLock(filepath.Join(c.Dir, "postgres.lock"))
	if err != nil {
		return nil, err
	}
	signal, told := syscall.SIGINT, time.Time{}
	for {
		err := flock(file)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
		}
		if pid := c.orphan(); pid != 0 && time.Since(told) > stopGrace {
			c.Logger.Warn("stopping the PostgreSQL of a killed process", "pid", pid, "dir", c.Dir)
			_ = syscall.Kill(pid, signal) // it may be gone by now
			signal, told = syscall.SIGQUIT, time.Now()
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("waiting for an earlier PostgreSQL on %s to end: %w", c.Dir, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
	if pid := c.orphan(); pid != 0 { // it does not hold our lock
		file.Close()
		return nil, sallyport.Conflict.Errorf("PostgreSQL runs on %s as process %d, started by something else: stop it first", c.data(), pid)
	}
	return file, nil
}

// init makes the data folder unless there is one. It is made under another
// name and renamed when complete and on disk, so that a kill never leaves a half.
func (c *cluster) init(ctx context.Context, claim *os.File) error {
	half, err := filepath.Glob(filepath.Join(c.Dir, "initdb-*"))
	if err != nil {
		return err
	}
	for _, dir := range half {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if _, err := os.Stat(c.data()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp(c.Dir, "initdb-")
	if err != nil {
		return err
	}
	if err := c.giveAway(dir); err != nil {
		return err
	}
	args := []string{"-U", superuser, "-A", "trust", "--no-locale", "-E", "UTF8"}
	if c.NoSync {
		args = append(args, "--no-sync")
	}
	child, err := c.spawn(claim, dir, "initdb", args...)
	if err != nil {
		return err
	}
	select {
	case <-child.done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("making the database cluster: %w", context.Cause(ctx)), child.stop())
	}
	if child.err != nil {
		return fmt.Errorf("making the database cluster: %w", child.cause())
	}
	if err := os.Rename(dir, c.data()); err != nil {
		return err
	}
	return c.sync()
}

// sync makes names in the folder durable.
func (c *cluster) sync() error {
	if c.NoSync {
		return nil
	}
	dir, err := os.Open(c.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// giveAway makes PostgreSQL's account the owner of a folder that we made.
func (c *cluster) giveAway(dir string) error {
	if c.account == nil {
		return nil
	}
	return os.Lchown(dir, int(c.account.uid), int(c.account.gid))
}

// socketDir makes the 0700 folder of the socket: "run", or one under /tmp with
// "run" a link to it when the path would be too long for a socket or closed
// to PostgreSQL's account.
func (c *cluster) socketDir() (string, error) {
	run := filepath.Join(c.Dir, "run")
	if target, err := os.Readlink(run); err == nil && strings.HasPrefix(target, socketPrefix) {
		if err := os.RemoveAll(target); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(run); err != nil {
		return "", err
	}
	socket := filepath.Join(run, fmt.Sprintf(".s.PGSQL.%d", c.Port))
	if len(socket) <= maxSocketPath && !strings.Contains(run, ",") && c.account.closed(c.Dir) == "" {
		if err := os.Mkdir(run, 0o700); err != nil {
			return "", err
		}
		return run, c.giveAway(run)
	}
	dir, err := os.MkdirTemp("/tmp", filepath.Base(socketPrefix))
	if err != nil {
		return "", err
	}
	if err := os.Symlink(dir, run); err != nil {
		return "", err
	}
	return dir, c.giveAway(dir)
}

const socketPrefix = "/tmp/sallyport-pg-"

// openLock opens a file for flock. PostgreSQL's processes inherit the lock of a
// file that is passed to them; all others are closed by exec.
func openLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock file: %w", err)
	}
	return file, nil
}

func flock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
