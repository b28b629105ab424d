package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// TestApplyRules: what may replace what.
func TestApplyRules(t *testing.T) {
	t.Parallel()
	base := newHistory("f45a2")
	base.change(principal("u_0", 0))
	first := base.snapshot()
	second := base.change(principal("u_1", 1))
	foreign := newHistory("f45a2")
	foreign.head.Hash[9] = 7
	foreign.change(principal("u_2", 1))
	foreignSnapshot := foreign.snapshot()
	foreignDelta := foreign.change(principal("u_3", 1))
	foreignEpoch := foreign.change(principal("u_4", 1))
	foreignEpoch.Head.Epoch = 2
	proved := foreignSnapshot
	proved.Follows = second.Head
	broken := second
	broken.Digest[0]++
	tests := []struct {
		name    string
		updates []frame.Part
		refused bool // the last one
		held    sallyport.Head
		beside  sallyport.Head
	}{
		{name: "snapshot into nothing", updates: []frame.Part{first}, held: first.Head},
		{name: "delta into nothing", updates: []frame.Part{second}, refused: true},
		{name: "delta that follows", updates: []frame.Part{first, second}, held: second.Head},
		{name: "delta again", updates: []frame.Part{first, second, second}, refused: true, held: second.Head},
		{name: "delta of another history", updates: []frame.Part{first, foreignDelta}, refused: true, held: first.Head},
		{name: "wrong digest", updates: []frame.Part{first, broken}, refused: true, held: first.Head},
		{name: "older snapshot", updates: []frame.Part{first, second, first}, held: second.Head, beside: first.Head},
		{name: "same snapshot", updates: []frame.Part{first, first}, held: first.Head},
		{name: "another history", updates: []frame.Part{first, second, foreignSnapshot}, held: second.Head, beside: foreignSnapshot.Head},
		{name: "another history goes on", updates: []frame.Part{first, second, foreignSnapshot, foreignDelta}, held: second.Head, beside: foreignDelta.Head},
		{name: "a new epoch ends it", updates: []frame.Part{first, second, foreignSnapshot, foreignDelta, foreignEpoch}, held: foreignEpoch.Head},
		{name: "the held history is back", updates: []frame.Part{first, foreignSnapshot, second}, held: second.Head},
		{name: "proved", updates: []frame.Part{first, second, proved}, held: proved.Head},
		{name: "drop", updates: []frame.Part{first, second, foreignSnapshot, {Account: "f45a2", Kind: frame.Drop}}},
		{name: "after a drop", updates: []frame.Part{first, {Account: "f45a2", Kind: frame.Drop}, foreignSnapshot}, held: foreignSnapshot.Head},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			for i, u := range test.updates {
				_, err := r.apply(u)
				if refused := err != nil; refused != (test.refused && i == len(test.updates)-1) {
					t.Fatalf("update %d: %v", i, err)
				}
			}
			s := r.find("f45a2").state.Load()
			var held, beside sallyport.Head
			if s.held != nil {
				held = s.held.head
			}
			if s.beside != nil {
				beside = s.beside.head
			}
			if held != test.held || beside != test.beside || s.stuck != test.refused {
				t.Errorf("got held %d.%d, beside %d.%d, stuck %t", held.Epoch, held.Revision, beside.Epoch, beside.Revision, s.stuck)
			}
		})
	}
}

// TestViewsAreAsIfBuiltAnew applies many small changes and compares the result
// with a view that was built at once.
func TestViewsAreAsIfBuiltAnew(t *testing.T) {
	t.Parallel()
	r, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	if _, err := r.apply(h.snapshot()); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		id := fmt.Sprintf("u_%d", i*7919%997)
		key := object.Object{Kind: object.KindKey, ID: fmt.Sprintf("k%d", i%1500), Data: object.Encode(object.Key{Owner: id, Status: object.Active, Expires: int64(i)})}
		membership := object.Object{Kind: object.KindMembership, ID: object.MembershipID("g_1", id), Data: object.Encode(object.Membership{Group: "g_1", User: id}), Deleted: i%3 == 0}
		grant := object.Object{Kind: object.KindGrant, ID: object.GrantID(id, sallyport.ScopeNamespace, "ns_1"),
			Data: object.Encode(object.Grant{Subject: id, Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "read"}), Deleted: i%2 == 0}
		ns := object.Object{Kind: object.KindNamespace, ID: fmt.Sprintf("ns_%d", i%40), Data: object.Encode(object.Namespace{Name: fmt.Sprintf("n%d", i%60)}), Deleted: i%5 == 0}
		p := principal(id, int64(i))
		p.Deleted = i%4 == 0
		if i%6 == 0 {
			key.Deleted = true
		}
		if _, err := r.apply(h.change(p, key, membership, grant, ns)); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	v := r.find("f45a2").state.Load().held
	if v.count != len(h.live) {
		t.Errorf("%d objects, want %d", v.count, len(h.live))
	}
	n := 0
	for o := range v.objects {
		if want := h.live[string(o.Kind)+o.ID]; !bytes.Equal(want.Data, o.Data) {
			t.Fatalf("%s %s: %s, want %s", o.Kind, o.ID, o.Data, want.Data)
		}
		n++
	}
	if n != len(h.live) {
		t.Errorf("%d objects are listed, want %d", n, len(h.live))
	}
	for _, o := range h.live {
		if o.Kind == object.KindKey {
			if owner := v.keyOwner(o.ID, new(packedKey)); owner == "" {
				t.Errorf("key %s is not found", o.ID)
			}
		}
	}
}

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
