package replica

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// load opens the folder and replays what is in it.
func (r *Replica) load() error {
	dir := r.config.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the replica's folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("opening the replica's folder: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return sallyport.Conflict.Errorf("the replica's folder %s can be read by others; run: chmod 700 %s", dir, dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the replica's folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return sallyport.Conflict.Errorf("the replica's folder %s is in use by another process; give each its own", dir)
	}
	r.disk = &disk{dir: dir, folder: identity(lock), lock: lock, logs: map[sallyport.AccountID]*logFile{}, seqs: map[sallyport.AccountID]int64{},
		touched: map[sallyport.AccountID]bool{}, busy: map[sallyport.AccountID]bool{}}
	if err := r.loadAll(); err != nil {
		lock.Close()
		return err
	}
	return nil
}

// identity names a folder by its lock file and the machine.
func identity(lock *os.File) string {
	host, _ := os.Hostname() // empty is as good as any
	info, err := lock.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d %s", stat.Ino, host)
}

func (r *Replica) loadAll() error {
	d := r.disk
	extents, err := r.loadExtents()
	if err != nil {
		return err
	}
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("reading the replica's folder: %w", err)
	}
	for _, entry := range names {
		name := entry.Name()
		id, isLog := strings.CutSuffix(name, logSuffix)
		switch account := sallyport.AccountID(id); {
		case strings.HasSuffix(name, tempSuffix):
			if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
				return fmt.Errorf("removing a leftover: %w", err)
			}
		case isLog && account.Valid():
			if err := r.loadLog(account, extents); err != nil {
				return err
			}
		}
	}
	for account, e := range extents.of {
		if r.find(account) == nil {
			r.lose(account, e, errors.New("the file is missing"))
		}
	}
	if err := r.rewriteExtents(); err != nil {
		return err
	}
	r.loadMeta()
	d.meta.Instance, d.meta.Previous, d.meta.Folder = r.config.Instance, r.previous, d.folder
	return d.writeMeta()
}

// loadLog replays an account's log. An account with a log that is damaged, or
// does not go as far as was acknowledged, is unavailable until the service sends
// it anew.
func (r *Replica) loadLog(account sallyport.AccountID, extents extents) error {
	f, err := os.OpenFile(r.disk.path(account), os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	a := r.findOrAdd(account)
	size, sum, seq, err := r.replay(f, info.Size(), account)
	known := extents.of[account]
	switch {
	case err != nil:
	case extents.unknown:
		known = extent{seq + 1, a.state.Load().proto(account)} // the file must prove itself no better at the next start
		err = fmt.Errorf("%w: it is not known how far it went", errDamaged)
	case seq < known.seq:
		err = fmt.Errorf("%w: it ends with update %d, and %d was acknowledged", errDamaged, seq, known.seq)
	}
	r.disk.seqs[account] = seq
	switch {
	case errors.Is(err, errDamaged):
		r.lose(account, known, err)
		return nil
	case err != nil:
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	case size < info.Size():
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("cutting the torn end off %s: %w", f.Name(), err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("cutting the torn end off %s: %w", f.Name(), err)
		}
	}
	if s := a.state.Load(); s.held != nil {
		r.disk.logs[account] = &logFile{size: size, base: size, sum: sum}
	}
	return nil
}

func (r *Replica) replay(f io.Reader, size int64, account sallyport.AccountID) (whole int64, sum [sha256.Size]byte, seq int64, err error) {
	l, err := readLog(f, size, account)
	if errors.Is(err, errTorn) {
		return 0, firstSum(account), 0, nil
	}
	if err != nil {
		return 0, firstSum(account), 0, err
	}
	whole, sum, err = l.replay(func(u frame.Part) error {
		if u.Account != account {
			return fmt.Errorf("an update of account %s", u.Account)
		}
		seq = u.Seq
		_, err := r.apply(u)
		return err
	})
	return whole, sum, seq, err
}

// loadMeta takes over how fresh the copy was. When that is not known, or lies
// in the future by this machine's clock, decisions wait for the feed.
func (r *Replica) loadMeta() {
	data, err := os.ReadFile(filepath.Join(r.disk.dir, metaName))
	var m meta
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	age := r.base.Round(0).Sub(m.Fresh)
	if err != nil || age < -time.Second {
		r.log.Warn("it is not known how old the copy on the disk is: nothing is allowed before the service answers", "fresh", m.Fresh, "error", err)
		return
	}
	if m.Folder == r.disk.folder {
		r.previous = append(m.Previous, m.Instance)
	}
	r.disk.meta = m
	r.cells.Store(&m.Cells)
	if m.Complete {
		r.fresh.Store(-int64(age))
		r.ready.Store(true)
	}
}
