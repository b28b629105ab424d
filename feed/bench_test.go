package feed_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
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

// BenchmarkFirstFill measures from the start of an authorizer without a copy to
// its being complete, with a thousand accounts of five objects each.
func BenchmarkFirstFill(b *testing.B) {
	w := newWorld(b)
	for i := range 1000 {
		letters := []byte("faaaa")
		for at, rest := 4, i; rest > 0; at, rest = at-1, rest/26 {
			letters[at] += byte(rest % 26)
		}
		w.tenant(sallyport.AccountID(letters), "c1")
	}
	c := w.serve()
	for b.Loop() {
		config := w.config(c.address, w.authorizer("c1"))
		config.Dir = b.TempDir()
		chmod(b, config.Dir)
		r, stop := w.follow(config)
		for !r.Ready() {
			time.Sleep(time.Millisecond)
		}
		if n := len(r.Heads()); n != 1001 {
			b.Fatalf("%d accounts, want 1001", n)
		}
		stop()
	}
}
