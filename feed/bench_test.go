package feed_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/journal"
)

// BenchmarkEnforced measures from the commit of a revocation to its being in
// force in the memory of twelve authorizers, and on the disk of half of them.
func BenchmarkEnforced(b *testing.B) {
	w := newWorld(b)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	var replicas []*replica.Replica
	for i := range 12 {
		config := w.config(c.address, w.authorizer("c1"))
		if i%2 == 0 {
			config.Dir = b.TempDir()
			chmod(b, config.Dir)
		}
		r, _ := w.follow(config)
		w.reached(r, x.account)
		replicas = append(replicas, r)
	}
	var took []time.Duration
	for b.Loop() {
		done := w.commit(x.account, func(tx *journal.Tx) error {
			if err := revoke(tx, x.principal, "ns_other"); err != nil {
				return err
			}
			return grant(tx, x.principal, "ns_more", "read")
		})
		begun := time.Now()
		for _, r := range replicas {
			changes, cancel := r.Changes()
			for r.Heads()[x.account].Revision < done.Head.Revision {
				<-changes
			}
			cancel()
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
