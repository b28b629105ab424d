// Package pgserver runs a private PostgreSQL server as a child process: the
// database of `sallyportd dev` and of the tests. It uses the machine's own
// PostgreSQL programs, listens on a unix socket only, and ends with its parent.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxConnections is how many clients a server takes at once.
const MaxConnections = 200

// Config says where and how to run a server.
type Config struct {
	// Dir holds the data, the socket and the lock files. It belongs to the
	// server alone and is made when missing. Required.
	Dir string
	// BinDir is where the PostgreSQL programs are; empty means to look for them.
	BinDir string
	// NoSync is faster and survives the end of any process, but not that of the
	// machine. For tests.
	NoSync bool
	// Port names the socket's file; no TCP port is opened. Zero means 5432.
	Port int
	// Logger gets PostgreSQL's own messages, never statements or their errors.
	// Nil means none.
	Logger *slog.Logger
}

// Server is a running PostgreSQL. Its methods may be called concurrently.
type Server struct {
	programs programs
	socket   string // folder of the socket
	port     int
	child    *child
	lock     *os.File // server.lock

	stop    sync.Once
	stopErr error
}

// Start starts PostgreSQL on the folder, making a cluster the first time, and
// returns when it takes connections. ctx bounds the start, not the server's
// life. What an earlier process left behind when it was killed is cleaned up; a
// PostgreSQL that outlived it is stopped first. Conflict when another server
// runs on the folder, *ProgramsError when no usable programs are found.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("starting PostgreSQL: no folder given")
	}
	if cfg.Port == 0 {
		cfg.Port = 5432
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := openCluster(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	s, err := c.start(ctx)
	if err != nil {
		c.lock.Close()
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return s, nil
}

// URL is how to connect to the database as the superuser.
func (s *Server) URL(database string) string {
	query := url.Values{"host": {s.socket}, "port": {strconv.Itoa(s.port)}, "user": {superuser}, "sslmode": {"disable"}}
	escaped := strings.ReplaceAll(query.Encode(), "+", "%20") // PostgreSQL's URLs have no plus for a space
	return "postgres:///" + url.PathEscape(database) + "?" + escaped
}

// Program is the path of one of the programs that come with the server's own
// version of PostgreSQL, pg_dump say.
func (s *Server) Program(name string) string { return filepath.Join(s.programs.dir, name) }

// Done is closed when PostgreSQL has ended, asked or not.
func (s *Server) Done() <-chan struct{} { return s.child.done }

// Stop ends the connections and the server, waits for it and gives the folder
// free. The error says that PostgreSQL had ended by itself or had to be ended
// by force; the data is safe either way. Further calls return the same.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		s.stopErr = s.child.stop()
		if err := os.RemoveAll(s.socket); err != nil {
			s.stopErr = errors.Join(s.stopErr, err)
		}
		s.lock.Close()
	})
	return s.stopErr
}

// start runs the server on an opened cluster.
func (c *cluster) start(ctx context.Context) (*Server, error) {
	claim, err := c.claim(ctx)
	if err != nil {
		return nil, err
	}
	defer claim.Close() // PostgreSQL has its own
	if err := c.init(ctx, claim); err != nil {
		return nil, err
	}
	socket, err := c.socketDir()
	if err != nil {
		return nil, err
	}
	if err := os.Remove(c.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing what the last server left: %w", err)
	}
	child, err := c.spawn(claim, c.data(), "postgres", c.settings(socket)...)
	if err == nil {
		err = c.awaitReady(ctx, child)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(socket))
	}
	return &Server{programs: c.programs, socket: socket, port: c.Port, child: child, lock: c.lock}, nil
}

// settings are PostgreSQL's arguments after -D. They win over postgresql.conf.
func (c *cluster) settings(socket string) []string {
	settings := []string{
		"listen_addresses=",
		"port=" + strconv.Itoa(c.Port),
		"unix_socket_directories=" + socket,
		"unix_socket_permissions=0700",
		"max_connections=" + strconv.Itoa(MaxConnections),
		"timezone=UTC",
		"log_timezone=UTC",
		"log_destination=stderr",
		"logging_collector=off",
		"log_line_prefix=",
		// Statements and their errors hold customers' data: keep them out of the log.
		"log_min_messages=log",
		"log_min_error_statement=panic",
	}
	if c.NoSync {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	var args []string
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

// awaitReady waits until the server writes into its pid file that it takes
// connections, the way pg_ctl does. On an error the server has ended.
func (c *cluster) awaitReady(ctx context.Context, child *child) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-child.done:
			return fmt.Errorf("PostgreSQL ended while starting: %w", child.cause())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for PostgreSQL to take connections: %w", context.Cause(ctx)), child.stop())
		case <-tick.C:
			if c.ready(child.pid()) {
				return nil
			}
		}
	}
}

// ready reads the pid file: line 1 is the process, line 8 its status.
func (c *cluster) ready(pid int) bool {
	content, err := os.ReadFile(c.pidFile())
	if err != nil {
		return false
	}
	lines := strings.Split(string(content), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

func (c *cluster) pidFile() string { return filepath.Join(c.data(), "postmaster.pid") }

// orphan is the process id of a PostgreSQL that runs on the data folder, 0 if none.
func (c *cluster) orphan() int {
	content, err := os.ReadFile(c.pidFile())
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 || syscall.Kill(pid, 0) != nil || !runsIn(pid, c.data()) {
		return 0
	}
	return pid
}
