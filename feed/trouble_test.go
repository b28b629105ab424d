package feed_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/journal"
)

// proxy passes connections on to one of several addresses, slowly if asked, and
// can cut all of them.
type proxy struct {
	address string
	to      []string
	slow    atomic.Int64 // bytes a second; zero: as fast as can be
	mu      sync.Mutex   // guards to and open
	open    map[net.Conn]bool
}

func newProxy(t testing.TB, to ...string) *proxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &proxy{address: listener.Addr().String(), to: to, open: map[net.Conn]bool{}}
	t.Cleanup(func() { listener.Close(); p.cut() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			to := p.to[rand.IntN(len(p.to))]
			p.mu.Unlock()
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.open[in], p.open[out] = true, true
			p.mu.Unlock()
			go p.pipe(in, out)
			go p.pipe(out, in)
		}
	}()
	return p
}

func (p *proxy) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 16<<10)
	for {
		n := len(buffer)
		if rate := p.slow.Load(); rate > 0 {
			n = min(n, int(rate/20))
			time.Sleep(50 * time.Millisecond)
		}
		n, err := from.Read(buffer[:n])
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
	clear(p.open)
}

// TestTrouble lets writers change four accounts while the connections of the
// authorizers, to two copies of the service, are cut and slowed down, a copy
// is killed, and an authorizer restarts: all end equal to the database.
func TestTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.serve(), w.serve()
	p := newProxy(t, one.address, two.address)
	var accounts []sallyport.AccountID
	tenants := make([]*tenant, 4)
	for i := range tenants {
		tenants[i] = w.tenant(sallyport.AccountID(fmt.Sprintf("f45a%d", i+2)), "c1")
		accounts = append(accounts, tenants[i].account)
	}
	steady, _ := w.follow(w.config(one.address, w.authorizer("c1")))
	shaken, _ := w.follow(w.config(p.address, w.authorizer("c1")))
	config := w.config(p.address, w.authorizer("c1"))
	config.Dir = t.TempDir()
	chmod(t, config.Dir)
	restarted, stop := w.follow(config)

	var writers sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	for i := range 6 {
		writers.Go(func() {
			x := tenants[i%len(tenants)]
			for n := 0; ctx.Err() == nil; n++ {
				_, err := w.tryCommit(x.account, func(tx *journal.Tx) error {
					subject, ns := fmt.Sprintf("sa_%d", rand.IntN(50)), fmt.Sprintf("ns_%d", rand.IntN(5))
					if rand.IntN(3) == 0 {
						return revoke(tx, subject, ns)
					}
					if err := grant(tx, subject, ns, []string{"read", "write", "admin"}[rand.IntN(3)]); err != nil {
						return err
					}
					return put(tx, object.KindPrincipal, subject, object.Principal{Kind: sallyport.User, Status: object.Active, Epoch: int64(n)})
				})
				if err != nil {
					t.Errorf("writing: %v", err)
					return
				}
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		sleepWithin(ctx, time.Duration(50+rand.IntN(200))*time.Millisecond)
		switch i % 6 {
		case 3:
			p.slow.Store(20_000)
		case 5:
			p.slow.Store(0)
		default:
			p.cut()
		}
		if i == 4 {
			stop()
			check(t, restarted.Close())
			restarted, stop = w.follow(config)
		}
		if i == 7 {
			two.stop()
			p.mu.Lock()
			p.to = []string{one.address}
			p.mu.Unlock()
		}
	}
	writers.Wait()
	p.slow.Store(0)
	for _, r := range []*replica.Replica{steady, shaken, restarted} {
		w.reached(r, accounts...)
		for _, account := range accounts {
			if got := r.Standing(account); got != replica.Held {
				t.Errorf("account %s is %s", account, got)
			}
		}
	}
	stop()
	check(t, restarted.Close())
	w.reached(w.open(config), accounts...) // the disk alone
	head, err := w.journal.Head(t.Context(), accounts[0])
	check(t, err)
	t.Logf("%d changes of account %s", head.Revision, accounts[0])
}

func sleepWithin(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// TestSlowStreamDelaysNobody: an authorizer behind a line of a few KB a second
// fetches a large account while another gets a change at once.
func TestSlowStreamDelaysNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	w.commit(x.account, func(tx *journal.Tx) error {
		for i := range 5000 {
			if err := grant(tx, sallyport.NewID("sa_"), fmt.Sprintf("ns_%d", i), "write"); err != nil {
				return err
			}
		}
		return nil
	})
	c := w.serve()
	p := newProxy(t, c.address)
	p.slow.Store(5000)
	slow, _ := w.follow(w.config(p.address, w.authorizer("c1")))
	quick, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(quick, x.account)
	for range 10 {
		w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, sallyport.NewID("ns_"), "read") })
		begun := time.Now()
		w.reached(quick, x.account)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("a change took %s beside a slow stream", took)
		}
	}
	if slow.Ready() || slow.Standing(x.account) == replica.Held {
		t.Error("the slow line was not slow: the test shows nothing")
	}
	p.slow.Store(0)
	w.reached(slow, x.account)
}

