package certs

import "github.com/prometheus/client_golang/prometheus"

// metrics count over all accounts.
type metrics struct {
	issued    *prometheus.CounterVec // by kind: first, renewal
	lintFails *prometheus.CounterVec // by lint
	live      prometheus.Gauge
	expiring  prometheus.Gauge
}

func newMetrics() metrics {
	return metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_certificates_issued_total", Help: "Client certificates that were signed, by whether they renewed another.",
		}, []string{"kind"}),
		lintFails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_certificate_lint_failures_total", Help: "Certificates that were not signed because a lint failed.",
		}, []string{"lint"}),
		live: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_certificates_live", Help: "Client certificates of the managed CA that are neither expired nor revoked.",
		}),
		expiring: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_certificates_expiring", Help: "Live certificates of the managed CA in the last quarter of their life that were not renewed.",
		}),
	}
}

// countIssued counts a certificate that was signed and stored.
func (m metrics) countIssued(renewal bool) {
	kind := "first"
	if renewal {
		kind = "renewal"
	}
	m.issued.WithLabelValues(kind).Inc()
}

// register makes the metrics known; a nil registerer keeps none.
func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.issued, m.lintFails, m.live, m.expiring} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
