package clientca

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const measureEvery = time.Minute

type metrics struct {
	cas    *prometheus.GaugeVec // by days left
	leaves prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) (metrics, error) {
	m := metrics{
		cas: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_client_cas_expiring",
			Help: "Client CAs of namespaces with mTLS on that have at most so many days left, each counted once; expired: none."}, []string{"days"}),
		leaves: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_client_certificates_expiring",
			Help: "Long-lived client certificates of customers' CAs, in use, that have at most 5 days left."}),
	}
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.cas, m.leaves} {
		if err := registry.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

// measure sets the metrics. Every copy of the service tells the same.
func (c *ClientCAs) measure(ctx context.Context) {
	now := c.now().UTC()
	counts, err := expiringCAs(ctx, c.pool, now)
	if err == nil {
		for days, label := range map[int]string{0: "expired", 5: "5", 10: "10", 15: "15"} {
			c.metrics.cas.WithLabelValues(label).Set(float64(counts[days]))
		}
		var n int
		n, err = expiringLeaves(ctx, c.pool, now)
		c.metrics.leaves.Set(float64(n))
	}
	c.logged(ctx, "counting what expires", err)
}

// Expiring lists, of all accounts, the client CAs of namespaces with mTLS on that
// expire within 15 days, and the long-lived client certificates in use that do
// within 5. What has expired is not in it.
func (c *ClientCAs) Expiring(ctx context.Context, q pg.Querier, now time.Time) ([]Expiring, error) {
	now = now.UTC()
	list, err := casThatExpire(ctx, q, now)
	if err != nil {
		return nil, err
	}
	leaves, err := readExpiringLeaves(ctx, q, now)
	if err != nil {
		return nil, err
	}
	for len(leaves) > 0 { // by account
		account := leaves[0].Account
		end := slices.IndexFunc(leaves, func(e Expiring) bool { return e.Account != account })
		if end < 0 {
			end = len(leaves)
		}
		there, err := c.named(ctx, q, account, leaves[:end])
		if err != nil {
			return nil, err
		}
		list, leaves = append(list, there...), leaves[end:]
	}
	for i := range list {
		list[i].Days = threshold(list[i].NotAfter.Sub(now))
	}
	return list, nil
}

// named gives certificates the names of their namespaces, and leaves out those
// of namespaces that have gone or have mTLS off.
func (c *ClientCAs) named(ctx context.Context, q pg.Querier, account sallyport.AccountID, leaves []Expiring) ([]Expiring, error) {
	var ids []sallyport.NamespaceID
	for _, e := range leaves {
		ids = append(ids, e.Namespace)
	}
	namespaces, err := c.directory.NamespacesByID(ctx, q, account, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	var there []Expiring
	for _, e := range leaves {
		if n, ok := namespaces[e.Namespace]; ok && n.MTLSAuth {
			e.Name = n.Name
			there = append(there, e)
		}
	}
	return there, nil
}

// threshold is the smallest number of days of which at most are left.
func threshold(left time.Duration) int {
	for _, days := range []int{5, 10} {
		if left <= time.Duration(days)*24*time.Hour {
			return days
		}
	}
	return 15
}