// TestFreshnessNeedsTheDatabase: a copy of the service that cannot read the
// database answers no pings, so that the authorizers' copies age.
func TestFreshnessNeedsTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready)
	lock, err := w.pool.Begin(t.Context())
	check(t, err)
	_, err = lock.Exec(t.Context(), "lock table heads in access exclusive mode")
	check(t, err)
	eventually(t, "the copy ages", func() bool { age, _ := r.Age(time.Now()); return age > 3*time.Second })
	check(t, lock.Rollback(t.Context()))
	eventually(t, "the copy is fresh again", func() bool { age, _ := r.Age(time.Now()); return age < 2*time.Second })
}

// TestHistory decides all the time while grants are removed: no call that began
// after the removal was acknowledged as enforced is allowed by the grant.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.tenant("f45a2", "c1")
	c := w.serve()
	var replicas []*replica.Replica
	for range 3 {
		r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
		w.reached(r, x.account)
		replicas = append(replicas, r)
	}
	eventually(t, "all acknowledged", func() bool { return len(w.receipted(c, x.account, 1).Authorizers) == 3 })
	credential := replica.CredentialFromHeader(x.header, netip.Addr{})
	var enforced atomic.Int64 // the last round whose removal is known to be enforced everywhere
	type allowed struct {
		revision int64 // that was decided at
		begun    int64 // enforced when the call began
	}
	var removedAt sync.Map // round -> revision of the removal
	ctx, cancel := context.WithCancel(t.Context())
	var deciders sync.WaitGroup
	histories := make([][]allowed, 6)
	var calls atomic.Int64
	for i := range histories {
		deciders.Go(func() {
			r := replicas[i%len(replicas)]
			for ctx.Err() == nil {
				begun := enforced.Load()
				d := r.Decide(credential, start, x.namespace, time.Now())
				calls.Add(1)
				if d.Allow && (len(histories[i]) == 0 || histories[i][len(histories[i])-1] != allowed{d.Head.Revision, begun}) {
					histories[i] = append(histories[i], allowed{d.Head.Revision, begun})
				}
				time.Sleep(10 * time.Microsecond)
			}
		})
	}
	for round := int64(1); round <= 15; round++ {
		done := w.commit(x.account, func(tx *journal.Tx) error { return revoke(tx, x.principal, x.nsID) })
		removedAt.Store(round, done.Head.Revision)
		w.receipted(c, x.account, done.Head.Revision)
		enforced.Store(round)
		time.Sleep(5 * time.Millisecond)
		w.commit(x.account, func(tx *journal.Tx) error { return grant(tx, x.principal, x.nsID, "write") })
	}
	cancel()
	deciders.Wait()
	for _, history := range histories {
		if len(history) == 0 {
			t.Error("a decider was never allowed: the test shows nothing")
		}
		for _, a := range history {
			if a.begun == 0 {
				continue
			}
			removed, _ := removedAt.Load(a.begun)
			if a.revision <= removed.(int64) {
				t.Errorf("allowed at revision %d by a call that began after the removal at revision %d was enforced", a.revision, removed)
			}
		}
	}
	t.Logf("%d decisions", calls.Load())
}

// TestUnreadableAccountDelaysNobody: an account that cannot be read keeps pings
// from being answered, but not other accounts from being followed.
func TestUnreadableAccountDelaysNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad, good := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c1")
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, bad.account, good.account)
	eventually(t, "it is complete", r.Ready)
	w.unreadable.Store(&bad.account)
	w.commit(bad.account, func(tx *journal.Tx) error {
		return put(tx, object.KindNamespace, bad.nsID, object.Namespace{Name: "orders", Cell: "c2"})
	})
	eventually(t, "the copy ages", func() bool { age, _ := r.Age(time.Now()); return age > 2*time.Second })
	for range 5 {
		w.commit(good.account, func(tx *journal.Tx) error { return grant(tx, good.principal, sallyport.NewID("ns_"), "read") })
		begun := time.Now()
		w.reached(r, good.account)
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("a change took %s beside an account that cannot be read", took)
		}
	}
	if r.Standing(bad.account) != replica.Held {
		t.Errorf("the account is %s", r.Standing(bad.account))
	}
	w.unreadable.Store(nil)
	eventually(t, "the account is dropped", func() bool { return r.Standing(bad.account) == replica.Dropped })
	eventually(t, "the copy is fresh again", func() bool { age, _ := r.Age(time.Now()); return age < 2*time.Second })
}
