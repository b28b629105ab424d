package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	applied  *prometheus.CounterVec // by kind of frame
	refused  *prometheus.CounterVec // by reason
	connects prometheus.Counter
	apply    prometheus.Histogram
	sync     prometheus.Histogram
	checks   *prometheus.CounterVec // of tokens, by outcome
}

// newMetrics makes the replica's metrics and registers them, if registry is
// not nil.
func newMetrics(r *Replica, registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_replica_frames_total",
			Help: "Frames of the feed, by what they were."}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_replica_refused_total",
			Help: "Updates of an account that were not applied as they came, by reason. Any is worth an alarm."}, []string{"reason"}),
		connects: prometheus.NewCounter(prometheus.CounterOpts{Name: "sallyport_replica_connects_total",
			Help: "Streams to the service that were begun."}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sallyport_replica_apply_seconds",
			Help: "Time to apply an update in memory.", Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12)}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sallyport_replica_sync_seconds",
			Help: "Time to make updates durable on the disk.", Buckets: prometheus.ExponentialBuckets(1e-5, 4, 10)}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_replica_tokens_checked_total",
			Help: "Access tokens that were new to this server, by outcome: good, bad, or busy (not checked, for too many others). Those that it knows are not counted."}, []string{"outcome"}),
	}
	if registry == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{m.applied, m.refused, m.connects, m.apply, m.sync, m.checks,
		gauge("sallyport_replica_age_seconds", "How old the copy may be; -1 before it was ever complete.", func() float64 {
			age, ok := r.Age(time.Now())
			if !ok {
				return -1
			}
			return age.Seconds()
		}),
		gauge("sallyport_replica_accounts", "Accounts in the copy.", func() float64 { return float64(r.accounts.Load().count) }),
		gauge("sallyport_replica_diverged_accounts", "Accounts of which two histories are held, the stricter of which counts.", func() float64 {
			return r.standing(Diverged)
		}),
		gauge("sallyport_replica_stuck_accounts", "Accounts of which an update could not be applied.", func() float64 {
			return r.standing(Stuck)
		}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// standing counts the accounts that stand so.
func (r *Replica) standing(want Standing) float64 {
	var n float64
	for a := range r.accounts.Load().all {
		if r.Standing(a.id) == want {
			n++
		}
	}
	return n
}
