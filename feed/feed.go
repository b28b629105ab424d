// Package feed keeps the copies of authorizers equal to the journal: it streams
// each the accounts of its cells, gathers what they acknowledge, and says where
// a change is in force.
//
// A stream reads its accounts one after the other, each in a transaction of its
// own: an authorizer that starts without a copy has a thousand small accounts,
// durable on its disk, after about 0.35 s with everything on a machine of two
// cores (BenchmarkFirstFill). One that has a copy is sent what changed.
package feed

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/journal"
)

// Directory says where accounts live. Both are required.
type Directory struct {
	// AccountsInCell lists the accounts that have a namespace in the cell.
	AccountsInCell func(ctx context.Context, cell string) ([]sallyport.AccountID, error)
	// CellsOf lists, for each of the accounts that has any, the cells that its
	// namespaces are in.
	CellsOf func(ctx context.Context, accounts []sallyport.AccountID) (map[sallyport.AccountID][]string, error)
}

// Config of a Server.
type Config struct {
	Journal   *journal.Journal // required
	Directory Directory        // required
	// Authenticate proves who follows, by the Authorization header and the
	// address. Required. The caller must be of account 00000 and have cells.
	Authenticate func(ctx context.Context, authorization string, from netip.Addr) (sallyport.Caller, error)
	// Used is told when a key last let a call through. It must not block. Nil:
	// nobody is told.
	Used func(account sallyport.AccountID, keyID string, at time.Time)
	// CertificateUsed is told which client certificates were presented. It must not
	// block. Nil: nobody is told.
	CertificateUsed func(CertificateUse)
	PollEvery       time.Duration         // for changed heads; zero: 150 ms
	SweepEvery      time.Duration         // over all heads; zero: a second
	Logger          *slog.Logger          // nil: slog.Default()
	Metrics         prometheus.Registerer // nil: none
}

// CertificateUse is an authorizer's word that a client certificate was presented
// on calls to a namespace, in the minute that begins At. Its sizes are bounded
// and its Fingerprint is that of the Chain, if there is one; all else is as good
// as the authorizer.
type CertificateUse struct {
	Account     sallyport.AccountID
	Namespace   sallyport.NamespaceID
	Fingerprint string // of the leaf
	At          time.Time
	Chain       [][]byte // DER, leaf first; nil: it was told within the hour
	CA          string   // fingerprint of the CA of the bundle that it ends at; "": refused, or Managed
	Filter      int      // the place of the filter that it matched, from 1; zero: there was none
	Managed     bool     // it is of the managed CA
	Refused     string   // why it was not let in; "": it was
}

// Server is the feed of one copy of the service. Copies on one database do not
// know of each other. It is safe for concurrent use.
type Server struct {
	feedv1.UnimplementedFeedServiceServer
	journal      *journal.Journal
	pool         *pgxpool.Pool
	directory    Directory
	authenticate func(context.Context, string, netip.Addr) (sallyport.Caller, error)
	used         func(sallyport.AccountID, string, time.Time)
	seen         func(CertificateUse)
	pollEvery    time.Duration
	sweepEvery   time.Duration
	log          *slog.Logger
	metrics      *metrics
	hub          hub
	acks         acks
	deltas       deltas
	snapshots    chan struct{} // a slot for each snapshot that is being read
	stopped      chan struct{} // closed when Run ended: streams end
	stop         sync.Once
}

// New makes a Server. It streams nothing unless Run is running.
func New(c Config) (*Server, error) {
	if c.Journal == nil || c.Authenticate == nil || c.Directory.AccountsInCell == nil || c.Directory.CellsOf == nil {
		return nil, errors.New("feed: Config needs Journal, Directory and Authenticate")
	}
	if c.Used == nil {
		c.Used = func(sallyport.AccountID, string, time.Time) {}
	}
	if c.CertificateUsed == nil {
		c.CertificateUsed = func(CertificateUse) {}
	}
	if c.PollEvery == 0 {
		c.PollEvery = 150 * time.Millisecond
	}
	if c.SweepEvery == 0 {
		c.SweepEvery = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Server{
		journal: c.Journal, pool: c.Journal.Pool(), directory: c.Directory, authenticate: c.Authenticate,
		used: c.Used, seen: c.CertificateUsed, pollEvery: c.PollEvery, sweepEvery: c.SweepEvery, log: c.Logger,
		hub:  hub{streams: map[*stream]bool{}, woken: make(chan struct{}, 1), asked: make(chan struct{}, 1)},
		acks: newAcks(), deltas: deltas{entries: map[deltaKey]*delta{}},
		snapshots: make(chan struct{}, 4), stopped: make(chan struct{}),
	}
	var err error
	s.metrics, err = newMetrics(s, c.Metrics)
	return s, err
}

// Run follows the journal for all streams, and keeps acknowledgements, until
// the context ends; the streams end with it.
func (s *Server) Run(ctx context.Context) error {
	defer s.stop.Do(func() { close(s.stopped) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { s.listen(ctx); return nil })
	group.Go(func() error { s.poll(ctx); return nil })
	group.Go(func() error { s.sweep(ctx); return nil })
	group.Go(func() error { s.keepAcks(ctx); return nil })
	return group.Wait()
}

type metrics struct {
	frames   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	diverged prometheus.Counter
	sweep    prometheus.Histogram
	lag      prometheus.Histogram
}

func newMetrics(s *Server, registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		frames: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_feed_frames_total",
			Help: "Frames sent to authorizers, by kind."}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_feed_refused_total",
			Help: "Updates that an authorizer did not apply, by reason."}, []string{"reason"}),
		diverged: prometheus.NewCounter(prometheus.CounterOpts{Name: "sallyport_feed_diverged_total",
			Help: "Accounts of which an authorizer holds another history than the database. Any is worth an alarm."}),
		sweep: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sallyport_feed_sweep_seconds",
			Help: "Time to compare all heads with what is streamed.", Buckets: prometheus.ExponentialBuckets(1e-3, 2, 12)}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sallyport_feed_enforced_seconds",
			Help: "From the commit of a change to its acknowledgement by an authorizer.", Buckets: prometheus.ExponentialBuckets(1e-3, 2, 15)}),
	}
	if registry == nil {
		return m, nil
	}
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sallyport_feed_streams", Help: "Authorizers that follow this copy of the service."},
		func() float64 { return float64(len(s.hub.all())) })
	for _, c := range []prometheus.Collector{m.frames, m.refused, m.diverged, m.sweep, m.lag, streams} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
