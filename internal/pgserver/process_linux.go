package pgserver

import (
	"fmt"
	"os"
	"syscall"
)

// attributes give the child a process group of its own, so that the terminal's
// Ctrl-C reaches only us, and an orderly end when we are killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
}

// inherited is a path to a file that the child gets as number fd. It leads
// there past folders that the child's user may not pass through.
func inherited(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// runsIn reports whether the process works in the folder, as PostgreSQL does
// in its data folder: a process id alone may be another's by now.
func runsIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}
