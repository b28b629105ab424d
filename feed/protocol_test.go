package feed_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/journal"
)

// dial begins a stream by hand.
func (w *world) dial(c *copyOf) grpc.BidiStreamingClient[feedv1.FollowRequest, feedv1.FollowResponse] {
	w.t.Helper()
	return w.dialAs(c, w.authorizer("c1"))
}

func (w *world) dialAs(c *copyOf, token credential.Secret) grpc.BidiStreamingClient[feedv1.FollowRequest, feedv1.FollowResponse] {
	w.t.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})))
	check(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	w.t.Cleanup(cancel)
	stream, err := feedv1.NewFeedServiceClient(conn).Follow(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token.Reveal()))
	check(w.t, err)
	return stream
}

func hello(change func(*feedv1.Hello)) *feedv1.FollowRequest {
	h := &feedv1.Hello{Instance: sallyport.NewID("az_"), MaxStaleness: durationpb.New(time.Hour)}
	if change != nil {
		change(h)
	}
	return &feedv1.FollowRequest{Message: &feedv1.FollowRequest_Hello{Hello: h}}
}

// TestBadRequests: what is not the protocol ends the stream with a reason.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tenant("f45a2", "c1")
	c := w.serve()
	badHead := &feedv1.Head{Revision: 1, Hash: []byte("short")}
	tests := []struct {
		name string
		send []*feedv1.FollowRequest
		code codes.Code
	}{
		{"no hello", []*feedv1.FollowRequest{{Message: &feedv1.FollowRequest_Ack{Ack: &feedv1.Ack{Seq: 1}}}}, codes.InvalidArgument},
		{"nothing in it", []*feedv1.FollowRequest{{}}, codes.InvalidArgument},
		{"no instance", []*feedv1.FollowRequest{hello(func(h *feedv1.Hello) { h.Instance = "" })}, codes.InvalidArgument},
		{"no staleness", []*feedv1.FollowRequest{hello(func(h *feedv1.Hello) { h.MaxStaleness = nil })}, codes.InvalidArgument},
		{"bad account", []*feedv1.FollowRequest{hello(func(h *feedv1.Hello) { h.Held = []*feedv1.Held{{Account: "../x"}} })}, codes.InvalidArgument},
		{"bad head", []*feedv1.FollowRequest{hello(func(h *feedv1.Hello) { h.Held = []*feedv1.Held{{Account: "f45a2", Head: badHead}} })}, codes.InvalidArgument},
		{"hello twice", []*feedv1.FollowRequest{hello(nil), hello(nil)}, codes.InvalidArgument},
		{"bad refusal", []*feedv1.FollowRequest{hello(nil), {Message: &feedv1.FollowRequest_Refused{Refused: &feedv1.Refused{Held: badHead}}}}, codes.InvalidArgument},
		{"bad divergence", []*feedv1.FollowRequest{hello(nil), {Message: &feedv1.FollowRequest_Diverged{Diverged: &feedv1.Diverged{Held: []*feedv1.Head{badHead}}}}}, codes.InvalidArgument},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stream := w.dial(c)
			for _, m := range test.send {
				check(t, stream.Send(m))
			}
			for {
				if _, err := stream.Recv(); err != nil {
					if status.Code(err) != test.code {
						t.Errorf("got %v, want %s", err, test.code)
					}
					return
				}
			}
		})
	}
}

// TestAcknowledgementsOfWhatWasNotSent count for nothing.
func TestAcknowledgementsOfWhatWasNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	stream := w.dial(c)
	check(t, stream.Send(hello(func(h *feedv1.Hello) {
		h.Held = []*feedv1.Held{{Account: string(x.account), Head: &feedv1.Head{Epoch: 1, Revision: 1, Hash: make([]byte, 32)}}} // not so
	})))
	check(t, stream.Send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Ack{Ack: &feedv1.Ack{Seq: 1 << 40}}}))
	time.Sleep(300 * time.Millisecond)
	receipt, err := c.Receipt(t.Context(), x.account, 1)
	check(t, err)
	if len(receipt.Authorizers) != 1 || receipt.Everywhere() {
		t.Errorf("got %+v", receipt)
	}
}

// TestRefusedUpdates: while the database's digest is wrong the account is
// stuck and ages, others go on; it is repaired when the database is.
func TestRefusedUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x, other := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account, other.account)
	eventually(t, "it is complete", r.Ready)
	held := r.Heads()[x.account]
	setDigest := func(d object.Digest) {
		_, err := w.pool.Exec(t.Context(), `update heads set digest = $2 where account_id = $1`, x.account, d[:])
		check(t, err)
	}
	setDigest(object.Digest{1})
	done := w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
	eventually(t, "the account is stuck", func() bool { return r.Standing(x.account) == replica.Stuck })
	if r.Heads()[x.account] != held {
		t.Error("an update that does not add up was applied")
	}
	w.commit(other.account, func(tx *journal.Tx) error { return grant(tx, other.principal, "ns_other", "read") })
	w.reached(r, other.account)
	eventually(t, "the account ages", func() bool { return x.decide(r).Age > 2*time.Second && other.decide(r).Age < 2*time.Second })
	receipt, err := c.Receipt(t.Context(), x.account, done.Head.Revision)
	check(t, err)
	if receipt.Everywhere() {
		t.Error("what was refused is said to be enforced")
	}
	batch, err := w.journal.Snapshot(t.Context(), x.account)
	check(t, err)
	var right object.Digest
	for _, o := range batch.Objects {
		right.Toggle(o.Kind, o.ID, o.Data, true)
	}
	setDigest(right)
	w.reached(r, x.account)
	w.receipted(c, x.account, done.Head.Revision)
	if r.Standing(x.account) != replica.Held || x.decide(r).Allow {
		t.Errorf("after the repair: %s, %+v", r.Standing(x.account), x.decide(r))
	}
}

// TestRefusalOfWhatWasNotSent: an authorizer cannot have another cell's account
// sent to it by refusing an update of it.
func TestRefusalOfWhatWasNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own, foreign, claimed := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c2"), w.tenant("f45a4", "c2")
	c := w.serve()
	stream := w.dial(c)
	check(t, stream.Send(hello(func(h *feedv1.Hello) { h.Held = []*feedv1.Held{{Account: string(claimed.account)}} })))
	for _, x := range []*tenant{foreign, claimed} {
		check(t, stream.Send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Refused{Refused: &feedv1.Refused{Seq: 1, Account: string(x.account), Reason: "digest"}}}))
	}
	check(t, stream.Send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Ping{Ping: &feedv1.Ping{Nonce: 1}}}))
	got := map[string]feedv1.Frame_Kind{}
	for {
		m, err := stream.Recv()
		check(t, err)
		if f := m.GetFrame(); f != nil {
			got[f.GetAccount()] = f.GetKind()
		}
		if m.GetPong() != nil {
			break
		}
	}
	want := map[string]feedv1.Frame_Kind{string(own.account): feedv1.Frame_KIND_SNAPSHOT, string(claimed.account): feedv1.Frame_KIND_DROP,
		string(sallyport.SystemAccount): feedv1.Frame_KIND_SNAPSHOT}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}
