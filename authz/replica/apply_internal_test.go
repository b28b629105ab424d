package replica

import (
	"fmt"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
)

// BenchmarkApplyChange applies one change, a key disabled and enabled, to an
// account of a million keys.
func BenchmarkApplyChange(b *testing.B) {
	const n = 1_000_000
	h := newHistory("f45a2")
	key := func(i int, status object.Status) object.Object {
		return object.Object{Kind: object.KindKey, ID: fmt.Sprintf("key%013d", i),
			Data: object.Encode(object.Key{Owner: fmt.Sprintf("sa_%016d", i), Status: status, Epoch: 1, Expires: 1 << 50})}
	}
	objects := make([]object.Object, 0, 2*n)
	for i := range n {
		objects = append(objects, key(i, object.Active),
			object.Object{Kind: object.KindPrincipal, ID: fmt.Sprintf("sa_%016d", i), Data: object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1})})
	}
	h.change(objects...)
	r, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.apply(h.snapshot()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		u := h.change(key(i*7919%n, []object.Status{object.Disabled, object.Active}[i&1]))
		if _, err := r.apply(u); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
