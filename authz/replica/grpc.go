package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	pingEvery   = time.Second
	silence     = 10 * time.Second // without a word from the service, the connection is given up
	firstDelay  = 100 * time.Millisecond
	longest     = 5 * time.Second // between two attempts to connect
	metaEvery   = 5 * time.Second // how often the copy's freshness is written to the disk
	heldInHello = 5000
	maxDrain    = 64 // messages that are handled, and made durable, together
	usesEvery   = 5 * time.Second

	usesInMessage = 5000
	usesBytes     = 1 << 20 // after which a message goes out; it can have a chain more
)

// follow keeps a session with the service until the context ends.
func (r *Replica) follow(ctx context.Context) error {
	delay := firstDelay
	for {
		answered, err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if answered {
			delay = firstDelay
		}
		r.log.Warn("the feed was interrupted; connecting again", "address", r.config.Address, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay/2 + rand.N(delay)): //nolint:gosec // it only spreads reconnections
		}
		delay = min(2*delay, longest)
	}
}

// bearer sends the authorizer's key, over TLS only.
type bearer struct {
	token credential.Secret
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

// session is one stream, from Hello to its end.
type session struct {
	r        *Replica
	stream   grpc.BidiStreamingClient[feedv1.FollowRequest, feedv1.FollowResponse]
	cut      context.CancelCauseFunc // ends the stream
	pending  assembly
	sent     map[int64]int64 // when each ping that was not answered was sent, ns after base
	nonce    int64
	seq      int64 // of the last frame
	applied  int64 // of the last part of the last update
	acked    int64
	answered bool
	metaAt   time.Time
	usesAt   time.Time
}

// session follows one stream until it breaks. answered says that the service
// answered a ping in it.
func (r *Replica) session(ctx context.Context) (answered bool, err error) {
	r.mu.Lock()
	err = r.sync() // what could not be written before
	r.mu.Unlock()
	if err != nil {
		return false, err
	}
	conn, err := grpc.NewClient(r.config.Address, grpc.WithTransportCredentials(credentials.NewTLS(r.config.TLS)),
		grpc.WithPerRPCCredentials(bearer{r.config.Token}))
	if err != nil {
		return false, fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.metrics.connects.Inc()
	stream, err := feedv1.NewFeedServiceClient(conn).Follow(ctx)
	if err != nil {
		return false, fmt.Errorf("connecting: %w", err)
	}
	r.uses.tellChainsAgain() // what was sent last may be lost
	s := &session{r: r, stream: stream, cut: cancel, sent: map[int64]int64{}}
	responses := make(chan *feedv1.FollowResponse, maxDrain)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(ctx, responses) }()
	err = s.run(ctx, responses, ended)
	s.leave()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return s.answered, err
}

// receive passes on what comes until the stream ends or falls silent.
func (s *session) receive(ctx context.Context, responses chan<- *feedv1.FollowResponse) error {
	for {
		watch := s.watch()
		response, err := s.stream.Recv()
		watch.Stop()
		if err != nil {
			return err
		}
		select {
		case responses <- response:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch cuts the stream unless it is stopped soon.
func (s *session) watch() *time.Timer {
	return time.AfterFunc(silence, func() { s.cut(fmt.Errorf("the service was silent for %s", silence)) })
}

func (s *session) run(ctx context.Context, responses <-chan *feedv1.FollowResponse, ended <-chan error) error {
	if err := s.hello(); err != nil {
		return err
	}
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	if err := s.ping(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return err
		case <-ticker.C:
			if err := s.ping(); err != nil {
				return err
			}
			if err := s.tellUses(); err != nil {
				return err
			}
		case response := <-responses:
			if err := s.handleAll(response, responses); err != nil {
				return err
			}
		}
	}
}

func (s *session) hello() error {
	r := s.r
	hello := &feedv1.Hello{Instance: r.config.Instance, Version: r.config.Version, PreviousInstances: r.previous,
		MaxStaleness: durationpb.New(r.config.MaxStaleness)}
	for a := range r.accounts.Load().all {
		at := a.state.Load()
		if at.held == nil {
			continue
		}
		if len(hello.Held) == heldInHello {
			hello.More = true
			if err := s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Hello{Hello: hello}}); err != nil {
				return err
			}
			hello = &feedv1.Hello{}
		}
		hello.Held = append(hello.Held, at.proto(a.id))
	}
	return s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Hello{Hello: hello}})
}

// proto says what the state has of its account.
func (s *state) proto(id sallyport.AccountID) *feedv1.Held {
	h := &feedv1.Held{Account: string(id), Dropped: s.dropped || s.lost}
	if s.held != nil {
		h.Head = frame.HeadProto(s.held.head)
	}
	for _, v := range s.beside {
		h.Others = append(h.Others, frame.HeadProto(v.head))
	}
	return h
}

func (s *session) send(m *feedv1.FollowRequest) error {
	defer s.watch().Stop()
	if err := s.stream.Send(m); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// ping notes the time before the ping is sent: that is how old the copy will
// be when it is answered.
func (s *session) ping() error {
	s.nonce++
	s.sent[s.nonce] = s.r.sinceBase()
	return s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Ping{Ping: &feedv1.Ping{Nonce: s.nonce}}})
}

