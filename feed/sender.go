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
	batch, err := s.next(ctx, w)
	if err != nil || batch.Head == (sallyport.Head{}) {
		return err
	}
	kind := frame.Snapshot
	if w.held && !w.has.refused && batch.Follows == w.has.head {
		kind = frame.Delta
	}
	update := frame.Part{Account: w.account, Kind: kind, Follows: batch.Follows, Head: batch.Head, Digest: batch.Digest, Objects: batch.Objects}
	if err := s.parts(update); err != nil {
		return err
	}
	s.stream.put(w, batch.Head)
	return nil
}

// next gives what the account lacks on the stream; a zero Head for nothing.
// What the stream has is compared with the journal each time: the database may
// have been restored, or may have lost commits by a fail-over.
func (s *sender) next(ctx context.Context, w work) (journal.Batch, error) {
	switch {
	case !w.held:
		return s.server.snapshot(ctx, w.account)
	case w.has.refused:
		return s.proved(ctx, w.account, w.has.head)
	case w.has.other != (sallyport.Head{}):
		// Is what it held before it diverged in the database again?
		at, err := s.server.journal.HeadAt(ctx, w.account, w.has.other.Revision)
		if err != nil {
			return noBatch, err
		}
		if at == w.has.other {
			batch, err := s.proved(ctx, w.account, at)
			if err == nil {
				s.stream.diverged(w.account, sallyport.Head{})
			}
			return batch, err
		}
	}
	batch, err := s.server.delta(ctx, deltaKey{w.account, w.has.head, w.why.head})
	switch {
	case err != nil:
		return noBatch, err
	case batch.Head == w.has.head:
		if w.has.claimed {
			s.stream.put(w, batch.Head)
			s.server.acks.add(ack{ackKey{w.account, s.stream.instance}, batch.Head, false})
		}
		return noBatch, nil
	case batch.Follows == w.has.head:
		return batch, nil
	}
	s.server.log.Error("an authorizer has a history of an account that is not in the database; it gets what the database has",
		"account", w.account, "instance", s.stream.instance, "has", w.has.head.Revision, "head", batch.Head.Revision)
	return s.server.snapshot(ctx, w.account)
}

var noBatch journal.Batch

// proved gives a snapshot that says of the head, if that is in the journal,
// that it is in its history.
func (s *sender) proved(ctx context.Context, account sallyport.AccountID, head sallyport.Head) (journal.Batch, error) {
	var at sallyport.Head
	if head != (sallyport.Head{}) {
		var err error
		if at, err = s.server.journal.HeadAt(ctx, account, head.Revision); err != nil {
			return noBatch, err
		}
	}
	batch, err := s.server.snapshot(ctx, account)
	if at == head {
		batch.Follows = at
	}
	return batch, err
}

// drop tells that the account is not the authorizer's any more. update made
// sure of it just now.
func (s *sender) drop(ctx context.Context, w work) error {
	if !w.held {
		return nil
	}
	head, err := s.server.journal.Head(ctx, w.account)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return err
	}
	if err := s.parts(frame.Part{Account: w.account, Kind: frame.Drop, Head: head}); err != nil {
		return err
	}
	s.stream.forget(w.account)
	return nil
}

// errSend: the stream cannot be written to any more.
var errSend = errors.New("sending")

func (s *sender) parts(update frame.Part) error {
	for part := range frame.Split(update) {
		s.seq++
		part.Seq = s.seq
		if part.Last {
			s.stream.await(unacked{s.seq, update.Account, update.Head, update.Kind == frame.Drop})
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
