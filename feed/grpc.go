package feed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
)

const (
	helloWithin  = 10 * time.Second
	silence      = 5 * time.Minute  // without a word from it (it may be busy with a large account), a stream is cut
	aliveEvery   = 3 * time.Second  // a sign of life while a large account is read
	recheckEvery = 15 * time.Second // of the authorizer's standing, besides when account 00000 changes

	recheckWithin = 10 * time.Second // otherwise the stream goes on until the next time
	maxHeld       = 2_000_000
	maxInstance   = 64
	maxPrevious   = 20
)

type followStream = grpc.BidiStreamingServer[feedv1.FollowRequest, feedv1.FollowResponse]

// Follow serves one authorizer until either side ends.
func (s *Server) Follow(conn followStream) error {
	ctx, cut := context.WithCancelCause(conn.Context())
	defer cut(nil)
	f := &follower{server: s, conn: conn, cut: cut}
	caller, err := f.authenticate(ctx)
	if err != nil {
		return err
	}
	requests := make(chan *feedv1.FollowRequest)
	go f.receive(ctx, requests)
	st, registration, err := f.hello(ctx, requests, caller)
	if err != nil {
		return err
	}
	if err := s.register(ctx, s.pool, registration); err != nil {
		return orUnavailable(err)
	}
	f.stream = st
	f.sender = &sender{server: s, stream: st, send: func(p frame.Part) error {
		return f.send(&feedv1.FollowResponse{Message: &feedv1.FollowResponse_Frame{Frame: p.Proto()}})
	}}
	s.log.Info("an authorizer follows", "authorizer", st.principal, "instance", st.instance, "cells", st.cells, "version", registration.version, "held", len(st.sent))
	go f.handle(ctx, requests)
	go func() {
		select {
		case <-s.stopped:
			cut(sallyport.Unavailable.Errorf("this copy of the service is stopping; connect again"))
		case <-ctx.Done():
		}
	}()
	go f.alive(ctx)
	go f.watch(ctx)
	// run may hang in a Send that only the end of this call can end.
	done := make(chan error, 1)
	go func() { done <- f.run(ctx) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.log.Info("an authorizer does not follow any more", "authorizer", st.principal, "instance", st.instance, "reason", err)
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// errLeft: the authorizer ended the stream or its connection broke.
var errLeft = errors.New("the authorizer left")

// follower is the protocol's side of a stream.
type follower struct {
	server        *Server
	conn          followStream
	sending       sync.Mutex
	cut           context.CancelCauseFunc
	authorization string
	from          netip.Addr
	stream        *stream
	sender        *sender
}

// orUnavailable gives errors of the database a kind: what they say is not for clients.
func orUnavailable(err error) error {
	if sallyport.KindOf(err) != "" {
		return err
	}
	return &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the database cannot be reached; try again", Err: err}
}

func (f *follower) authenticate(ctx context.Context) (sallyport.Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("it is not known where the call comes from")
	}
	if _, secure := p.AuthInfo.(credentials.TLSInfo); !secure {
		return sallyport.Caller{}, sallyport.Conflict.Errorf("the feed is served over TLS only; connect to the TLS port")
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		f.from, _ = netip.ParseAddr(host) // the zero address is from nowhere
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if headers := md.Get("authorization"); len(headers) == 1 {
		f.authorization = headers[0]
	}
	return f.reauthenticate(ctx)
}

// reauthenticate asks again whether the authorizer may follow.
func (f *follower) reauthenticate(ctx context.Context) (sallyport.Caller, error) {
	caller, err := f.server.authenticate(ctx, f.authorization, f.from)
	if err != nil {
		return caller, err
	}
	if caller.Account != sallyport.SystemAccount || len(caller.Access.Cells) == 0 {
		return caller, sallyport.PermissionDenied.Errorf("the feed is for authorizers alone; make one with: sallyportd authorizer create")
	}
	caller.Access.Cells = slices.Sorted(slices.Values(caller.Access.Cells))
	return caller, nil
}

// receive passes requests on until the stream ends or falls silent.
func (f *follower) receive(ctx context.Context, requests chan<- *feedv1.FollowRequest) {
	watch := time.AfterFunc(silence, func() {
		f.cut(sallyport.Unavailable.Errorf("the authorizer was silent for %s", silence))
	})
	defer watch.Stop()
	for {
		request, err := f.conn.Recv()
		if err != nil {
			f.cut(fmt.Errorf("%w: %w", errLeft, err))
			return
		}
		watch.Reset(silence)
		select {
		case requests <- request:
		case <-ctx.Done():
			return
		}
	}
}

// hello reads what the authorizer holds.
func (f *follower) hello(ctx context.Context, requests <-chan *feedv1.FollowRequest, caller sallyport.Caller) (*stream, authorizer, error) {
	late := time.NewTimer(helloWithin)
	defer late.Stop()
	var first *feedv1.Hello
	held := map[sallyport.AccountID]sent{}
	for {
		var request *feedv1.FollowRequest
		select {
		case request = <-requests:
		case <-late.C:
			return nil, authorizer{}, sallyport.Invalid.Errorf("the stream must begin with Hello within %s", helloWithin)
		case <-ctx.Done():
			return nil, authorizer{}, context.Cause(ctx)
		}
		hello := request.GetHello()
		if hello == nil {
			return nil, authorizer{}, sallyport.Invalid.Errorf("the stream must begin with Hello")
		}
		if first == nil {
			first = hello
		}
		for _, h := range hello.GetHeld() {
			account := sallyport.AccountID(h.GetAccount())
			has, err := holds(h.GetHead(), h.GetOthers())
			if err != nil || !account.Valid() || len(held) >= maxHeld {
				return nil, authorizer{}, sallyport.InvalidField("held", "has an account %q that cannot be", account)
			}
			has.claimed, has.dropped = true, h.GetDropped()
			held[account] = has
		}
		if !hello.GetMore() {
			break
		}
	}
	a := authorizer{instance: first.GetInstance(), principal: caller.Principal.ID, previous: append([]string{}, first.GetPreviousInstances()...),
		cells: caller.Access.Cells, version: first.GetVersion(), maxStaleness: first.GetMaxStaleness().AsDuration()}
	if len(a.previous) > maxPrevious {
		a.previous = a.previous[len(a.previous)-maxPrevious:]
	}
	if a.instance == "" || len(a.instance) > maxInstance || len(a.version) > maxInstance {
		return nil, a, sallyport.InvalidField("instance", "must have 1 to %d characters, version at most", maxInstance)
	}
	if a.maxStaleness <= 0 {
		return nil, a, sallyport.InvalidField("max_staleness", "must be positive")
	}
	return &stream{instance: a.instance, principal: a.principal, wake: make(chan struct{}, 1), suspect: make(chan struct{}, 1),
		cut: f.cut, cells: a.cells, greet: true, sent: held, due: map[sallyport.AccountID]due{}, system: caller.Head}, a, nil
}

// handle takes the authorizer's messages.
func (f *follower) handle(ctx context.Context, requests <-chan *feedv1.FollowRequest) {
	for {
		select {
		case <-ctx.Done():
			return
		case request := <-requests:
			if err := f.handleOne(request); err != nil {
				f.cut(err)
				return
			}
		}
	}
}

func (f *follower) handleOne(request *feedv1.FollowRequest) error {
	s, st := f.server, f.stream
	switch m := request.GetMessage().(type) {
	case *feedv1.FollowRequest_Ping:
		s.acks.alive(st.instance, time.Time{})
		if !st.pinged(ping{m.Ping.GetNonce(), s.hub.next()}) {
			return sallyport.Exhausted.Errorf("more than %d pings wait for an answer", maxPings)
		}
	case *feedv1.FollowRequest_Ack:
		for _, u := range st.acked(m.Ack.GetSeq()) {
			s.acks.add(ack{ackKey{u.account, st.instance}, u.head, u.dropped, u.diverged})
		}
	case *feedv1.FollowRequest_Refused:
		holds, err := holds(m.Refused.GetHeld(), m.Refused.GetOthers())
		if err != nil {
			return err
		}
		s.metrics.refused.WithLabelValues(refusalReason(m.Refused.GetReason())).Inc()
		s.log.Error("an authorizer refused an update; it gets a snapshot", "instance", st.instance,
			"account", m.Refused.GetAccount(), "held", holds.head.Revision, "reason", m.Refused.GetReason())
		st.refusedFrame(m.Refused.GetSeq(), sallyport.AccountID(m.Refused.GetAccount()), holds, time.Now())
	case *feedv1.FollowRequest_Diverged:
		holds, err := holds(m.Diverged.GetServed(), m.Diverged.GetHeld())
		if err != nil {
			return err
		}
		f.noteDiverged(sallyport.AccountID(m.Diverged.GetAccount()), holds)
	case *feedv1.FollowRequest_Used:
		for _, u := range m.Used.GetKeys() {
			if account := sallyport.AccountID(u.GetAccount()); st.serves(account) && u.GetAt().CheckValid() == nil {
				s.used(account, u.GetKeyId(), u.GetAt().AsTime())
			}
		}
		for _, u := range m.Used.GetCertificates() {
			if use, ok := certificateUse(u, time.Now()); ok && st.serves(use.Account) {
				s.seen(use)
			}
		}
	default:
		return sallyport.Invalid.Errorf("a message of a kind that this version does not know")
	}
	return nil
}

const (
	maxChain      = 10
	maxChainBytes = 64 << 10
	maxRefused    = 300
	maxFilters    = 25
)

// certificateUse reads what an authorizer tells of a certificate; ok is false for
// what no honest one tells.
func certificateUse(u *feedv1.CertificateUse, now time.Time) (use CertificateUse, ok bool) {
	use = CertificateUse{Account: sallyport.AccountID(u.GetAccount()), Namespace: sallyport.NamespaceID(u.GetNamespaceId()), Fingerprint: u.GetFingerprint(),
		At: u.GetAt().AsTime(), Chain: u.GetChain(), CA: u.GetCaFingerprint(), Filter: int(u.GetFilter()), Managed: u.GetManaged(), Refused: u.GetRefused()}
	switch {
	case use.Namespace == "", len(use.Namespace) > maxInstance, len(use.Refused) > maxRefused, use.Filter < 0, use.Filter > maxFilters:
		return use, false
	case u.GetAt().CheckValid() != nil, use.At.After(now.Add(time.Hour)):
		return use, false
	case !isFingerprint(use.Fingerprint), use.CA != "" && !isFingerprint(use.CA), len(use.Chain) > maxChain:
		return use, false
	case use.Chain == nil:
		return use, true
	}
	size := 0
	for _, der := range use.Chain {
		size += len(der)
	}
	leaf := sha256.Sum256(use.Chain[0])
	return use, size <= maxChainBytes && hex.EncodeToString(leaf[:]) == use.Fingerprint
}

// isFingerprint reports whether the text is a SHA-256 in lower-case hex.
func isFingerprint(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// noteDiverged raises the alarm. What the authorizer holds is known already: it
// keeps what the frames that it was sent do not supersede.
func (f *follower) noteDiverged(account sallyport.AccountID, holds sent) {
	f.server.metrics.diverged.Inc()
	var revisions []int64
	for _, head := range holds.others {
		revisions = append(revisions, head.Revision)
	}
	f.server.log.Error("an authorizer holds another history of an account than the database, and allows what both allow. If the database was restored and is right, begin a new epoch of the account",
		"instance", f.stream.instance, "account", account, "held", revisions, "served", holds.head.Revision)
}

// holds reads what an authorizer says that it holds of an account.
func holds(head *feedv1.Head, others []*feedv1.Head) (sent, error) {
	var s sent
	var err error
	if s.head, err = frame.HeadFromProto(head); err != nil {
		return s, sallyport.InvalidField("held", "%s", err)
	}
	if s.others, err = frame.HeadsFromProto(others); err != nil {
		return s, sallyport.InvalidField("held", "%s", err)
	}
	return s, nil
}

// refusalReason bounds what becomes a metric's label.
func refusalReason(reason string) string {
	if slices.Contains([]string{"digest", "follows"}, reason) {
		return reason
	}
	return "other"
}

// run sends until the stream ends.
func (f *follower) run(ctx context.Context) error {
	f.server.hub.add(f.stream)
	defer f.server.hub.remove(f.stream)
	for {
		w := f.stream.take(time.Now())
		if w.greet {
			if err := f.welcome(); err != nil {
				return err
			}
		}
		for _, p := range w.pongs {
			if err := f.pong(p); err != nil {
				return err
			}
		}
		if w.account != "" {
			err := f.sender.update(ctx, w)
			if errors.Is(err, errSend) {
				return err
			}
			if err != nil && f.stream.again(w, time.Now()) >= manyFailed {
				sleep(ctx, retryAfter)
			}
			if ctx.Err() == nil {
				continue
			}
		}
		var retry <-chan time.Time
		if f.stream.retries() {
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.stream.wake:
		case <-retry:
		}
	}
}

// watch rechecks the authorizer while the stream lives, whatever the sender is
// busy with: one that has ended is cut.
func (f *follower) watch(ctx context.Context) {
	ticker := time.NewTicker(recheckEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-f.stream.suspect:
		}
		system := f.stream.systemHead()
		within, cancel := context.WithTimeout(ctx, recheckWithin)
		err := f.recheck(within)
		cancel()
		if err != nil {
			f.cut(err)
			return
		}
		f.stream.rechecked(system)
	}
}

func (f *follower) welcome() error {
	return f.send(&feedv1.FollowResponse{Message: &feedv1.FollowResponse_Welcome{Welcome: &feedv1.Welcome{Cells: f.stream.inCells()}}})
}

// send serializes what run and alive send.
func (f *follower) send(m *feedv1.FollowResponse) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	return f.conn.Send(m)
}

// alive tells the authorizer now and then that the service is there, which
// without changes and answers it would not know.
func (f *follower) alive(ctx context.Context) {
	ticker := time.NewTicker(aliveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := f.welcome(); err != nil {
				return // run gets the same
			}
		}
	}
}

func (f *follower) pong(p pong) error {
	f.server.acks.alive(f.stream.instance, p.asOf)
	return f.send(&feedv1.FollowResponse{Message: &feedv1.FollowResponse_Pong{Pong: &feedv1.Pong{Nonce: p.nonce, AsOf: timestamppb.New(p.asOf)}}})
}

// recheck cuts the stream of an authorizer that has ended, and takes up a
// change of its cells. When that cannot be found out now the stream goes on.
func (f *follower) recheck(ctx context.Context) error {
	caller, err := f.reauthenticate(ctx)
	switch {
	case errors.Is(err, sallyport.Unauthenticated), errors.Is(err, sallyport.PermissionDenied):
		return fmt.Errorf("the authorizer has ended: %w", err)
	case err != nil || slices.Equal(caller.Access.Cells, f.stream.inCells()):
		return nil
	}
	if err := setCells(ctx, f.server.pool, f.stream.instance, caller.Access.Cells); err != nil {
		return orUnavailable(err)
	}
	f.stream.setCells(caller.Access.Cells)
	f.server.hub.next()
	return nil
}