// tellUses sends what was used since it last did.
func (s *session) tellUses() error {
	if !s.answered || time.Since(s.usesAt) < usesEvery {
		return nil
	}
	s.usesAt = time.Now()
	for uses := range slices.Chunk(s.r.uses.take(), usesInMessage) {
		m := &feedv1.Used{}
		for _, u := range uses {
			m.Keys = append(m.Keys, &feedv1.KeyUse{Account: string(u.account), KeyId: u.key, At: timestamppb.New(u.at)})
		}
		if err := s.sendUsed(m); err != nil {
			return err
		}
	}
	m, size := &feedv1.Used{}, 0
	for _, u := range s.r.uses.takeCertificates(s.usesAt) {
		m.Certificates = append(m.Certificates, u)
		size += proto.Size(u)
		if size >= usesBytes || len(m.Certificates) == usesInMessage {
			if err := s.sendUsed(m); err != nil {
				return err
			}
			m, size = &feedv1.Used{}, 0
		}
	}
	if len(m.Certificates) == 0 {
		return nil
	}
	return s.sendUsed(m)
}

func (s *session) sendUsed(m *feedv1.Used) error {
	return s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Used{Used: m}})
}

// handleAll handles a message and those that are waiting behind it, makes all
// of them durable together and then acknowledges them.
func (s *session) handleAll(first *feedv1.FollowResponse, more <-chan *feedv1.FollowResponse) error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if err := s.handle(first); err != nil {
		return err
	}
	for n := min(len(more), maxDrain); n > 0; n-- {
		if err := s.handle(<-more); err != nil {
			return err
		}
	}
	if err := s.r.sync(); err != nil {
		return err
	}
	if s.applied > s.acked {
		if err := s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Ack{Ack: &feedv1.Ack{Seq: s.applied}}}); err != nil {
			return err
		}
		s.acked = s.applied
	}
	return s.keepMeta()
}

// leave makes what came last durable, with how fresh the copy is.
func (s *session) leave() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	err := s.r.sync()
	if err == nil {
		s.metaAt = time.Time{}
		err = s.keepMeta()
	}
	if err != nil {
		s.r.log.Error("keeping the copy on the disk", "error", err)
	}
}

// keepMeta writes now and then how fresh the copy is. All that it is fresh with
// is durable by now.
func (s *session) keepMeta() error {
	d := s.r.disk
	if d == nil || !s.answered || time.Since(s.metaAt) < metaEvery {
		return nil
	}
	d.meta = meta{Instance: s.r.config.Instance, Folder: d.folder, Cells: *s.r.cells.Load(), Complete: true,
		Fresh: s.r.base.Add(time.Duration(s.r.fresh.Load())).Round(0).UTC()}
	s.metaAt = time.Now()
	return d.writeMeta()
}

func (s *session) handle(m *feedv1.FollowResponse) error {
	switch m := m.GetMessage().(type) {
	case *feedv1.FollowResponse_Welcome:
		cells := m.Welcome.GetCells()
		if !slices.Equal(cells, *s.r.cells.Load()) {
			s.r.cells.Store(&cells)
			s.metaAt = time.Time{}
			s.r.changed()
		}
	case *feedv1.FollowResponse_Frame:
		return s.frame(m.Frame)
	case *feedv1.FollowResponse_Pong:
		sent, known := s.sent[m.Pong.GetNonce()]
		if !known {
			return fmt.Errorf("the service answered ping %d, which was not sent", m.Pong.GetNonce())
		}
		for nonce := range s.sent {
			if nonce <= m.Pong.GetNonce() {
				delete(s.sent, nonce)
			}
		}
		s.r.answered(sent)
		s.answered, s.r.previous = true, nil // the service knows of them
	}
	return nil
}

func (s *session) frame(f *feedv1.Frame) error {
	part, err := frame.FromProto(f)
	if err != nil {
		return err
	}
	if part.Seq != s.seq+1 {
		return fmt.Errorf("frame %d after frame %d", part.Seq, s.seq)
	}
	s.seq = part.Seq
	update, whole, err := s.pending.add(part)
	if err != nil || !whole {
		return err
	}
	s.applied = part.Seq
	r := s.r
	r.metrics.applied.WithLabelValues(update.Kind.String()).Inc()
	begun := time.Now()
	done, err := r.apply(update)
	r.metrics.apply.Observe(time.Since(begun).Seconds())
	if err != nil {
		return s.refused(update, err)
	}
	if r.disk != nil {
		r.disk.write(update, done.state)
	}
	if done.diverged {
		return s.diverged(update.Account, done.state)
	}
	return nil
}

// refused tells the service before any acknowledgement that covers the frame.
func (s *session) refused(u frame.Part, cause error) error {
	reason := "digest"
	if errors.Is(cause, errFollows) {
		reason = "follows"
	}
	s.r.metrics.refused.WithLabelValues(reason).Inc()
	held := s.r.find(u.Account).state.Load().proto(u.Account)
	s.r.log.Error("an update of an account was refused; a fresh copy is asked for", "account", u.Account,
		"revision", u.Head.Revision, "held", held.GetHead().GetRevision(), "error", cause)
	return s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Refused{Refused: &feedv1.Refused{
		Seq: u.Seq, Account: string(u.Account), Held: held.Head, Others: held.Others, Reason: reason}}})
}

func (s *session) diverged(account sallyport.AccountID, at *state) error {
	s.r.metrics.refused.WithLabelValues("diverged").Inc()
	held := at.proto(account)
	s.r.log.Error("the service's history of an account is not the one known here: was it restored to an older state? Only what both allow is allowed until it begins a new epoch of the account",
		"account", account, "held", at.beside[0].head.Revision, "served", at.held.head.Revision)
	return s.send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Diverged{Diverged: &feedv1.Diverged{
		Account: string(account), Held: held.Others, Served: held.Head}}})
}
