package replica

import (
	"log/slog"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// An account that left the cell still has the position at which it did.
func TestHeadOf(t *testing.T) {
	t.Parallel()
	r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.HeadOf("f45a2"); got != (sallyport.Head{}) {
		t.Errorf("of an account that was not received: %v", got)
	}
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	first := h.snapshot()
	second := h.change(principal("u_1", 1))
	for _, u := range []frame.Part{first, {Account: "f45a2", Kind: frame.Drop, Head: second.Head, Proved: []sallyport.Head{first.Head}}} {
		if _, err := r.apply(u); err != nil {
			t.Fatal(err)
		}
		if got := r.HeadOf("f45a2"); got != u.Head {
			t.Errorf("got %v, want %v", got, u.Head)
		}
	}
	if got := r.Standing("f45a2"); got != Dropped || len(r.Heads()) != 0 {
		t.Errorf("%s, %d heads; want it dropped and not held", got, len(r.Heads()))
	}
}
