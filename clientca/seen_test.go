package clientca_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func TestSeen(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ca := newCA(t, "one")
	n := a.namespace("orders", ca.pem)
	leaf := ca.leaf(t, "worker")
	minute := a.now().UTC().Truncate(time.Minute).Add(-time.Hour)
	at := func(d time.Duration, change func(*clientca.Use)) {
		t.Helper()
		a.saw(n, leaf, func(u *clientca.Use) {
			u.At = minute.Add(d)
			change(u)
		})
	}
	without := func(u *clientca.Use) { under(ca)(u); u.Chain = nil }
	refused := func(u *clientca.Use) { u.Refused = "no" }
	wantSeen := clientca.Seen{Fingerprint: credential.Fingerprint(leaf), Subject: "CN=worker,O=Test", Issuer: "CN=one,O=Test", Serial: credential.SerialText(leaf.SerialNumber),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, First: minute, Last: minute, CA: credential.Fingerprint(ca.cert)}
	check := func(what string) {
		t.Helper()
		a.flush(t)
		if diff := cmp.Diff([]clientca.Seen{wantSeen}, a.allSeen("orders")); diff != "" {
			t.Errorf("%s: seen (-want +got):\n%s", what, diff)
		}
	}
	head, err := a.journal.Head(t.Context(), a.account)
	if err != nil {
		t.Fatal(err)
	}

	at(0, without)
	if a.flush(t); len(a.allSeen("orders")) > 0 {
		t.Error("a certificate that nobody has shown is in the list")
	}
	for i := range 50 {
		at(time.Duration(i)*time.Second, under(ca))
	}
	check("one minute")
	at(time.Minute, without)
	wantSeen.Last = minute.Add(time.Minute)
	check("without the chain")
	at(-time.Minute, under(ca))
	check("back in time")
	at(time.Minute, refused)
	check("refused by one authorizer in the same minute")
	at(2*time.Minute, refused)
	at(2*time.Minute, func(u *clientca.Use) { without(u) })
	wantSeen.Last = minute.Add(2 * time.Minute)
	check("refused and let in, of one batch")
	at(3*time.Minute, refused)
	wantSeen.Last, wantSeen.Refused, wantSeen.CA = minute.Add(3*time.Minute), "no", ""
	check("refused")
	if b, err := a.cas.List(t.Context(), a.owner, "orders"); err != nil || !b.CAs[0].LastSeen.Equal(minute.Add(2*time.Minute)) {
		t.Errorf("the CA was last seen at %v, %v, want when it last let it in", b.CAs[0].LastSeen, err)
	}
	at(4*time.Minute, without)
	wantSeen.Last, wantSeen.Refused, wantSeen.CA = minute.Add(4*time.Minute), "", credential.Fingerprint(ca.cert)
	check("let in again")
	at(48*time.Hour, under(ca)) // a clock that is ahead
	wantSeen.Last = a.now().UTC().Truncate(time.Minute)
	check("from the future")

	if now, err := a.journal.Head(t.Context(), a.account); err != nil || now != head {
		t.Errorf("the head moved from %v to %v, %v", head, now, err)
	}
	if list, _, err := a.cas.Seen(t.Context(), a.owner, "orders", wantSeen.Last.Add(time.Minute), sallyport.Page{}); err != nil || len(list) > 0 {
		t.Errorf("seen later: %v, %v", list, err)
	}
}

