package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

// However many sources there are, only so many are counted one by one, and those
// of one IPv6 network are one.
func TestBuckets(t *testing.T) {
	l := newLimits()
	for n := range maxBuckets + 5000 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n))
		l.source(netip.AddrFrom4(b))
	}
	if n := len(l.sources.all); n > maxBuckets+1 {
		t.Errorf("%d sources are kept", n)
	}
	l = newLimits()
	turned := false
	for n := range 1000 {
		b := [16]byte{0x20, 0x01, 0x48, 0x60, 14: byte(n >> 8), 15: byte(n)}
		turned = !l.source(netip.AddrFrom16(b)) || turned
	}
	if !turned || len(l.sources.all) != 1 {
		t.Errorf("an IPv6 network is %d sources", len(l.sources.all))
	}
	if !l.source(netip.Addr{}) {
		t.Error("without an address nothing goes")
	}
}

// However many issuers tenants name, only so many are kept, and those that have no
// keys are nobody's loss: neither another's keys go for them, nor their own tenant's.
func TestIssuersAreBounded(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	s := newKeySets(fetch.New(fetch.Config{}), func() time.Time { return now })
	good := []trust{{"aaaaa", "https://good.example.com"}, {"bbbbb", "https://good.example.com"}}
	for _, in := range good {
		s.sets[in] = &fetched{keys: keySet{}, at: now, tried: now, used: now}
	}
	dead := func(n int) trust { return trust{"bbbbb", fmt.Sprintf("https://127.0.0.1:1/%d", n)} }
	for n := range maxIssuers + 50 {
		now = now.Add(time.Second)
		if _, err := s.suitable(t.Context(), dead(n), "1", "ES256"); err == nil {
			t.Fatal("it has keys")
		}
	}
	if len(s.sets) != maxIssuers+len(good) || len(s.fetching) != 0 {
		t.Errorf("%d issuers are kept, %d being asked", len(s.sets), len(s.fetching))
	}
	if _, ok := s.sets[dead(0)]; ok {
		t.Error("the one that was asked for first is kept")
	}
	if _, ok := s.sets[good[1]]; !ok {
		t.Error("keys went for issuers that have none")
	}
	for n := range maxIssuers { // as if they were fetched
		now = now.Add(time.Second)
		s.sets[trust{"bbbbb", fmt.Sprint("https://", n)}] = &fetched{keys: keySet{}, at: now, used: now}
		s.forget(true)
	}
	if _, ok := s.sets[good[0]]; !ok {
		t.Error("another's keys went, for those of a tenant with many issuers")
	}
	if _, ok := s.sets[good[1]]; ok {
		t.Error("the tenant with many issuers has lost none")
	}
}

// Issuers that answer late take only so many places, those of one account only some
// of them, and who found no place may try again at once.
func TestPlacesAreBounded(t *testing.T) {
	s := newKeySets(fetch.New(fetch.Config{}), time.Now)
	for n := range maxFetching {
		account := sallyport.AccountID(fmt.Sprint("acc", n/maxFetchingAccount))
		if !s.begin(account) {
			t.Fatalf("there is no place %d", n)
		}
		if last := n%maxFetchingAccount == maxFetchingAccount-1; last && s.begin(account) {
			t.Fatal("an account has one more place")
		}
	}
	in := trust{"other", "https://127.0.0.1:1"}
	for range 2 {
		if _, err := s.suitable(t.Context(), in, "1", "ES256"); err == nil || !strings.Contains(err.Error(), "too many issuers") {
			t.Errorf("without a place: got %v", err)
		}
	}
	if len(s.sets) != 0 {
		t.Error("it counts as asked")
	}
	s.sets[in] = &fetched{keys: keySet{{KeyID: "1", Key: &ecdsa.PublicKey{Curve: elliptic.P256()}}}, at: time.Now().Add(-staleFor + time.Minute)}
	if keys, err := s.suitable(t.Context(), in, "1", "ES256"); len(keys) != 1 || err != nil {
		t.Errorf("keys of an hour ago, without a place: got %v, %v", keys, err)
	}
	s.fetching = map[sallyport.AccountID]int{}
	if keys, err := s.suitable(t.Context(), in, "1", "ES256"); len(keys) != 1 || err != nil || s.sets[in].err == nil {
		t.Errorf("keys of an hour ago, while the issuer is away: got %v, %v", keys, err)
	}
}

// The same key in many rules is tried once, a third one not at all, and who waits
// for his turn does not wait longer than his request.
func TestSignaturesAreBounded(t *testing.T) {
	keys := make([]any, 3)
	var signer *ecdsa.PrivateKey
	for n := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[n], signer = &key.PublicKey, key
	}
	signature, err := jwt.SigningMethodES256.Sign("text", signer)
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{}, 1)
	for name, test := range map[string]struct {
		keys []any
		want bool
	}{
		"its key":       {keys[2:], true},
		"the second":    {keys[1:], true},
		"the third":     {keys, false},
		"one key twice": {[]any{keys[0], keys[0], keys[2]}, true},
	} {
		e := external{algorithm: "ES256", signed: "text", signature: signature}
		for range 3 {
			if got, err := e.signedBy(t.Context(), gate, test.keys); got != test.want || err != nil || len(e.tried) > maxTried {
				t.Errorf("%s: got %v, %v after %d keys", name, got, err, len(e.tried))
			}
		}
	}
	gate <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := external{algorithm: "ES256", signed: "text", signature: signature}
	if got, err := e.signedBy(ctx, gate, keys[2:]); got || !errors.Is(err, context.Canceled) {
		t.Errorf("without a turn: got %v, %v", got, err)
	}
}

// Tokens that are used stay, and the others go.
func TestVerifiedAreBounded(t *testing.T) {
	v := newVerified()
	hash := func(n int) [sha256.Size]byte { return sha256.Sum256(fmt.Append(nil, n)) }
	for n := range 3 * generation {
		v.add(hash(n), credential.Token{ID: fmt.Sprint(n)})
		if _, ok := v.byHash(hash(0)); !ok {
			t.Fatalf("the one that is used went after %d others", n)
		}
	}
	if _, ok := v.byHash(hash(1)); ok {
		t.Error("one that was not used is kept")
	}
	if _, ok := v.byID("0"); !ok {
		t.Error("the one that is used is not found by its id")
	}
	if n := len(v.young.byHash) + len(v.old.byHash); n > 2*generation {
		t.Errorf("%d are kept", n)
	}
}
