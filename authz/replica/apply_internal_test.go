package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	proved.Proved = []sallyport.Head{second.Head}
	both := second
	both.Proved = []sallyport.Head{foreignSnapshot.Head}
	broken := second
	broken.Digest[0]++
	drop := frame.Part{Account: "f45a2", Kind: frame.Drop, Head: foreignSnapshot.Head}
	ownDrop := frame.Part{Account: "f45a2", Kind: frame.Drop, Head: second.Head, Proved: []sallyport.Head{first.Head}}
	back := foreignSnapshot
	back.Proved = []sallyport.Head{second.Head}
	var others []frame.Part // more histories than are kept
	for i := range byte(frame.MaxHeads + 1) {
		h := newHistory("f45a2")
		h.head.Hash[3] = i + 9
		h.change(principal("u_0", 1))
		others = append(others, h.snapshot())
	}
	many := sallyport.Head{Epoch: 1, Revision: math.MaxInt64}
	type heads = []sallyport.Head
	tests := []struct {
		name    string
		updates []frame.Part
		refused bool  // the last one
		heads   heads // the last one is what was received last
		dropped bool
	}{
		{name: "snapshot into nothing", updates: []frame.Part{first}, heads: heads{first.Head}},
		{name: "delta into nothing", updates: []frame.Part{second}, refused: true},
		{name: "delta that follows", updates: []frame.Part{first, second}, heads: heads{second.Head}},
		{name: "delta again", updates: []frame.Part{first, second, second}, refused: true, heads: heads{second.Head}},
		{name: "delta of another history", updates: []frame.Part{first, foreignDelta}, refused: true, heads: heads{first.Head}},
		{name: "wrong digest", updates: []frame.Part{first, broken}, refused: true, heads: heads{first.Head}},
		{name: "older snapshot", updates: []frame.Part{first, second, first}, heads: heads{second.Head, first.Head}},
		{name: "same snapshot", updates: []frame.Part{first, first}, heads: heads{first.Head}},
		{name: "another history", updates: []frame.Part{first, second, foreignSnapshot}, heads: heads{second.Head, foreignSnapshot.Head}},
		{name: "another history goes on", updates: []frame.Part{first, second, foreignSnapshot, foreignDelta}, heads: heads{second.Head, foreignDelta.Head}},
		{name: "a new epoch ends it", updates: []frame.Part{first, second, foreignSnapshot, foreignDelta, foreignEpoch}, heads: heads{foreignEpoch.Head}},
		{name: "the held history is back", updates: []frame.Part{first, foreignSnapshot, second}, heads: heads{foreignSnapshot.Head, second.Head}},
		{name: "both are in it", updates: []frame.Part{first, foreignSnapshot, both}, heads: heads{second.Head}},
		{name: "a third history", updates: []frame.Part{first, foreignSnapshot, others[0]}, heads: heads{first.Head, foreignSnapshot.Head, others[0].Head}},
		{name: "too many histories", updates: append([]frame.Part{first}, others...), heads: heads{many, others[3].Head, others[4].Head}},
		{name: "a new epoch ends many", updates: append(append([]frame.Part{first}, others...), foreignSnapshot, foreignDelta, foreignEpoch), heads: heads{foreignEpoch.Head}},
		{name: "proved", updates: []frame.Part{first, second, proved}, heads: heads{proved.Head}},
		{name: "drop of nothing", updates: []frame.Part{drop}, heads: heads{drop.Head}, dropped: true},
		{name: "drop", updates: []frame.Part{first, ownDrop}, heads: heads{second.Head}, dropped: true},
		{name: "drop of another history", updates: []frame.Part{first, second, drop}, heads: heads{second.Head, drop.Head}, dropped: true},
		{name: "drop of an account that is not there", updates: []frame.Part{first, {Account: "f45a2", Kind: frame.Drop}}, heads: heads{first.Head, {}}, dropped: true},
		{name: "another history after a drop", updates: []frame.Part{first, ownDrop, foreignSnapshot}, heads: heads{second.Head, foreignSnapshot.Head}},
		{name: "back after a drop", updates: []frame.Part{first, ownDrop, back}, heads: heads{foreignSnapshot.Head}},
		{name: "back after a drop of another history", updates: []frame.Part{first, second, drop, foreignSnapshot}, heads: heads{second.Head, foreignSnapshot.Head}},
		{name: "made again where it was not", updates: []frame.Part{first, {Account: "f45a2", Kind: frame.Drop}, foreignSnapshot}, heads: heads{first.Head, foreignSnapshot.Head}},
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
			if diff := cmp.Diff(test.heads, s.heads()); diff != "" || s.stuck != test.refused || s.dropped != test.dropped {
				t.Errorf("stuck %t, dropped %t, heads (-want +got):\n%s", s.stuck, s.dropped, diff)
			}
			again, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
			if err != nil || s.held == nil {
				return
			}
			for _, u := range s.updates("f45a2") { // as from the disk
				if _, err := again.apply(u); err != nil {
					t.Fatal(err)
				}
			}
			loaded := again.find("f45a2").state.Load()
			if diff := cmp.Diff(s.heads(), loaded.heads()); diff != "" || loaded.dropped != s.dropped {
				t.Errorf("from the disk: dropped %t, heads (-want +got):\n%s", loaded.dropped, diff)
			}
		})
	}
}

// TestViewsAreAsIfBuiltAnew applies many small changes and compares the result
// with a view that was built at once.
func TestViewsAreAsIfBuiltAnew(t *testing.T) {
	t.Parallel()
	for _, account := range []sallyport.AccountID{"f45a2", sallyport.SystemAccount} {
		t.Run(string(account), func(t *testing.T) { t.Parallel(); asIfBuiltAnew(t, account) })
	}
}

func asIfBuiltAnew(t *testing.T, account sallyport.AccountID) {
	r, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory(account)
	h.change(principal("u_0", 0))
	if _, err := r.apply(h.snapshot()); err != nil {
		t.Fatal(err)
	}
	ca, signer := testCA(t, "CA", nil), newTestSigner(t, "kid")
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
		changes := slices.Concat(trustChanges(ca, i), tokenChanges(signer, i), []object.Object{p, key, membership, grant, ns})
		if _, err := r.apply(h.change(changes...)); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	v := r.find(account).state.Load().held
	if v.count != len(h.live) {
		t.Errorf("%d objects, want %d", v.count, len(h.live))
	}
	for form := range v.revocations {
		for packed := range v.revocations[form].all {
			if id := (revocation{uint8(form), packed}).id(); h.live[string(object.KindRevocation)+id].ID == "" {
				t.Errorf("revocation %s is left over", id)
			}
		}
	}
	for packed := range v.issued.all {
		if o := issuedObject(packed); h.live[string(o.Kind)+o.ID].ID == "" {
			t.Errorf("certificate %s is left over", o.ID)
		}
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
		if r, ok := packRevocation(o.ID); o.Kind == object.KindRevocation && ok != v.revoked(r) {
			t.Errorf("revocation %s: found %t, want %t", o.ID, !ok, ok)
		}
		understood := string(o.Data) == issuedData
		if r, ok := packIssued(o.ID); o.Kind == object.KindCertificate && ok && v.made(r) != understood {
			t.Errorf("certificate %s: found %t, want %t", o.ID, !understood, understood)
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
