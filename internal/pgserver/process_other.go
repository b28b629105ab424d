//go:build !linux

package pgserver

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes give the child a process group of its own, so that the terminal's
// Ctrl-C reaches only us. When we are killed it goes on until the next Start.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// inherited is "": there is no way past a closed folder.
func inherited(int) string { return "" }

// runsIn reports whether the process is a PostgreSQL on the data folder: a
// process id alone may be another's by now.
func runsIn(pid int, dir string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec // a number
	return err == nil && strings.Contains(string(out), "-D "+dir+" ")
}
