package replica_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkDecideToken decides on a token that was seen before, from the header
// on. The floor is SHA-256 of the token and a look-up of the hash in a Go map.
func BenchmarkDecideToken(b *testing.B) {
	s, keys, p := tokenWorld(b)
	_, key := p.key("sa_1", nil)
	r := load(b, keys, p)
	at := time.Now()
	byRule, madeWithKey := s.header("sa_1", nil), s.header("sa_1", byKey(key))
	raw := []byte(byRule[len("Bearer "):])
	floor := map[[32]byte]int{sha256.Sum256(raw): 1}
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if floor[sha256.Sum256(raw)] == 0 {
				b.Fatal("not found")
			}
		}
		b.ReportMetric(float64(len(raw)), "B/token")
	})
	b.Run("credential", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Credential(byRule, nil, netip.Addr{})
		}
	})
	for name, header := range map[string]string{"rule": byRule, "key": madeWithKey} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := r.Decide(r.Credential(header, nil, netip.Addr{}), start, "orders.f45a2", at); !d.Allow {
					b.Fatal(d.Reason)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if d := r.Decide(r.Credential(byRule, nil, netip.Addr{}), start, "orders.f45a2", at); !d.Allow {
					b.Error(d.Reason)
				}
			}
		})
	})
}

// BenchmarkFirstToken is the first call with a token, beside the check of a bare
// ECDSA signature: the medians.
func BenchmarkFirstToken(b *testing.B) {
	s, keys, p := tokenWorld(b)
	r := load(b, keys, p)
	var floor, ours []time.Duration
	for b.Loop() {
		header := s.header("sa_1", nil)
		digest := sha256.Sum256([]byte(header))
		signature, err := ecdsa.SignASN1(nil, s.key, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		if !ecdsa.VerifyASN1(&s.key.PublicKey, digest[:], signature) {
			b.Fatal("not verified")
		}
		middle := time.Now()
		d := r.Decide(r.Credential(header, nil, netip.Addr{}), start, "orders.f45a2", now)
		ours, floor = append(ours, time.Since(middle)), append(floor, middle.Sub(begun))
		if !d.Allow {
			b.Fatal(d.Reason)
		}
	}
	slices.Sort(floor)
	slices.Sort(ours)
	verify, first := float64(floor[len(floor)/2]), float64(ours[len(ours)/2])
	b.ReportMetric(verify, "verify-ns/op")
	b.ReportMetric(first, "ours-ns/op")
	b.ReportMetric(first/verify, "ratio")
}

// BenchmarkInventedToken is what a call costs whose token nobody has signed.
func BenchmarkInventedToken(b *testing.B) {
	s, keys, p := tokenWorld(b)
	other := newSigner(b, s.kid)
	r := load(b, keys, p)
	headers := make([]string, 5000)
	for i := range headers {
		headers[i] = other.header("sa_1", nil)
	}
	i := 0
	for b.Loop() {
		if d := r.Decide(r.Credential(headers[i%len(headers)], nil, netip.Addr{}), start, "orders.f45a2", now); d.Allow {
			b.Fatal("allowed")
		}
		i++
	}
}
