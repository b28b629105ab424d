package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the unprivileged user that PostgreSQL runs as when we are root,
// which PostgreSQL refuses.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged is postgres if the machine has that user, else nobody; nil when
// we are not root.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil || uid == 0 {
			return nil, fmt.Errorf("user %s has id %q and group %q", name, u.Uid, u.Gid)
		}
		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as: make one (useradd --system postgres) or start as an ordinary user")
}

// credential drops all of root's groups.
func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: []uint32{a.gid}}
}

// closed is the first folder on the absolute path that the account may not
// pass through, "" if none. It looks at permission bits only.
func (a *account) closed(path string) string {
	if a == nil {
		return ""
	}
	if parent := filepath.Dir(path); parent != path {
		if dir := a.closed(parent); dir != "" {
			return dir
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	bit := os.FileMode(0o001)
	switch {
	case stat.Uid == a.uid:
		bit = 0o100
	case stat.Gid == a.gid:
		bit = 0o010
	}
	if info.Mode()&bit == 0 {
		return path
	}
	return ""
}