// TestSeenHostile: what strangers present and what authorizers tell is kept only
// where it makes sense.
func TestSeenHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t), w.tenant(t)
	ca := newCA(t, "one")
	n, foreign := a.namespace("orders", ca.pem), b.namespace("orders", ca.pem)
	leaf := ca.leaf(t, "worker")
	for name, change := range map[string]func(*clientca.Use){
		"another account's namespace": func(u *clientca.Use) { u.Namespace = foreign.ID },
		"no such namespace":           func(u *clientca.Use) { u.Namespace = "ns_nowhere" },
		"another fingerprint":         func(u *clientca.Use) { u.Fingerprint = strings.Repeat("a", 64) },
		"no fingerprint":              func(u *clientca.Use) { u.Fingerprint = "x\x00" },
		"no CA":                       func(u *clientca.Use) { u.CA = "" },
		"no certificate":              func(u *clientca.Use) { u.Chain = [][]byte{[]byte("nonsense")} },
		"nonsense above":              func(u *clientca.Use) { u.Chain = append(u.Chain, []byte("nonsense")) },
		"a long chain":                func(u *clientca.Use) { u.Chain = slices.Repeat(u.Chain, 11) },
		"a large chain":               func(u *clientca.Use) { u.Chain = append(u.Chain, make([]byte, 64<<10)) },
		"long ago":                    func(u *clientca.Use) { u.At = u.At.Add(-100 * 24 * time.Hour) },
	} {
		a.saw(n, leaf, func(u *clientca.Use) { under(ca)(u); change(u) })
		if a.flush(t); len(a.allSeen("orders")) > 0 || len(b.allSeen("orders")) > 0 {
			t.Errorf("%s: it is in the list", name)
		}
	}
	odd := ca.leaf(t, "", func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "a\x00b\x1b[31m\u202e" + strings.Repeat("ü", 400)}
	})
	a.saw(n, odd, func(u *clientca.Use) { u.Refused = "bad\x00\n" + strings.Repeat("x", 5000) })
	a.flush(t)
	list := a.allSeen("orders")
	if len(list) != 1 || len(list[0].Subject) > 256 || len(list[0].Refused) > 300 || strings.ContainsAny(list[0].Subject+list[0].Refused, "\x00\x1b\n\u202e") {
		t.Errorf("an odd one: %#v", list)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := w.log.String(); text != "" {
		t.Errorf("it was logged: %s", text)
	}
}

// TestSeenIsBounded: strangers push out strangers only.
func TestSeenIsBounded(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ca, stranger := newCA(t, "one"), newCA(t, "stranger")
	n := a.namespace("orders", ca.pem)
	good := ca.leaf(t, "worker")
	a.saw(n, good, func(u *clientca.Use) { under(ca)(u); u.At = u.At.Add(-24 * time.Hour) })
	a.flush(t)
	for range 2 {
		for i := range 150 {
			a.saw(n, stranger.leaf(t, fmt.Sprint(i)), func(u *clientca.Use) { u.Refused = "no" })
		}
		a.flush(t)
	}
	list := a.allSeen("orders")
	if len(list) != 201 || !slices.ContainsFunc(list, func(s clientca.Seen) bool { return s.Fingerprint == credential.Fingerprint(good) }) {
		t.Errorf("%d are kept, want 200 strangers and the good one", len(list))
	}
	var got []clientca.Seen
	for p := (sallyport.Page{Size: 50}); ; {
		page, next, err := a.cas.Seen(t.Context(), a.owner, "orders", time.Time{}, p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if p.Token = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff(list, got); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}
}

func TestReap(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, pgtest.Clone(t))
	a := w.tenant(t)
	ca := newCA(t, "one")
	n := a.namespace("orders", ca.pem)
	days := func(d time.Duration) time.Duration { return d * 24 * time.Hour }
	a.saw(n, ca.leaf(t, "unseen"), under(ca))
	a.saw(n, ca.leaf(t, "expired", lasting(days(10))), under(ca))
	a.flush(t)
	w.ahead.Store(int64(days(39)))
	a.saw(n, ca.leaf(t, "fresh"), under(ca))
	a.flush(t)
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{days(39), 3}, {days(41), 2}, {days(89), 2}, {days(91), 1}} {
		w.ahead.Store(int64(step.after))
		if err := w.cas.Reap(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.allSeen("orders"); len(got) != step.left {
			t.Errorf("after %v: %d are left, want %d", step.after, len(got), step.left)
		}
	}
}

// TestSeenWhileNamespacesGo: neither waits for the other for ever.
func TestSeenWhileNamespacesGo(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ca := newCA(t, "one")
	var leaves []*x509.Certificate
	for i := range 20 {
		leaves = append(leaves, ca.leaf(t, fmt.Sprint(i)))
	}
	var namespaces []directory.Namespace
	for i := range 10 {
		namespaces = append(namespaces, a.namespace(fmt.Sprint("orders-", i), ca.pem))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for _, n := range namespaces {
					for _, leaf := range leaves {
						a.cas.MarkSeen(clientca.Use{Account: a.account, Namespace: n.ID, Fingerprint: credential.Fingerprint(leaf),
							At: a.now().Add(-time.Hour + time.Duration(i)*time.Second), Chain: [][]byte{leaf.Raw}, CA: credential.Fingerprint(ca.cert)})
					}
				}
				a.flush(t)
			}
		})
	}
	for _, n := range namespaces {
		if _, err := a.directory.DeleteNamespace(t.Context(), a.owner, op("DeleteNamespace"), n.Name, 0); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if text := a.log.String(); text != "" {
		t.Errorf("it was logged: %s", text)
	}
}

