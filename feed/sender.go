package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
	"github.com/sallyport-iam/sallyport/journal"
)

// A sender is the part of a stream that sends: what send does is up to grpc.go.
type sender struct {
	server *Server
	stream *stream
	send   func(frame.Part) error // sets the sequence number on the wire
	seq    int64
}

// update brings one account up to date on the stream. An error that is not
// errSend is the database's: the work is to be put back.
func (s *sender) update(ctx context.Context, w work) error {
	if w.why.drop {
		// What seemed so a moment ago is asked again: a Drop that is not true would
		// shut an account out.
		cells, err := s.server.directory.CellsOf(ctx, []sallyport.AccountID{w.account})
		if err != nil {
			return err
		}
		if !shares(s.stream.inCells(), cells[w.account]) {
			return s.drop(ctx, w)
		}
		w.why.head = sallyport.Head{}
	}
	if w.has.refused && time.Now().Before(w.has.notBefore) {
		return nil // sweeps bring it up again
	}
	update, err := s.next(ctx, w)
	if err != nil || update.Head == (sallyport.Head{}) {
		return err
	}
	return s.sendUpdate(ctx, w, update)
}

// next gives what the account lacks on the stream; a zero Head for nothing.
// What the stream has is compared with the journal each time: the database may
// have been restored, or may have lost commits by a fail-over.
func (s *sender) next(ctx context.Context, w work) (frame.Part, error) {
	snapshot := func() (frame.Part, error) {
		batch, err := s.server.snapshot(ctx, w.account)
		return asPart(frame.Snapshot, batch), err
	}
	if !w.held || w.has.refused || w.has.dropped || w.has.head == (sallyport.Head{}) {
		return snapshot()
	}
	batch, err := s.server.delta(ctx, deltaKey{w.account, w.has.head, w.why.head})
	switch {
	case err != nil:
		return frame.Part{}, err
	case batch.Head == w.has.head:
		if w.has.claimed {
			w.has.claimed = false
			s.stream.put(w, w.has)
			s.server.acks.add(ack{ackKey{w.account, s.stream.instance}, batch.Head, false, w.has.diverged()})
		}
		return frame.Part{}, nil
	case batch.Follows == w.has.head:
		return asPart(frame.Delta, batch), nil
	}
	s.server.log.Error("an authorizer has a history of an account that is not in the database; it gets what the database has",
		"account", w.account, "instance", s.stream.instance, "has", w.has.head.Revision, "head", batch.Head.Revision)
	return snapshot()
}

func asPart(kind frame.Kind, b journal.Batch) frame.Part {
	if kind == frame.Snapshot {
		b.Follows = sallyport.Head{}
	}
	return frame.Part{Account: b.Account, Kind: kind, Follows: b.Follows, Head: b.Head, Digest: b.Digest, Objects: b.Objects}
}

var noBatch journal.Batch

// drop tells that the account is not the authorizer's any more. update made
// sure of it just now. What changed until then goes before it, so that the
// authorizer knows a namespace that was removed from one that went elsewhere.
func (s *sender) drop(ctx context.Context, w work) error {
	if !w.held {
		return nil
	}
	if !w.has.refused && !w.has.dropped && w.has.head != (sallyport.Head{}) {
		batch, err := s.server.delta(ctx, deltaKey{w.account, w.has.head, sallyport.Head{}})
		if err != nil && !errors.Is(err, sallyport.NotFound) {
			return err
		}
		if err == nil && batch.Head != w.has.head && batch.Follows == w.has.head {
			update := asPart(frame.Delta, batch)
			if err := s.sendUpdate(ctx, w, update); err != nil {
				return err
			}
			w.has = w.has.after(update)
		}
	}
	head, err := s.server.journal.Head(ctx, w.account)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return err
	}
	if !w.has.unlike(head) {
		return nil
	}
	return s.sendUpdate(ctx, w, frame.Part{Account: w.account, Kind: frame.Drop, Head: head})
}

