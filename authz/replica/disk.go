package replica

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// disk keeps the copy in a folder: a log for each account, the file that says how
// far each goes, and meta.json. Its fields are guarded by Replica.mu.
type disk struct {
	dir        string
	folder     string // tells the folder from its copies
	lock       *os.File
	meta       meta
	logs       map[sallyport.AccountID]*logFile
	seqs       map[sallyport.AccountID]int64 // of the last update that was written, or acknowledged
	extents    *logFile                      // see extents.go; open always
	touched    map[sallyport.AccountID]bool  // to be synced or rewritten
	dirChanged bool
	compacting sync.WaitGroup
	busy       map[sallyport.AccountID]bool // being compacted
}

// logFile is an account's log as it is on the disk.
type logFile struct {
	size int64
	base int64    // size after it was last rewritten
	sum  [32]byte // of the last record
	open *os.File // while there is something to sync; nil otherwise
	// broken: it could not be written and has less than is held; it must be
	// rewritten before anything is acknowledged.
	broken bool
}

// meta is what is known of the whole copy.
type meta struct {
	Instance string    `json:"instance"`           // of the process that wrote it
	Previous []string  `json:"previous,omitempty"` // those before that the service was not told of yet
	Folder   string    `json:"folder"`             // that it was written in; in a copy of the folder the instances are another's
	Cells    []string  `json:"cells,omitempty"`
	Complete bool      `json:"complete"`
	Fresh    time.Time `json:"fresh"` // all that was committed before then is in the copy
}

const (
	logSuffix  = ".log"
	tempSuffix = ".tmp"
	metaName   = "meta.json"
	lockName   = "lock"
)

func (d *disk) path(account sallyport.AccountID) string {
	return filepath.Join(d.dir, string(account)+logSuffix)
}

// close waits for compactions, which take Replica.mu: the caller must not hold it.
func (d *disk) close() error {
	d.compacting.Wait()
	return errors.Join(d.extents.open.Close(), d.lock.Close())
}

// writeMeta makes the meta durable.
func (d *disk) writeMeta() error {
	data, err := json.Marshal(d.meta)
	if err != nil {
		return err
	}
	return d.replaceFile(filepath.Join(d.dir, metaName), func(f *os.File) error { _, err := f.Write(data); return err })
}

