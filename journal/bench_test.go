package journal_test

import (
	"sync/atomic"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// BenchmarkCommit measures changes of one object: one after the other in one
// account, and by many writers over 64 accounts. The floor is a one-row
// transaction on the same server (which does not wait for the disk).
func BenchmarkCommit(b *testing.B) {
	j := newJournal(b, journal.Config{Pool: pgtest.Clone(b)})
	var accounts []sallyport.AccountID
	for range 64 {
		account, _ := newAccount(b, j)
		accounts = append(accounts, account)
	}
	commit := func(b *testing.B, account sallyport.AccountID) {
		_, err := j.Commit(b.Context(), sallyport.OperatorCaller(account, "bench"), account, journal.Operation{Type: "Put"}, put(b.Context(), "g_1", "one"))
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			if _, err := j.Pool().Exec(b.Context(), `update heads set changed_at = clock_timestamp() where account_id = $1`, accounts[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one-account", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			commit(b, accounts[0])
		}
	})
	b.Run("64-accounts", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(8)
		var next atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				commit(b, accounts[next.Add(1)%64])
			}
		})
	})
}
