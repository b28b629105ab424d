package frame_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

func TestSplit(t *testing.T) {
	update := frame.Part{Account: "f45a2", Kind: frame.Snapshot, Head: sallyport.Head{Epoch: 1, Revision: 7, Hash: [32]byte{1}}, Digest: object.Digest{2}}
	tests := []struct {
		name        string
		size, count int
		parts       int
	}{
		{"nothing", 0, 0, 1},
		{"one", 10, 1, 1},
		{"many small", 100, 1250, 3},
		{"each too large", frame.MaxSize + 1, 3, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := update
			for i := range test.count {
				u.Objects = append(u.Objects, object.Object{Kind: "key", ID: fmt.Sprint(i), Data: bytes.Repeat([]byte{'x'}, test.size)})
			}
			var got []object.Object
			n := 0
			for part := range frame.Split(u) {
				n++
				data, err := part.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				if len(data) > frame.MaxSize && len(part.Objects) > 1 {
					t.Errorf("part %d has %d bytes", n, len(data))
				}
				back, err := frame.Unmarshal(data)
				if err != nil {
					t.Fatal(err)
				}
				if back.Last != (n == test.parts) {
					t.Errorf("part %d of %d: last %t", n, test.parts, back.Last)
				}
				got = append(got, back.Objects...)
				back.Objects, back.Last = nil, false
				if diff := cmp.Diff(update, back); diff != "" {
					t.Error(diff)
				}
			}
			if n != test.parts {
				t.Errorf("%d parts, want %d", n, test.parts)
			}
			if !slices.EqualFunc(u.Objects, got, func(a, b object.Object) bool { return a.ID == b.ID && bytes.Equal(a.Data, b.Data) }) {
				t.Error("the objects are not those that were split")
			}
		})
	}
}

func FuzzUnmarshal(f *testing.F) {
	part := frame.Part{Account: "f45a2", Kind: frame.Delta, Last: true, Follows: sallyport.Head{Revision: 1}, Head: sallyport.Head{Revision: 2},
		Objects: []object.Object{{Kind: "key", ID: "k", Data: []byte("{}")}, {Kind: "key", ID: "l", Deleted: true}}}
	data, err := part.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := frame.Unmarshal(data)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		if err != nil {
			return // strings that are not UTF-8 cannot be written
		}
		back, err := frame.Unmarshal(again)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if back.Account != p.Account || back.Head != p.Head || len(back.Objects) != len(p.Objects) {
			t.Errorf("got %+v, want %+v", back, p)
		}
	})
}
