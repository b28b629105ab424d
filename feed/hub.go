package feed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/journal"
)

// The hub finds out which accounts changed and tells the streams. There are
// three ways, each slower and surer than the one before: a notification is a
// hint, a poll of the heads that changed of late is the ordinary way, and a
// complete sweep over all heads is the guarantee. Only a sweep lets a ping be
// answered.
type hub struct {
	mu      sync.Mutex
	streams map[*stream]bool
	begun   int64         // sweeps
	woken   chan struct{} // poll now
	asked   chan struct{} // a ping waits for a sweep
}

// overlap is how far a poll looks back before the poll before it: a commit may
// become visible that long after the time that it carries. What takes longer is
// found by the sweep.
const overlap = 2 * time.Second

var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func (h *hub) all() []*stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*stream, 0, len(h.streams))
	for s := range h.streams {
		list = append(list, s)
	}
	return list
}

func (h *hub) add(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[s] = true
}

func (h *hub) remove(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// next is the number of the first sweep that begins after the call. It asks
// for it.
func (h *hub) next() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	signal(h.asked)
	return h.begun + 1
}

// begin numbers a sweep and gives the streams that it is for.
func (h *hub) begin() (number int64, streams []*stream) {
	h.mu.Lock()
	h.begun++
	number = h.begun
	h.mu.Unlock()
	return number, h.all()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// listen passes notifications on, as hints.
func (s *Server) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := listen(ctx, s.pool, func() { signal(s.hub.woken) })
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("listening for changes; polling goes on", "error", err)
		sleep(ctx, time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// poll looks for heads that changed of late.
func (s *Server) poll(ctx context.Context) {
	ticker := time.NewTicker(s.pollEvery)
	defer ticker.Stop()
	var from time.Time
	known := map[sallyport.AccountID]sallyport.Head{} // what the polls within the overlap found
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.hub.woken:
		}
		streams := s.hub.all()
		if len(streams) == 0 {
			from = time.Time{}
			clear(known)
			continue
		}
		if from.IsZero() { // a sweep tells what was before; this gives the database's time
			from = farFuture
		}
		heads, at, err := s.journal.HeadsChangedSince(ctx, from)
		if err == nil {
			err = s.tell(ctx, streams, heads, known)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("polling for changes", "error", err)
			}
			sleep(ctx, time.Second)
			continue
		}
		from = at.Add(-overlap)
		clear(known)
		for _, h := range heads {
			known[h.Account] = h.Head
		}
	}
}

// tell marks what is new among the heads in all streams that it concerns.
func (s *Server) tell(ctx context.Context, streams []*stream, heads []journal.AccountHead, known map[sallyport.AccountID]sallyport.Head) error {
	var changed []journal.AccountHead
	var accounts []sallyport.AccountID
	for _, h := range heads {
		if known[h.Account] != h.Head {
			changed = append(changed, h)
			accounts = append(accounts, h.Account)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	cells, err := s.directory.CellsOf(ctx, accounts)
	if err != nil {
		return err
	}
	for _, st := range streams {
		st.changed(changed, cells)
	}
	return nil
}

// sweep compares all heads with what the streams have. It is asked for by
// pings, never more often than leaves the database in peace.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(s.sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.hub.asked:
		}
		number, streams := s.hub.begin()
		if len(streams) == 0 {
			continue
		}
		begun := time.Now()
		if err := s.sweepOnce(ctx, number, streams); err != nil && ctx.Err() == nil {
			s.log.Warn("sweeping over all heads; authorizers age meanwhile", "error", err)
			sleep(ctx, time.Second)
		}
		took := time.Since(begun)
		s.metrics.sweep.Observe(took.Seconds())
		sleep(ctx, min(max(10*took, s.sweepEvery/20), s.sweepEvery))
	}
}

func (s *Server) sweepOnce(ctx context.Context, number int64, streams []*stream) error {
	list, asOf, err := s.journal.Heads(ctx)
	if err != nil {
		return err
	}
	heads := make(map[sallyport.AccountID]sallyport.Head, len(list))
	for _, h := range list {
		heads[h.Account] = h.Head
	}
	members := map[string][]sallyport.AccountID{}
	for _, st := range streams {
		for _, cell := range st.inCells() {
			if _, known := members[cell]; known {
				continue
			}
			if members[cell], err = s.directory.AccountsInCell(ctx, cell); err != nil {
				return err
			}
		}
	}
	for _, st := range streams {
		s.acks.add(st.swept(number, asOf, heads, members)...)
	}
	return nil
}

// shares reports whether the two lists of cells have one in common.
func shares(a, b []string) bool {
	return slices.ContainsFunc(a, func(cell string) bool { return slices.Contains(b, cell) })
}
