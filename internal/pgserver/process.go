package pgserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// child is a process of PostgreSQL's programs.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its end; read it after done
	log  logTail
	eof  chan struct{} // closed when the log has been read
	r, w *os.File      // the log
}

// spawn starts a program on the data folder with the lock inherited.
func (c *cluster) spawn(claim *os.File, data, program string, args ...string) (*child, error) {
	cmd := exec.Command(filepath.Join(c.programs.dir, program)) //nolint:gosec // found by us or named by the operator
	cmd.Dir = "/"                                               // PostgreSQL wants to come back to where it was started
	cmd.Env = environment()
	cmd.ExtraFiles = []*os.File{claim}
	cmd.SysProcAttr = attributes()
	cmd.SysProcAttr.Credential = c.account.credential()
	if closed := c.account.closed(filepath.Dir(data)); closed != "" {
		dir, err := os.Open(data)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, dir)
		if data = inherited(4); data == "" {
			return nil, sallyport.Conflict.Errorf("PostgreSQL runs as user %s, who may not pass through %s: open it (chmod o+x) or choose another folder", c.account.name, closed)
		}
	}
	cmd.Args = append(cmd.Args, append([]string{"-D", data}, args...)...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	p := &child{cmd: cmd, done: make(chan struct{}), eof: make(chan struct{}), r: r, w: w}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		r.Close()
		return nil, fmt.Errorf("running %s: %w", cmd.Path, err)
	}
	go p.read(c.Logger)
	return p, nil
}

// run starts the process and waits for it on one OS thread: the kernel's
// parent-death signal is sent when the thread that forked ends.
func (p *child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	p.w.Close()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// read logs what the process writes until its end.
func (p *child) read(logger *slog.Logger) {
	defer close(p.eof)
	defer p.r.Close()
	lines := bufio.NewScanner(p.r)
	for lines.Scan() {
		line := lines.Text()
		p.log.add(line)
		if strings.HasPrefix(line, "FATAL:") || strings.HasPrefix(line, "PANIC:") {
			logger.Warn("postgres", "message", line)
		} else {
			logger.Debug("postgres", "message", line)
		}
	}
	_, _ = io.Copy(io.Discard, p.r) // after an endless line: never let PostgreSQL block
}

func (p *child) pid() int { return p.cmd.Process.Pid }

// cause says why the process ended, with the last that it wrote.
func (p *child) cause() error {
	select {
	case <-p.eof:
	case <-time.After(time.Second): // its own children may hold the log open a little longer
	}
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%w\n%s", err, p.log.String())
}

// stop asks for an orderly end and becomes more pressing with time.
func (p *child) stop() error {
	select {
	case <-p.done:
		return fmt.Errorf("PostgreSQL had ended by itself: %w", p.cause())
	default:
	}
	for _, press := range []struct {
		signal syscall.Signal
		grace  time.Duration
	}{{syscall.SIGINT, stopGrace}, {syscall.SIGQUIT, stopGrace}, {syscall.SIGKILL, stopGrace}} {
		_ = p.cmd.Process.Signal(press.signal) // it may have ended just now
		select {
		case <-p.done:
			if p.err != nil || press.signal != syscall.SIGINT {
				return fmt.Errorf("PostgreSQL had to be stopped by %v: %w", press.signal, p.cause())
			}
			return nil
		case <-time.After(press.grace):
		}
	}
	return errors.New("stopping PostgreSQL: it does not end")
}

// environment is what the programs need, without the PG* variables that would
// change what they do.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// logTail keeps the last lines of a log.
type logTail struct {
	mu    sync.Mutex
	lines []string
}

func (t *logTail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 20 {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
}

func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
