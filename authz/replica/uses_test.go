package replica

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUsesAreCoalescedByMinute(t *testing.T) {
	r, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	allowed := Decision{Allow: true, Account: "acct2", KeyID: "k"}
	for second := range 90 {
		r.MarkUsed(allowed, noon.Add(time.Duration(second)*time.Second))
	}
	r.MarkUsed(Decision{Account: "acct2", KeyID: "denied"}, noon)
	r.MarkUsed(Decision{Allow: true}, noon)
	want := []use{{useKey{"acct2", "k"}, noon.Add(time.Minute)}}
	if diff := cmp.Diff(want, r.uses.take(), cmp.AllowUnexported(use{}, useKey{})); diff != "" {
		t.Errorf("uses (-want +got):\n%s", diff)
	}
	r.MarkUsed(allowed, noon.Add(100*time.Second))
	if again := r.uses.take(); len(again) != 0 {
		t.Errorf("told twice for a minute: %v", again)
	}
	if n := testing.AllocsPerRun(100, func() { r.MarkUsed(allowed, noon.Add(100*time.Second)) }); n != 0 {
		t.Errorf("%v allocations for a use that is known", n)
	}
}
