package token

import "github.com/prometheus/client_golang/prometheus"

// metrics count over all accounts.
type metrics struct {
	issued  *prometheus.CounterVec // by grant
	refused *prometheus.CounterVec // by error
}

func newMetrics() metrics {
	return metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_tokens_issued_total", Help: "Tokens that were given out, by grant.",
		}, []string{"grant"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_token_requests_refused_total", Help: "Token requests that were refused, by OAuth error.",
		}, []string{"error"}),
	}
}

// register makes the metrics known; a nil registerer keeps none.
func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.issued, m.refused} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
