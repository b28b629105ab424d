package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

// history makes updates of an account, one following the other.
type history struct {
	account sallyport.AccountID
	head    sallyport.Head
	live    map[string]object.Object
	digest  object.Digest
}

func newHistory(account sallyport.AccountID) *history {
	h := &history{account: account, live: map[string]object.Object{}}
	h.head.Epoch = 1
	return h
}

// change makes a delta that puts or removes principals.
func (h *history) change(objects ...object.Object) frame.Part {
	u := frame.Part{Account: h.account, Kind: frame.Delta, Follows: h.head, Last: true}
	for _, o := range objects {
		key := string(o.Kind) + o.ID
		if old, exists := h.live[key]; exists {
			h.digest.Toggle(old.Kind, old.ID, old.Data, false)
			delete(h.live, key)
		}
		if !o.Deleted {
			h.digest.Toggle(o.Kind, o.ID, o.Data, true)
			h.live[key] = o
		}
	}
	h.head.Revision++
	h.head.Hash[0]++
	u.Head, u.Digest, u.Objects = h.head, h.digest, objects
	return u
}

func (h *history) snapshot() frame.Part {
	u := frame.Part{Account: h.account, Kind: frame.Snapshot, Head: h.head, Digest: h.digest, Last: true}
	for _, o := range h.live {
		u.Objects = append(u.Objects, o)
	}
	return u
}

func principal(id string, epoch int64) object.Object {
	return object.Object{Kind: object.KindPrincipal, ID: id, Data: object.Encode(object.Principal{Kind: sallyport.User, Status: object.Active, Epoch: epoch})}
}