// replaceFile puts a file in place whole and durable, or not at all.
func (d *disk) replaceFile(path string, write func(*os.File) error) error {
	f, err := os.CreateTemp(d.dir, filepath.Base(path)+".*"+tempSuffix) // with mode 0600
	if err != nil {
		return fmt.Errorf("writing the replica's folder: %w", err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = d.syncDir()
	}
	if err != nil {
		return fmt.Errorf("writing the replica's folder: %w", errors.Join(err, removeIfThere(f.Name())))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) syncDir() error {
	dir, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// write appends an update that was applied, and gave the state, to the account's
// log. It is durable after sync.
func (d *disk) write(u frame.Part, s *state) {
	l := d.logs[u.Account]
	d.touched[u.Account] = true
	d.seqs[u.Account]++
	u.Seq = d.seqs[u.Account]
	switch {
	case l != nil && l.broken:
		return
	case l == nil && u.Kind == frame.Snapshot && len(s.beside) == 0:
		l = &logFile{sum: firstSum(u.Account)}
		l.broken = l.create(d.path(u.Account), u.Account) != nil
		d.dirChanged = true
	case l == nil || u.Kind == frame.Drop: // it is written from the state
		l = &logFile{broken: true}
	case l.open == nil:
		f, err := os.OpenFile(d.path(u.Account), os.O_WRONLY, 0o600)
		l.open, l.broken = f, err != nil
	}
	d.logs[u.Account] = l
	if !l.broken {
		l.broken = l.append(u) != nil
	}
}

func (l *logFile) create(path string, account sallyport.AccountID) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l.open = f
	header := logHeader(account)
	l.size = int64(len(header))
	_, err = f.Write(header)
	return err
}

// append writes an update at the end of what is valid.
func (l *logFile) append(u frame.Part) error {
	for part := range frame.Split(u) {
		payload, err := part.Marshal()
		if err != nil {
			return err
		}
		if err := l.appendPayload(payload); err != nil {
			return err
		}
	}
	return nil
}

func (l *logFile) appendPayload(payload []byte) error {
	record, sum := appendRecord(nil, payload, l.sum)
	if _, err := l.open.WriteAt(record, l.size); err != nil {
		return err
	}
	l.size, l.sum = l.size+int64(len(record)), sum
	return nil
}

// sync makes all that was written durable, and rewrites what could not be
// written. After an error nothing may be acknowledged.
func (r *Replica) sync() error {
	d := r.disk
	if d == nil {
		return nil
	}
	begun := time.Now()
	defer func() { r.metrics.sync.Observe(time.Since(begun).Seconds()) }()
	var group sync.WaitGroup
	slots := make(chan struct{}, 8)
	for account := range d.touched {
		if l := d.logs[account]; l.open != nil {
			slots <- struct{}{}
			group.Go(func() { l.sync(); <-slots })
		}
	}
	group.Wait()
	for account := range d.touched {
		l := d.logs[account]
		if l.broken {
			if err := r.rewrite(account); err != nil {
				return err
			}
		}
	}
	if d.dirChanged {
		if err := d.syncDir(); err != nil {
			return fmt.Errorf("writing the replica's folder: %w", err)
		}
		d.dirChanged = false
	}
	if err := r.keepExtents(); err != nil {
		return err
	}
	for account := range d.touched {
		r.compactIfLarge(account, d.logs[account])
	}
	clear(d.touched)
	return nil
}

// sync makes what was written durable.
func (l *logFile) sync() {
	if err := errors.Join(l.open.Sync(), l.open.Close()); err != nil {
		l.broken = true
	}
	l.open = nil
}

// rewrite puts the state of the account in place of its log.
func (r *Replica) rewrite(account sallyport.AccountID) error {
	l, err := r.disk.writeState(account, r.find(account).state.Load(), r.disk.seqs[account], nil)
	if err != nil {
		return err
	}
	r.disk.logs[account] = l
	return nil
}

// writeState replaces the account's log by one with the state, and what more
// appends.
func (d *disk) writeState(account sallyport.AccountID, s *state, seq int64, more func(*logFile) error) (*logFile, error) {
	l := &logFile{sum: firstSum(account)}
	err := d.replaceFile(d.path(account), func(f *os.File) error {
		l.open = f
		header := logHeader(account)
		if _, err := f.Write(header); err != nil {
			return err
		}
		l.size = int64(len(header))
		for _, u := range s.updates(account) {
			u.Seq = seq
			if err := l.append(u); err != nil {
				return err
			}
		}
		l.base = l.size
		if more == nil {
			return nil
		}
		if err := f.Sync(); err != nil { // what is large, before anybody has to wait for it
			return err
		}
		return more(l)
	})
	l.open = nil
	return l, err
}

// updates gives what leads to the state, if applied to nothing.
func (s *state) updates(account sallyport.AccountID) []frame.Part {
	var list []frame.Part
	for _, v := range append(slices.Clone(s.beside), s.held) {
		u := frame.Part{Account: account, Kind: frame.Snapshot, Head: v.head, Digest: v.digest, Objects: make([]object.Object, 0, v.count)}
		u.Objects = slices.AppendSeq(u.Objects, v.objects)
		list = append(list, u)
	}
	if s.dropped {
		list[len(list)-1].Kind = frame.Drop
	}
	return list
}

// compactIfLarge rewrites a log that has grown to more than twice of what it
// was, in the background.
func (r *Replica) compactIfLarge(account sallyport.AccountID, l *logFile) {
	d := r.disk
	if l.size < 2*l.base+1<<20 || d.busy[account] {
		return
	}
	from, sum, s, seq := l.size, l.sum, r.find(account).state.Load(), d.seqs[account]
	d.busy[account] = true
	d.compacting.Add(1)
	go func() {
		defer d.compacting.Done()
		locked := false
		next, err := d.writeState(account, s, seq, func(next *logFile) error {
			r.mu.Lock()
			locked = true
			return d.copyTail(account, l, next, from, sum)
		})
		if !locked {
			r.mu.Lock()
		}
		defer r.mu.Unlock()
		delete(d.busy, account)
		switch {
		case err == nil:
			d.logs[account] = next
		case d.logs[account] == l:
			r.log.Warn("compacting the copy of an account on the disk", "account", account, "error", err)
			l.base = l.size // not again before it has doubled
		}
	}()
}

// copyTail appends what was written to the old log after from. The caller
// holds Replica.mu, and goes on to put next in place of old.
func (d *disk) copyTail(account sallyport.AccountID, old, next *logFile, from int64, sum [32]byte) error {
	if old.open != nil {
		old.sync()
	}
	if d.logs[account] != old || old.broken {
		return errors.New("the log was replaced meanwhile")
	}
	tail := make([]byte, old.size-from)
	f, err := os.Open(d.path(account))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(tail, from); err != nil {
		return err
	}
	l := &logReader{r: bufio.NewReader(bytes.NewReader(tail)), size: old.size, at: from, sum: sum}
	for {
		payload, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := next.appendPayload(payload); err != nil {
			return err
		}
	}
}
