package temporal

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// metrics are kept also when nobody collects them.
type metrics struct {
	decisions  *prometheus.CounterVec // by outcome
	allowed    prometheus.Counter     // of decisions
	age        prometheus.Gauge
	endedPolls prometheus.Counter
	reconciled *prometheus.CounterVec // by action
	conflicts  prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_temporal_decisions_total",
			Help: "Calls decided, by outcome: allow, or the kind of refusal.",
		}, []string{"outcome"}),
		age: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_temporal_decision_age_seconds",
			Help: "Age of the policy that the last call was decided by.",
		}),
		endedPolls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_temporal_ended_polls_total",
			Help: "Waiting calls that were ended because their credential was.",
		}),
		reconciled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_temporal_namespace_changes_total",
			Help: "Changes made to the server's namespaces, by action: register, update, delete; and failures.",
		}, []string{"action"}),
		conflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_temporal_namespace_conflicts",
			Help: "Namespaces of the server that wait for its operator: made by somebody else under a wanted name, kept after a new epoch, or refused to be changed.",
		}),
	}
	m.allowed = m.decisions.WithLabelValues("allow")
	if registerer == nil {
		return m, nil
	}
	var problems []error
	for _, c := range []prometheus.Collector{m.decisions, m.age, m.endedPolls, m.reconciled, m.conflicts} {
		problems = append(problems, registerer.Register(c))
	}
	return m, errors.Join(problems...)
}

func (m *metrics) observe(d replica.Decision) {
	m.age.Set(d.Age.Seconds())
	if d.Allow {
		m.allowed.Inc()
		return
	}
	m.decisions.WithLabelValues(string(d.Kind)).Inc()
}