func openIn(t testing.TB, dir string) *Replica {
	t.Helper()
	r, err := Open(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// feed applies updates as a session does.
func (r *Replica) feed(t testing.TB, updates ...frame.Part) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range updates {
		if _, err := r.apply(u); err != nil {
			t.Fatal(err)
		}
		r.disk.write(u)
	}
	if err := r.sync(); err != nil {
		t.Fatal(err)
	}
	r.answered(r.sinceBase())
	s := session{r: r, answered: true}
	if err := s.keepMeta(); err != nil {
		t.Fatal(err)
	}
}

func (r *Replica) close(t testing.TB) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func folder(t testing.TB) string { return filepath.Join(t.TempDir(), "copy") }

// written makes a folder with an account of one snapshot and some deltas, and
// gives the heads after each update.
func written(t testing.TB, dir string) (heads []sallyport.Head) {
	t.Helper()
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	r := openIn(t, dir)
	r.feed(t, h.snapshot())
	heads = append(heads, h.head)
	for i := range 5 {
		r.feed(t, h.change(principal(fmt.Sprintf("u_%d", i), int64(i)), object.Object{Kind: object.KindPrincipal, ID: "u_0", Deleted: true}))
		heads = append(heads, h.head)
	}
	r.close(t)
	return heads
}

func TestDiskKeepsTheCopy(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	heads := written(t, dir)
	r := openIn(t, dir)
	if got := r.held("f45a2"); got != heads[5] || !r.Ready() {
		t.Errorf("got %+v, want %+v; ready %t", got, heads[5], r.Ready())
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("a second process: %v, want Conflict", err)
	}
	for _, name := range []string{"f45a2.log", "meta.json", "lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	r.close(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("a folder that others can read: %v, want Conflict", err)
	}
}

// TestTornEnd cuts the log off at many lengths: what was whole is used, and the
// log can be written on. With zeros after a part of a record it might also be
// damage: then nothing is used.
func TestTornEnd(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	heads := written(t, dir)
	path := filepath.Join(dir, "f45a2.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := sallyport.Head{}
	for n := 0; n <= len(whole); n += 13 {
		zeros := n % 3 * 100
		data := append(bytes.Clone(whole[:n]), make([]byte, zeros)...)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r := openIn(t, dir)
		got := r.held("f45a2")
		if zeros == 0 && got.Revision < last.Revision {
			t.Errorf("of %d bytes revision %d, of fewer %d", n, got.Revision, last.Revision)
		}
		if zeros == 0 {
			last = got
		}
		if got.Revision > 0 {
			if got != heads[got.Revision-1] {
				t.Fatalf("of %d bytes: %+v", n, got)
			}
			r.feed(t, frame.Part{Account: "f45a2", Kind: frame.Delta, Follows: got, Head: sallyport.Head{Epoch: 1, Revision: 99}, Digest: r.find("f45a2").state.Load().held.digest, Last: true})
			r.close(t)
			r = openIn(t, dir)
			if got := r.held("f45a2").Revision; got != 99 {
				t.Errorf("of %d bytes, written on: revision %d", n, got)
			}
		}
		r.close(t)
	}
	if last != heads[len(heads)-2] && last != heads[len(heads)-1] {
		t.Errorf("at the end revision %d", last.Revision)
	}
}

// TestDamage changes each byte: never is anything used but a state that was
// held, and of a changed middle nothing.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	written(t, dir)
	path := filepath.Join(dir, "f45a2.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lastRecord := lastRecordAt(t, whole)
	for n := 0; n < len(whole); n += 11 {
		data := bytes.Clone(whole)
		data[n] ^= 1 << (n % 8)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r := openIn(t, dir)
		if got := r.held("f45a2"); got != (sallyport.Head{}) {
			t.Errorf("byte %d of %d (last record at %d): revision %d is used", n, len(whole), lastRecord, got.Revision)
		}
		if d := r.Explain("f45a2", "x", "/temporal.api.workflowservice.v1.WorkflowService/GetClusterInfo", "", time.Now()); d.Kind != sallyport.Unavailable {
			t.Errorf("byte %d: %+v, want Unavailable", n, d)
		}
		r.close(t)
	}
	// A fresh snapshot makes the account good again.
	r := openIn(t, dir)
	h := newHistory("f45a2")
	h.change(principal("u_9", 1))
	r.feed(t, h.snapshot())
	r.close(t)
	r = openIn(t, dir)
	if got := r.held("f45a2"); got != h.head {
		t.Errorf("after a fresh snapshot: %+v", got)
	}
}

func lastRecordAt(t *testing.T, data []byte) int64 {
	l, err := readLog(bytes.NewReader(data), int64(len(data)), "f45a2")
	if err != nil {
		t.Fatal(err)
	}
	at := l.at
	for {
		was := l.at
		if _, err := l.next(); err != nil {
			return at
		}
		at = was
	}
}

// TestClockAndMeta: when it cannot be known how old the copy is, nothing is
// allowed before the service answers.
func TestClockAndMeta(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"from the future": `{"instance":"x","complete":true,"fresh":"2999-01-01T00:00:00Z"}`,
		"not JSON":        `{"instance"`,
		"incomplete":      `{"instance":"x","complete":false,"fresh":"2020-01-01T00:00:00Z"}`,
	} {
		dir := folder(t)
		written(t, dir)
		if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := openIn(t, dir)
		if r.Ready() {
			t.Errorf("%s: the copy is used", name)
		}
		r.close(t)
	}
}

// TestCompaction writes many changes: the file stays small and what is held
// is what is on the disk, a divergence included.
func TestCompaction(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	r := openIn(t, dir)
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	r.feed(t, h.snapshot())
	for i := range 300 {
		var objects []object.Object
		for n := range 60 {
			objects = append(objects, principal(fmt.Sprintf("u_%d", n), int64(i)))
		}
		r.feed(t, h.change(objects...))
	}
	other := newHistory("f45a2")
	other.change(principal("u_other", 1))
	r.feed(t, other.snapshot())
	for i := range 300 {
		var objects []object.Object
		for n := range 60 {
			objects = append(objects, principal(fmt.Sprintf("u_%d", n), int64(i)))
		}
		r.feed(t, other.change(objects...))
	}
	r.close(t)
	info, err := os.Stat(filepath.Join(dir, "f45a2.log"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 2<<20 {
		t.Errorf("the log has %d bytes", info.Size())
	}
	r = openIn(t, dir)
	s := r.find("f45a2").state.Load()
	if s.held == nil || s.beside == nil || s.held.head != h.head || s.beside.head != other.head || s.held.digest != h.digest || s.beside.digest != other.digest {
		t.Errorf("got %+v", s)
	}
}

// TestUnwritableLog: what cannot be written is not acknowledged, and made good when
// it can be.
func TestUnwritableLog(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	r := openIn(t, dir)
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	path := filepath.Join(dir, "f45a2.log") // permissions would not hinder root
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	u := h.snapshot()
	r.mu.Lock()
	if _, err := r.apply(u); err != nil {
		t.Fatal(err)
	}
	r.disk.write(u)
	if err := r.sync(); err == nil {
		t.Error("a copy that is not on the disk would be acknowledged")
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := r.sync(); err != nil {
		t.Errorf("when the disk is good again: %v", err)
	}
	r.mu.Unlock()
	r.close(t)
	r = openIn(t, dir)
	if got := r.held("f45a2"); got != h.head {
		t.Errorf("got %+v, want %+v", got, h.head)
	}
}

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

// FuzzLog: whatever is in a file, opening it neither fails hard nor takes much
// memory, and what it gives is whole.
func FuzzLog(f *testing.F) {
	h := newHistory("f45a2")
	h.change(principal("u_0", 0))
	log := logHeader("f45a2")
	sum := firstSum("f45a2")
	for _, u := range []frame.Part{h.snapshot(), h.change(principal("u_1", 1)), {Account: "f45a2", Kind: frame.Drop, Last: true}} {
		payload, err := u.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		log, sum = appendRecord(log, payload, sum)
		f.Add(bytes.Clone(log))
	}
	f.Add(append(bytes.Clone(log), binary.BigEndian.AppendUint32(nil, 1<<31)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		size, _, err := r.replay(bytes.NewReader(data), int64(len(data)), "f45a2")
		if size > int64(len(data)) || err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("size %d of %d, %v", size, len(data), err)
		}
	})
}

// FuzzApply: no object, however strange, breaks a view, and the digest counts it.
func FuzzApply(f *testing.F) {
	f.Add("key", "k1", []byte(`{"owner":"u_1","status":"active","epoch":1,"expires":5,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	f.Add("grant", "u_1/namespace/ns_1", []byte(`{"subject":"u_1","scope":"namespace","target":"ns_1","role":"write"}`))
	f.Add("grant", "", []byte(`{}`))
	f.Add("membership", "g/u", []byte(`{"group":"g","user":"u"}`))
	f.Add("namespace", "ns_1", []byte(`{"name":"n","project":"","cell":"","retention_days":0,"auth":{"api_key":true,"mtls":false}}`))
	f.Add("principal", "u_1", []byte(`{"kind":"user","status":"active","epoch":-1}`))
	f.Add("account", "f45a2", []byte(`{"status":"active"}`))
	f.Add("x", "y", []byte{0})
	f.Fuzz(func(t *testing.T, kind, id string, data []byte) {
		r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		h := newHistory("f45a2")
		h.change(principal("u_1", 1))
		if _, err := r.apply(h.snapshot()); err != nil {
			t.Fatal(err)
		}
		o := object.Object{Kind: object.Kind(kind), ID: id, Data: data}
		before := h.digest
		if _, err := r.apply(h.change(o)); err != nil {
			t.Fatalf("putting: %v", err)
		}
		for o := range r.find("f45a2").state.Load().held.objects {
			if want := h.live[string(o.Kind)+o.ID]; !bytes.Equal(want.Data, o.Data) {
				t.Fatalf("%s %s: %q, want %q", o.Kind, o.ID, o.Data, want.Data)
			}
		}
		r.Explain("f45a2", id, "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution", "n.f45a2", time.Now())
		o.Deleted, o.Data = true, nil
		if kind == "principal" && id == "u_1" {
			return
		}
		if _, err := r.apply(h.change(o)); err != nil {
			t.Fatalf("removing: %v", err)
		}
		if got := r.find("f45a2").state.Load().held.digest; got != before {
			t.Error("removing does not undo putting")
		}
	})
}
