package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// extents says how far each account's log went when something in it was
// acknowledged last, and at which heads the account was. It is kept in a file of
// its own, made durable after the logs and before the acknowledgement. A log that
// does not go as far (it was cut at the end of a record, an older one was put
// back, it was deleted) would bring back what was revoked with nobody knowing: the
// account is then unavailable, and what the service sends of it must prove those
// heads. What a crash cuts off was not acknowledged. Not noticed is that the whole
// folder was put back as it was earlier: its age is all that limits that.
type extents struct {
	unknown bool // the file is missing or damaged: no log can be trusted
	of      map[sallyport.AccountID]extent
}

type extent struct {
	seq  int64 // of the update
	held *feedv1.Held
}

const extentsName = "extents"

// loadExtents reads the file.
func (r *Replica) loadExtents() (extents, error) {
	e := extents{of: map[sallyport.AccountID]extent{}}
	f, err := os.Open(filepath.Join(r.disk.dir, extentsName))
	if errors.Is(err, os.ErrNotExist) {
		e.unknown = true
		return e, nil
	}
	if err != nil {
		return e, fmt.Errorf("opening the replica's folder: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return e, fmt.Errorf("opening the replica's folder: %w", err)
	}
	l, err := readLog(f, info.Size(), extentsName)
	for err == nil {
		var payload []byte
		if payload, err = l.next(); err == nil {
			err = e.add(payload)
		}
	}
	if l == nil || errors.Is(err, errDamaged) { // the file is never written but whole
		e.unknown = true
		r.log.Error("what says how far the copy on the disk goes is damaged: the copy is not used and is fetched anew", "error", err)
	}
	return e, nil
}

func (e extents) add(payload []byte) error {
	seq, n := binary.Varint(payload)
	held := &feedv1.Held{}
	if n <= 0 || proto.Unmarshal(payload[n:], held) != nil || !sallyport.AccountID(held.GetAccount()).Valid() {
		return errDamaged
	}
	e.of[sallyport.AccountID(held.GetAccount())] = extent{seq, held}
	return nil
}

// lose makes an account unavailable whose log cannot be used. Its heads are known
// if they were acknowledged.
func (r *Replica) lose(account sallyport.AccountID, e extent, why error) {
	r.log.Error("the copy of an account on the disk is not used; it is fetched anew", "account", account, "error", why)
	r.metrics.refused.WithLabelValues("damaged").Inc()
	r.disk.seqs[account] = max(r.disk.seqs[account], e.seq)
	s := &state{}
	if e.held != nil {
		heads, err := frame.HeadsFromProto(e.held.GetOthers())
		head, err2 := frame.HeadFromProto(e.held.GetHead())
		if errors.Join(err, err2) == nil {
			for _, h := range append(heads, head) {
				v := newView(account, r.seed)
				v.head = h
				s.beside = append(s.beside, v)
			}
			n := len(s.beside) - 1
			s.held, s.beside, s.lost = s.beside[n], s.beside[:n], true
		}
	}
	r.findOrAdd(account).state.Store(s)
}

// keepExtents notes how far the logs of the accounts go that were touched. The
// caller has made them durable.
func (r *Replica) keepExtents() error {
	d := r.disk
	if len(d.touched) == 0 {
		return nil
	}
	if d.extents.size > 2*d.extents.base+1<<16 {
		return r.rewriteExtents()
	}
	next := *d.extents
	for account := range d.touched {
		if err := r.appendExtent(&next, account, r.find(account).state.Load()); err != nil {
			return fmt.Errorf("writing the replica's folder: %w", err)
		}
	}
	if err := next.open.Sync(); err != nil {
		return fmt.Errorf("writing the replica's folder: %w", err)
	}
	*d.extents = next
	return nil
}

func (r *Replica) appendExtent(l *logFile, account sallyport.AccountID, s *state) error {
	held, err := proto.Marshal(s.proto(account))
	if err != nil {
		return err
	}
	return l.appendPayload(append(binary.AppendVarint(nil, r.disk.seqs[account]), held...))
}

// rewriteExtents writes the file anew, of what is held.
func (r *Replica) rewriteExtents() error {
	d := r.disk
	next := &logFile{sum: firstSum(extentsName)}
	path := filepath.Join(d.dir, extentsName)
	err := d.replaceFile(path, func(f *os.File) error {
		next.open = f
		header := logHeader(extentsName)
		if _, err := f.Write(header); err != nil {
			return err
		}
		next.size = int64(len(header))
		for a := range r.accounts.Load().all {
			if s := a.state.Load(); s.held != nil {
				if err := r.appendExtent(next, a.id, s); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	next.base = next.size
	if next.open, err = os.OpenFile(path, os.O_WRONLY, 0o600); err != nil {
		return fmt.Errorf("writing the replica's folder: %w", err)
	}
	if old := d.extents; old != nil {
		old.open.Close()
	}
	d.extents = next
	return nil
}
