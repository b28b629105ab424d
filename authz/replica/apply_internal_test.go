package replica

import (
	"fmt"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// BenchmarkApplyChange applies one change, a key disabled or enabled, to an
// account of a thousand and of a million keys.
func BenchmarkApplyChange(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		if n > 1000 && testing.Short() {
			continue
		}
		r, base := benchAccount(b, n)
		b.Run(map[int]string{1000: "1k", 1_000_000: "1M"}[n], func(b *testing.B) {
			b.ReportAllocs()
			head, i := base.Head, 0
			digests := [2]object.Digest{base.Digest, base.Digest}
			active, disabled := benchKey(0, object.Active), benchKey(0, object.Disabled)
			digests[1].Toggle(active.Kind, active.ID, active.Data, false)
			digests[1].Toggle(disabled.Kind, disabled.ID, disabled.Data, true)
			for b.Loop() {
				i++
				u := frame.Part{Account: "f45a2", Kind: frame.Delta, Follows: head, Head: head, Digest: digests[i&1], Objects: []object.Object{active}}
				if i&1 == 1 {
					u.Objects[0] = disabled
				}
				u.Head.Revision++
				if _, err := r.apply(u); err != nil {
					b.Fatal(err)
				}
				head = u.Head
			}
			// What was disabled last must not be so in the next round.
			if i&1 == 1 {
				if _, err := r.apply(frame.Part{Account: "f45a2", Kind: frame.Delta, Follows: head, Head: base.Head, Digest: base.Digest, Objects: []object.Object{active}}); err != nil {
					b.Fatal(err)
				}
			} else if _, err := r.apply(frame.Part{Account: "f45a2", Kind: frame.Delta, Follows: head, Head: base.Head, Digest: base.Digest}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func benchKey(i int, status object.Status) object.Object {
	return object.Object{Kind: object.KindKey, ID: fmt.Sprintf("key%013d", i),
		Data: object.Encode(object.Key{Owner: fmt.Sprintf("sa_%016d", i), Status: status, Epoch: 1, Expires: 1 << 50})}
}

// benchAccount makes a replica of an account with n service accounts with a key.
func benchAccount(b *testing.B, n int) (*Replica, frame.Part) {
	u := frame.Part{Account: "f45a2", Kind: frame.Snapshot, Head: sallyport.Head{Epoch: 1, Revision: 1}}
	for i := range n {
		for _, o := range []object.Object{benchKey(i, object.Active), {Kind: object.KindPrincipal, ID: fmt.Sprintf("sa_%016d", i),
			Data: object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1})}} {
			u.Digest.Toggle(o.Kind, o.ID, o.Data, true)
			u.Objects = append(u.Objects, o)
		}
	}
	r, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.apply(u); err != nil {
		b.Fatal(err)
	}
	u.Objects = nil
	return r, u
}