// sendUpdate says in the update which of the heads that the authorizer holds are
// in its history, and sends it. They are looked up after the update was read: a
// fail-over between the two may leave out a proof, and never makes one up.
func (s *sender) sendUpdate(ctx context.Context, w work, update frame.Part) error {
	if w.held {
		for _, head := range w.has.heads() {
			if update.Supersedes(head) || head.Revision > update.Head.Revision {
				continue
			}
			at, err := s.server.journal.HeadAt(ctx, w.account, head.Revision)
			if err != nil {
				return err
			}
			if at == head {
				update.Proved = append(update.Proved, head)
			}
		}
	}
	has := w.has.after(update)
	if err := s.parts(update, has.diverged()); err != nil {
		return err
	}
	s.stream.put(w, has)
	return nil
}

// errSend: the stream cannot be written to any more.
var errSend = errors.New("sending")

func (s *sender) parts(update frame.Part, diverged bool) error {
	for part := range frame.Split(update) {
		s.seq++
		part.Seq = s.seq
		if part.Last {
			s.stream.await(unacked{s.seq, update.Account, update.Head, update.Kind == frame.Drop, diverged})
		}
		if err := s.send(part); err != nil {
			return fmt.Errorf("%w: %w", errSend, err)
		}
	}
	s.server.metrics.frames.WithLabelValues(update.Kind.String()).Inc()
	return nil
}

// snapshot reads a whole account. Only a few are read at once, whoever they are for.
func (s *Server) snapshot(ctx context.Context, account sallyport.AccountID) (journal.Batch, error) {
	select {
	case s.snapshots <- struct{}{}:
	case <-ctx.Done():
		return noBatch, ctx.Err()
	}
	defer func() { <-s.snapshots }()
	batch, err := s.journal.Snapshot(ctx, account)
	if errors.Is(err, sallyport.NotFound) {
		return noBatch, nil
	}
	return batch, err
}

// deltas shares what was read for one stream with the others that need the
// same, for a moment.
type deltas struct {
	mu      sync.Mutex
	entries map[deltaKey]*delta
}

// deltaKey: what changed in the account after one head up to another, or
// further. The zero head is not known, and not shared.
type deltaKey struct {
	account   sallyport.AccountID
	after, to sallyport.Head
}

type delta struct {
	done  chan struct{}
	batch journal.Batch
	err   error
}

// shareFor is how long a delta is kept for others.
const shareFor = time.Second

// delta reads what changed after the head. Its Follows is another head when the
// journal does not have that one.
func (s *Server) delta(ctx context.Context, key deltaKey) (journal.Batch, error) {
	if key.to == (sallyport.Head{}) {
		return s.readDelta(ctx, key)
	}
	s.deltas.mu.Lock()
	d := s.deltas.entries[key]
	if d == nil {
		d = &delta{done: make(chan struct{})}
		s.deltas.entries[key] = d
		s.deltas.mu.Unlock()
		d.batch, d.err = s.readDelta(ctx, key)
		close(d.done)
		time.AfterFunc(shareFor, func() {
			s.deltas.mu.Lock()
			defer s.deltas.mu.Unlock()
			delete(s.deltas.entries, key)
		})
		return d.batch, d.err
	}
	s.deltas.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return noBatch, ctx.Err()
	}
	if d.err != nil { // the first one's context may have ended
		return s.readDelta(ctx, key)
	}
	return d.batch, nil
}

func (s *Server) readDelta(ctx context.Context, key deltaKey) (journal.Batch, error) {
	batch, err := s.journal.Since(ctx, key.account, key.after.Revision)
	if errors.Is(err, sallyport.NotFound) {
		return noBatch, nil
	}
	return batch, err
}

const (
	// retryAfter is how long an account waits that could not be read.
	retryAfter = 200 * time.Millisecond
	// manyFailed accounts that could not be read mean that the database is away.
	manyFailed = 10
)
