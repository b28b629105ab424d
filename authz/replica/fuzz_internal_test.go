package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

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
		size, _, _, err := r.replay(bytes.NewReader(data), int64(len(data)), "f45a2")
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
	ca := testCA(f, "CA", nil)
	for i := range 30 {
		for _, o := range trustChanges(ca, i) {
			f.Add(string(o.Kind), o.ID, o.Data)
		}
	}
	for i := range 3 {
		for _, o := range tokenChanges(newTestSigner(f, "kid"), i) {
			f.Add(string(o.Kind), o.ID, o.Data)
		}
	}
	f.Fuzz(func(t *testing.T, kind, id string, data []byte) {
		r, err := Open(Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		account := sallyport.AccountID("f45a2")
		if kind == string(object.KindTokenKey) {
			account = sallyport.SystemAccount
		}
		h := newHistory(account)
		h.change(principal("u_1", 1))
		if _, err := r.apply(h.snapshot()); err != nil {
			t.Fatal(err)
		}
		o := object.Object{Kind: object.Kind(kind), ID: id, Data: data}
		before := h.digest
		if _, err := r.apply(h.change(o)); err != nil {
			t.Fatalf("putting: %v", err)
		}
		for o := range r.find(account).state.Load().held.objects {
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
		if got := r.find(account).state.Load().held.digest; got != before {
			t.Error("removing does not undo putting")
		}
	})
}
