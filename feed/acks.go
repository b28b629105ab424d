package feed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// acks gathers acknowledgements and leases in memory; keepAcks writes them in
// batches. Of several acknowledgements of an account by an instance between two
// writes only the last is kept, so that there is never more than one of each.
type acks struct {
	mu     sync.Mutex
	acks   map[ackKey]gathered
	leases map[string]lease // by instance
	some   chan struct{}
}

type ackKey struct {
	account  sallyport.AccountID
	instance string
}

// ack says that the instance enforces the account's history up to and with the
// head.
type ack struct {
	key      ackKey
	head     sallyport.Head
	dropped  bool
	diverged bool // other histories are held beside it, and allow less
}

type gathered struct {
	ack
	at time.Time // this machine's clock, for how long ago
}

// lease is what is new of an instance that follows here.
type lease struct {
	freshAt time.Time // the database's clock; zero: no news
}

const (
	// leaseFor is how long an instance counts as there after its last word.
	leaseFor = 10 * time.Second
	// gatherFor is how long acknowledgements are gathered before they are written.
	gatherFor = 25 * time.Millisecond
	// leaseEvery is how often leases are written.
	leaseEvery = time.Second
	// lateLeases is how long after an instance ended its last words may be written.
	lateLeases = 3 * leaseEvery
	// pruneEvery is how often old rows are deleted, which keepFor says what are.
	pruneEvery = 10 * time.Minute
	keepFor    = 24 * time.Hour
)

func newAcks() acks {
	return acks{acks: map[ackKey]gathered{}, leases: map[string]lease{}, some: make(chan struct{}, 1)}
}

func (a *acks) add(list ...ack) {
	if len(list) == 0 {
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range list {
		a.acks[k.key] = gathered{k, now}
	}
	signal(a.some)
}

// alive notes a word of the instance, and how fresh it became (zero: no news).
func (a *acks) alive(instance string, freshAt time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if was := a.leases[instance]; was.freshAt.After(freshAt) {
		freshAt = was.freshAt
	}
	a.leases[instance] = lease{freshAt}
}

func (a *acks) takeAcks() map[ackKey]gathered {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.acks
	a.acks = map[ackKey]gathered{}
	return taken
}

// putBack puts back what could not be written and was not overtaken.
func (a *acks) putBack(taken map[ackKey]gathered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, g := range taken {
		if _, newer := a.acks[k]; !newer {
			a.acks[k] = g
		}
	}
	signal(a.some)
}

func (a *acks) takeLeases() map[string]lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.leases
	a.leases = map[string]lease{}
	return taken
}

// keepAcks writes what was gathered until the context ends.
func (s *Server) keepAcks(ctx context.Context) {
	leases, old := time.NewTicker(leaseEvery), time.NewTicker(pruneEvery)
	defer leases.Stop()
	defer old.Stop()
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			s.writeAcks(final)
			s.writeLeases(final)
			return
		case <-s.acks.some:
			sleep(ctx, gatherFor)
			if !s.writeAcks(ctx) {
				sleep(ctx, time.Second)
			}
		case <-leases.C:
			s.writeLeases(ctx)
		case <-old.C:
			if err := prune(ctx, s.pool, keepFor); err != nil && ctx.Err() == nil {
				s.log.Warn("deleting old acknowledgements", "error", err)
			}
		}
	}
}

func (s *Server) writeAcks(ctx context.Context) bool {
	taken := s.acks.takeAcks()
	if len(taken) == 0 {
		return true
	}
	lags, err := insertAcks(ctx, s.pool, taken, time.Now())
	if err != nil {
		s.acks.putBack(taken)
		if ctx.Err() == nil {
			s.log.Warn("keeping acknowledgements", "error", err)
		}
		return false
	}
	for _, lag := range lags {
		s.metrics.lag.Observe(lag.Seconds())
	}
	return true
}

func (s *Server) writeLeases(ctx context.Context) {
	taken := s.acks.takeLeases()
	if len(taken) == 0 {
		return
	}
	registered, err := extendLeases(ctx, s.pool, taken, leaseFor)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("extending the leases of authorizers", "error", err)
		}
		return
	}
	for _, st := range s.hub.all() {
		if _, was := taken[st.instance]; was && !slices.Contains(registered, st.instance) {
			st.cut(sallyport.Unavailable.Errorf("the database does not know of this authorizer any more, as after a restore; connect again"))
		}
	}
}
