package feed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica/frame"
	"github.com/sallyport-iam/sallyport/journal"
)

// A stream is one authorizer's connection. Three goroutines share it: the hub
// marks what is due, the receiver takes messages, and the sender, alone, sends.
// A slow one holds up nobody but itself: what is due is a set of accounts.
type stream struct {
	instance  string
	principal string
	wake      chan struct{} // for the sender
	suspect   chan struct{} // for whoever rechecks the authorizer
	cut       context.CancelCauseFunc

	mu      sync.Mutex
	cells   []string
	greet   bool // the authorizer was not told the cells yet
	sent    map[sallyport.AccountID]sent
	due     map[sallyport.AccountID]due
	urgent  []sallyport.AccountID // due, by a poll: they are taken first
	queue   []sallyport.AccountID // due, by a sweep
	failed  []sallyport.AccountID // due, and to be tried again at retryAt
	retryAt time.Time
	marks   int64
	system  sallyport.Head
	recheck bool    // account 00000 changed: nothing is sent before it is known that the authorizer has not ended
	sweeps  []sweep // that pings may wait for
	pings   []ping
	unacked []unacked
}

// due is why an account is due.
type due struct {
	mark int64          // when it was marked, as marks counts
	head sallyport.Head // of the account then; zero: not known
	drop bool           // it seems to have left the stream's cells
}

// sent is what a stream has of an account.
type sent struct {
	head sallyport.Head // after the last frame; at first what Hello claimed
	// claimed: head is the authorizer's word and was not found in the journal yet.
	claimed bool
	// refused: the last frame was not applied, and head is what the authorizer
	// says that it holds. It gets a snapshot, not before the time.
	refused   bool
	notBefore time.Time
	refusals  int // all of them
	// others are the heads of other histories that it holds beside head, and
	// dropped says that it was told to hold nothing.
	others  []sallyport.Head
	dropped bool
}

// diverged reports whether it holds several histories.
func (s sent) diverged() bool { return len(s.others) > 0 }

// heads are all that it holds, oldest first.
func (s sent) heads() []sallyport.Head { return append(slices.Clone(s.others), s.head) }

type sweep struct {
	number int64
	asOf   time.Time
	marks  int64 // all that is due by it has a mark up to this
}

type ping struct {
	nonce int64
	needs int64 // the sweep that began after it came, or a later one
}

// unacked is the last part of an update that was sent.
type unacked struct {
	seq      int64
	account  sallyport.AccountID
	head     sallyport.Head
	dropped  bool
	diverged bool // other histories are held beside it
}

const (
	maxPings   = 100
	maxUnacked = 10_000
)

func (s *stream) inCells() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cells
}

func (s *stream) setCells(cells []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cells, s.greet = cells, true
	signal(s.wake)
}

// mark makes the account due, or says anew why it is. The caller holds s.mu.
func (s *stream) mark(account sallyport.AccountID, urgent bool, why due) {
	if was, already := s.due[account]; already {
		why.mark = was.mark
		if why.head != was.head { // which of the two is the newer one is not known
			why.head = sallyport.Head{}
		}
		s.due[account] = why
		return
	}
	s.marks++
	why.mark = s.marks
	s.due[account] = why
	if urgent {
		s.urgent = append(s.urgent, account)
	} else {
		s.queue = append(s.queue, account)
	}
}

// changed takes what a poll found.
func (s *stream) changed(heads []journal.AccountHead, cells map[sallyport.AccountID][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range heads {
		has, held := s.sent[h.Account]
		switch {
		case h.Account == sallyport.SystemAccount:
			s.noteSystem(h.Head)
		case !shares(s.cells, cells[h.Account]):
			if held && has.unlike(h.Head) {
				s.mark(h.Account, true, due{drop: true})
			}
			continue
		}
		if !held || has.dropped || has.head != h.Head {
			s.mark(h.Account, true, due{head: h.Head})
		}
	}
	signal(s.wake)
}

// swept takes what a sweep found. It returns the accounts of which the
// authorizer claimed to hold what is the newest, which is thus acknowledged.
func (s *stream) swept(number int64, asOf time.Time, heads map[sallyport.AccountID]sallyport.Head, members map[string][]sallyport.AccountID) (proved []ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cell := range s.cells {
		if _, asked := members[cell]; !asked {
			return nil // it has just got this cell: the next sweep is for it
		}
	}
	wanted := map[sallyport.AccountID]bool{}
	if head, exists := heads[sallyport.SystemAccount]; exists {
		wanted[sallyport.SystemAccount] = true
		s.noteSystem(head)
	}
	for _, cell := range s.cells {
		for _, account := range members[cell] {
			wanted[account] = true
		}
	}
	for account := range wanted {
		has, held := s.sent[account]
		switch {
		case !held || has.head != heads[account] || has.refused || has.dropped:
			s.mark(account, false, due{head: heads[account]})
		case has.claimed:
			proved = append(proved, s.believe(account, has))
		}
	}
	for account, has := range s.sent {
		switch {
		case wanted[account]:
		case has.unlike(heads[account]):
			s.mark(account, false, due{drop: true})
		case has.claimed:
			proved = append(proved, s.believe(account, has))
		}
	}
	s.sweeps = append(s.sweeps, sweep{number, asOf, s.marks})
	signal(s.wake)
	return proved
}

// unlike reports whether an account that is not the authorizer's, and is at the
// head now, is to be dropped: it was not yet, or that Drop was beside another
// history, which the head may end.
func (s sent) unlike(head sallyport.Head) bool {
	return !s.dropped || s.diverged() && s.head != head
}

// believe takes the authorizer's word for what it holds. The caller holds s.mu.
func (s *stream) believe(account sallyport.AccountID, has sent) ack {
	has.claimed = false
	s.sent[account] = has
	return ack{ackKey{account, s.instance}, has.head, has.dropped, has.diverged()}
}

func (s *stream) noteSystem(head sallyport.Head) {
	if s.system != head {
		s.system, s.recheck = head, true
		signal(s.suspect)
	}
}

func (s *stream) systemHead() sallyport.Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.system
}