func TestExpiring(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, pgtest.Clone(t))
	a := w.tenant(t)
	now := w.now()
	lasts := func(common string, days float64) authority {
		return issueCA(t, &x509.Certificate{Subject: name(common), NotAfter: now.Add(time.Duration(days * 24 * float64(time.Hour)))}, authority{})
	}
	fourteen, nine, four, past, far := lasts("fourteen", 14), lasts("nine", 9), lasts("four", 4), lasts("past", -1), lasts("far", 100)
	n := a.namespace("orders", join(fourteen.pem, nine.pem, four.pem, past.pem, far.pem))
	off := a.namespace("off", four.pem)
	want(t, "switching it off", a.update("off", func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")

	long := far.leaf(t, "long", lasting(3*24*time.Hour))
	short := far.leaf(t, "short", lasting(12*time.Hour), func(c *x509.Certificate) { c.NotBefore = now.Add(-12 * time.Hour) })
	unseen := far.leaf(t, "unseen", lasting(4*24*time.Hour))
	a.saw(n, long, under(far))
	a.saw(n, short, under(far))
	a.saw(n, far.leaf(t, "lasting"), under(far))
	a.saw(n, unseen, func(u *clientca.Use) { under(far)(u); u.At = now.Add(-3 * 24 * time.Hour) })
	a.saw(n, far.leaf(t, "managed", lasting(2*24*time.Hour)), func(u *clientca.Use) { u.Managed = true })
	a.saw(n, far.leaf(t, "refused", lasting(2*24*time.Hour)), func(u *clientca.Use) { u.Refused = "no" })
	turned := far.leaf(t, "turned", lasting(2*24*time.Hour)) // refused since, as a method may be that its filter does not give
	a.saw(n, turned, func(u *clientca.Use) { under(far)(u); u.At = now.Add(-time.Hour) })
	a.flush(t)
	a.saw(n, turned, func(u *clientca.Use) { u.Refused = "no" })
	a.saw(off, far.leaf(t, "off", lasting(2*24*time.Hour)), under(far))
	a.flush(t)

	expiring := func(what string, cert *x509.Certificate, kind clientca.Kind, days int) clientca.Expiring {
		return clientca.Expiring{Account: a.account, Namespace: n.ID, Name: "orders", Fingerprint: credential.Fingerprint(cert), Subject: "CN=" + what + ",O=Test",
			NotAfter: cert.NotAfter, Kind: kind, Days: days}
	}
	expected := []clientca.Expiring{expiring("fourteen", fourteen.cert, clientca.KindCA, 15), expiring("nine", nine.cert, clientca.KindCA, 10),
		expiring("four", four.cert, clientca.KindCA, 5), expiring("long", long, clientca.KindLeaf, 5), expiring("turned", turned, clientca.KindLeaf, 5)}
	for _, part := range [][]clientca.Expiring{expected[:3], expected[3:]} {
		slices.SortFunc(part, func(a, b clientca.Expiring) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
	}
	got, err := w.cas.Expiring(t.Context(), w.pool, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Errorf("expiring (-want +got):\n%s", diff)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.cas.Run(ctx) })
	metrics := func() string {
		families, err := w.registry.Gather()
		if err != nil {
			return err.Error()
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				key := f.GetName()
				for _, l := range m.GetLabel() {
					key += " " + l.GetValue()
				}
				got[key] = m.GetGauge().GetValue()
			}
		}
		return cmp.Diff(map[string]float64{"sallyport_client_cas_expiring expired": 1, "sallyport_client_cas_expiring 5": 1, "sallyport_client_cas_expiring 10": 1,
			"sallyport_client_cas_expiring 15": 1, "sallyport_client_certificates_expiring": 3}, got)
	}
	deadline := time.Now().Add(10 * time.Second)
	for metrics() != "" && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	if text := metrics(); text != "" {
		t.Errorf("metrics (-want +got):\n%s", text)
	}
}
