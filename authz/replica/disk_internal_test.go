package replica

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		done, err := r.apply(u)
		if err != nil {
			t.Fatal(err)
		}
		r.disk.write(u, done.state)
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

// held gives where the account was last, zero if nothing of it is there.
func (r *Replica) held(id sallyport.AccountID) sallyport.Head { return r.Heads()[id] }

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
		// As if nothing of it was acknowledged.
		for path, data := range map[string][]byte{path: data, filepath.Join(dir, extentsName): logHeader(extentsName)} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
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
	heads := written(t, dir)
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
	fresh := h.snapshot()
	fresh.Proved = heads[5:]
	r.feed(t, fresh)
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

// TestLogThatIsTooShort: a whole log that does not go as far as was acknowledged
// is not used, over restarts too, and what comes in its place must prove what was.
func TestLogThatIsTooShort(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		change func(t *testing.T, dir string, older []byte)
	}{
		{"an older one", func(t *testing.T, dir string, older []byte) { write(t, filepath.Join(dir, "f45a2.log"), older) }},
		{"none", func(t *testing.T, dir string, _ []byte) {
			if err := os.Remove(filepath.Join(dir, "f45a2.log")); err != nil {
				t.Fatal(err)
			}
		}},
		{"empty", func(t *testing.T, dir string, _ []byte) { write(t, filepath.Join(dir, "f45a2.log"), nil) }},
		{"cut", func(t *testing.T, dir string, _ []byte) {
			if err := os.Truncate(filepath.Join(dir, "f45a2.log"), 333); err != nil {
				t.Fatal(err)
			}
		}},
		{"it is not known", func(t *testing.T, dir string, _ []byte) {
			if err := os.Remove(filepath.Join(dir, extentsName)); err != nil {
				t.Fatal(err)
			}
		}},
		{"what is known is damaged", func(t *testing.T, dir string, _ []byte) { write(t, filepath.Join(dir, extentsName), []byte("x")) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			h := newHistory("f45a2")
			h.change(principal("u_0", 0))
			r := openIn(t, dir)
			r.feed(t, h.snapshot())
			older, err := os.ReadFile(filepath.Join(dir, "f45a2.log"))
			if err != nil {
				t.Fatal(err)
			}
			r.feed(t, h.change(principal("u_1", 1)))
			r.close(t)
			test.change(t, dir, older)
			for range 2 {
				r = openIn(t, dir)
				if got := r.held("f45a2"); got != (sallyport.Head{}) || r.Standing("f45a2") != Absent {
					t.Errorf("revision %d is used, %s", got.Revision, r.Standing("f45a2"))
				}
				if d := r.Explain("f45a2", "x", "/temporal.api.workflowservice.v1.WorkflowService/GetClusterInfo", "", time.Now()); d.Kind != sallyport.Unavailable {
					t.Errorf("%+v, want Unavailable", d)
				}
				r.close(t)
			}
			at := h.head
			h.head.Hash[7]++
			h.change(principal("u_2", 2))
			foreign := h.snapshot()
			r = openIn(t, dir)
			r.feed(t, foreign)
			r.close(t)
			r = openIn(t, dir)
			if got := r.Standing("f45a2"); got != Diverged {
				t.Errorf("after a snapshot that proves nothing it is %s", got)
			}
			foreign.Proved = []sallyport.Head{at}
			r.feed(t, foreign)
			r.close(t)
			r = openIn(t, dir)
			if got := r.held("f45a2"); got != h.head || r.Standing("f45a2") != Held {
				t.Errorf("after a proof: %+v, %s", got, r.Standing("f45a2"))
			}
		})
	}
}

// TestPreviousInstances: who used the folder before has ended, but not who used
// the folder that this one is a copy of.
func TestPreviousInstances(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	var before []string
	for range 3 {
		r := openIn(t, dir)
		if diff := cmp.Diff(before, r.previous); diff != "" {
			t.Errorf("previous instances (-want +got):\n%s", diff)
		}
		before = append(before, r.Instance())
		r.close(t)
	}
	clone := folder(t)
	if err := os.CopyFS(clone, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(clone, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := openIn(t, clone); r.previous != nil {
		t.Errorf("of a copied folder: %v", r.previous)
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
	other.head.Hash[9] = 7
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
	if len(s.beside) != 1 || s.held.head != other.head || s.beside[0].head != h.head || s.held.digest != other.digest || s.beside[0].digest != h.digest {
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
	done, err := r.apply(u)
	if err != nil {
		t.Fatal(err)
	}
	r.disk.write(u, done.state)
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