// rechecked notes that the authorizer had not ended when account 00000 was at
// the head.
func (s *stream) rechecked(system sallyport.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recheck = s.system != system
	signal(s.wake)
}

// serves reports whether the authorizer was sent the account: it has no say in others.
func (s *stream) serves(account sallyport.AccountID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	has, known := s.sent[account]
	return known && !has.dropped && !has.claimed
}

// pinged takes a ping; false if there are too many.
func (s *stream) pinged(p ping) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pings = append(s.pings, p)
	return len(s.pings) <= maxPings
}

// work is what the sender is to do next.
type work struct {
	account sallyport.AccountID // "" for none
	why     due
	has     sent // of the account
	held    bool // has is there
	pongs   []pong
	greet   bool
}

type pong struct {
	nonce int64
	asOf  time.Time
}

// take gives the sender its work, after it did what it took before. Pongs are
// due when everything that their sweep found is on the stream.
func (s *stream) take(now time.Time) work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := work{greet: s.greet, pongs: s.answerable()}
	s.greet = false
	switch {
	case s.recheck: // rechecked wakes the sender
	case len(s.unacked) >= maxUnacked: // acknowledgements wake the sender
	case len(s.failed) > 0 && !now.Before(s.retryAt):
		w.account, s.failed = s.failed[0], s.failed[1:]
	case len(s.urgent) > 0:
		w.account, s.urgent = s.urgent[0], s.urgent[1:]
	case len(s.queue) > 0:
		w.account, s.queue = s.queue[0], s.queue[1:]
	}
	if w.account != "" {
		w.why = s.due[w.account]
		delete(s.due, w.account)
		w.has, w.held = s.sent[w.account]
	}
	return w
}

// answerable takes the pings that can be answered now.
func (s *stream) answerable() []pong {
	oldest := s.marks + 1
	for _, list := range [][]sallyport.AccountID{s.urgent, s.queue} {
		if len(list) > 0 {
			oldest = min(oldest, s.due[list[0]].mark)
		}
	}
	for _, account := range s.failed {
		oldest = min(oldest, s.due[account].mark)
	}
	var last *sweep
	for i := range s.sweeps {
		if s.sweeps[i].marks < oldest {
			last = &s.sweeps[i]
		}
	}
	if last == nil {
		return nil
	}
	var pongs []pong
	s.pings = slices.DeleteFunc(s.pings, func(p ping) bool {
		if p.needs > last.number {
			return false
		}
		pongs = append(pongs, pong{p.nonce, last.asOf})
		return true
	})
	done := last.number
	s.sweeps = slices.DeleteFunc(s.sweeps, func(w sweep) bool { return w.number < done })
	return pongs
}

// again puts work back that could not be done, under its old mark: it is taken
// once more after a while, and others meanwhile.
func (s *stream) again(w work, now time.Time) (failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer, already := s.due[w.account]; already {
		newer.mark = w.why.mark
		w.why = newer
		same := func(a sallyport.AccountID) bool { return a == w.account }
		s.urgent, s.queue = slices.DeleteFunc(s.urgent, same), slices.DeleteFunc(s.queue, same)
	}
	s.due[w.account] = w.why
	s.failed = append(s.failed, w.account)
	s.retryAt = now.Add(retryAfter)
	return len(s.failed)
}

// retries reports whether something waits for its next try.
func (s *stream) retries() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed) > 0
}

// after gives what the stream has of an account after the update.
func (s sent) after(u frame.Part) sent {
	return sent{head: u.Head, others: u.Keeps(s.heads()), dropped: u.Kind == frame.Drop, refusals: s.refusals}
}

// put notes what the stream has of the account now, unless a refusal came since
// the work was taken.
func (s *stream) put(w work, has sent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.sent[w.account]; now.refusals == w.has.refusals {
		s.sent[w.account] = has
	}
}

// await notes the last part of an update that is sent.
func (s *stream) await(u unacked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unacked = append(s.unacked, u)
}

// acked takes what an acknowledgement covers.
func (s *stream) acked(seq int64) []unacked {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.unacked) && s.unacked[n].seq <= seq {
		n++
	}
	covered := slices.Clone(s.unacked[:n])
	s.unacked = s.unacked[n:]
	signal(s.wake)
	return covered
}

// refusedFrame notes that the authorizer did not apply the frame and what it
// holds of the account. It gets a snapshot: the first at once, others later. Of
// an account that it was not sent it may refuse nothing.
func (s *stream) refusedFrame(seq int64, account sallyport.AccountID, holds sent, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.sent[account]
	if !known {
		return
	}
	s.unacked = slices.DeleteFunc(s.unacked, func(u unacked) bool { return u.seq == seq && u.account == account })
	holds.claimed, holds.refused, holds.dropped, holds.refusals = true, true, was.dropped, was.refusals+1
	holds.notBefore = now.Add(min(time.Duration(was.refusals)*time.Second, 10*time.Second))
	s.sent[account] = holds
	// Whether it is the authorizer's at all is asked again, but for the one that all have.
	s.mark(account, false, due{drop: account != sallyport.SystemAccount})
	signal(s.wake)
}
