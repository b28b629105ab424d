package feed_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/journal"
)

// caAndLeaf makes a CA and a client certificate of it.
func caAndLeaf(t testing.TB) (ca, leaf *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	sign := func(template, parent *x509.Certificate) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		check(t, err)
		cert, err := x509.ParseCertificate(der)
		check(t, err)
		return cert
	}
	ca = sign(template, template)
	return ca, sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}, ca)
}

// TestCertificates: client CAs reach an authorizer, a revocation too, and what it
// sees of certificates comes back.
func TestCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	uses := make(chan feed.CertificateUse, 10)
	w.seen = func(u feed.CertificateUse) { uses <- u }
	x := w.tenant("f45a2", "c1")
	ca, leaf := caAndLeaf(t)
	w.commit(x.account, func(tx *journal.Tx) error {
		if err := put(tx, object.KindNamespace, x.nsID, object.Namespace{Name: "orders", Cell: "c1", RetentionDays: 1, Auth: object.NamespaceAuth{MTLS: true}}); err != nil {
			return err
		}
		return put(tx, object.KindClientCAs, x.nsID, object.ClientCAs{Certificates: [][]byte{ca.Raw}, Filters: []object.CertificateFilter{{CommonName: "other"}, {CommonName: "leaf"}}})
	})
	c := w.serve()
	r, _ := w.follow(w.config(c.address, w.authorizer("c1")))
	w.reached(r, x.account)
	eventually(t, "it is complete", r.Ready)
	connection := r.Credential("", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, netip.Addr{})
	d := r.Decide(connection, start, x.namespace, time.Now())
	if !d.Allow {
		t.Fatal(d.Reason)
	}
	at := time.Now()
	r.MarkUsed(d, at)
	select {
	case got := <-uses:
		want := feed.CertificateUse{Account: x.account, Namespace: sallyport.NamespaceID(x.nsID), Fingerprint: credential.Fingerprint(leaf), At: at.UTC().Truncate(time.Minute),
			Chain: [][]byte{leaf.Raw}, CA: credential.Fingerprint(ca), Filter: 2}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing is told of the certificate")
	}
	done := w.commit(x.account, func(tx *journal.Tx) error {
		return put(tx, object.KindRevocation, object.RevokedCertificate(credential.Fingerprint(leaf)), object.Revocation{})
	})
	w.receipted(c, x.account, done.Head.Revision)
	if d := r.Decide(connection, start, x.namespace, time.Now()); d.Allow || !strings.Contains(d.Reason, "was revoked") {
		t.Errorf("after its receipt the revocation is not in force: %+v", d)
	}
}

// TestCertificateUsesAreChecked: an authorizer is believed only so far.
func TestCertificateUsesAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	uses := make(chan feed.CertificateUse, 100)
	w.seen = func(u feed.CertificateUse) { uses <- u }
	x, foreign := w.tenant("f45a2", "c1"), w.tenant("f45a3", "c2")
	_, leaf := caAndLeaf(t)
	fingerprint, now := credential.Fingerprint(leaf), time.Now()
	good := func(change func(*feedv1.CertificateUse)) *feedv1.CertificateUse {
		u := &feedv1.CertificateUse{Account: string(x.account), NamespaceId: x.nsID, Fingerprint: fingerprint, At: timestamppb.New(now), Chain: [][]byte{leaf.Raw}}
		if change != nil {
			change(u)
		}
		return u
	}
	list := []*feedv1.CertificateUse{
		good(func(u *feedv1.CertificateUse) { u.Account = string(foreign.account) }),
		good(func(u *feedv1.CertificateUse) { u.Account = "zzzz9" }),
		good(func(u *feedv1.CertificateUse) { u.NamespaceId = "" }),
		good(func(u *feedv1.CertificateUse) { u.NamespaceId = strings.Repeat("n", 100) }),
		good(func(u *feedv1.CertificateUse) { u.Fingerprint = strings.Repeat("a", 64) }),
		good(func(u *feedv1.CertificateUse) { u.Fingerprint = fingerprint[1:] }),
		good(func(u *feedv1.CertificateUse) { u.Fingerprint, u.Chain = strings.ToUpper(fingerprint), nil }),
		good(func(u *feedv1.CertificateUse) { u.At = nil }),
		good(func(u *feedv1.CertificateUse) { u.At = timestamppb.New(now.Add(2 * time.Hour)) }),
		good(func(u *feedv1.CertificateUse) { u.Chain = append(u.Chain, bytes.Repeat([]byte{1}, 70_000)) }),
		good(func(u *feedv1.CertificateUse) { u.Chain = append(u.Chain, make([][]byte, 10)...) }),
		good(func(u *feedv1.CertificateUse) { u.CaFingerprint = "x" }),
		good(func(u *feedv1.CertificateUse) { u.Filter = -1 }),
		good(func(u *feedv1.CertificateUse) { u.Filter = 26 }),
		good(func(u *feedv1.CertificateUse) { u.Refused = strings.Repeat("x", 301) }),
		good(func(u *feedv1.CertificateUse) { u.Managed, u.NamespaceId = true, "ns_last" }),
	}
	c := w.serve()
	stream := w.dial(c)
	check(t, stream.Send(hello(func(h *feedv1.Hello) {
		h.Held = []*feedv1.Held{{Account: string(foreign.account), Head: &feedv1.Head{Epoch: 1, Revision: 1, Hash: make([]byte, 32)}}} // not so
	})))
	check(t, stream.Send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Used{Used: &feedv1.Used{Certificates: list[:1]}}})) // before anything was sent
	for {
		m, err := stream.Recv()
		check(t, err)
		if m.GetFrame().GetAccount() == string(x.account) {
			break
		}
	}
	eventually(t, "the account is known to be the authorizer's", func() bool {
		check(t, stream.Send(&feedv1.FollowRequest{Message: &feedv1.FollowRequest_Used{Used: &feedv1.Used{Certificates: list}}}))
		time.Sleep(20 * time.Millisecond)
		return len(uses) > 0
	})
	for len(uses) > 0 {
		if got := <-uses; got.Namespace != "ns_last" || !got.Managed || len(got.Chain) != 1 {
			t.Errorf("believed: %+v", got)
		}
	}
}
