package replica_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

const benchNamespaces = 1000

// crowd is an account with n service accounts, each with a key and a grant.
type crowd struct {
	headers []string
	last    replica.Batch // what was loaded
}

func newCrowd(n int) *crowd {
	c := &crowd{headers: make([]string, n)}
	b := &c.last
	b.Account, b.Head = "f45a2", sallyport.Head{Epoch: 1, Revision: 1}
	add := func(kind object.Kind, id string, data []byte) {
		b.Objects = append(b.Objects, object.Object{Kind: kind, ID: id, Data: data})
		b.Digest.Toggle(kind, id, data, true)
	}
	add(object.KindAccount, "f45a2", object.Encode(object.Account{Status: object.Active}))
	namespaces := make([]string, benchNamespaces)
	for i := range namespaces {
		namespaces[i] = sallyport.NewID(sallyport.NamespacePrefix)
		add(object.KindNamespace, namespaces[i], object.Encode(object.Namespace{Name: fmt.Sprintf("n%d", i), Cell: "c1", Auth: object.NamespaceAuth{APIKey: true}}))
	}
	expires := time.Now().Add(1000 * time.Hour).UnixMicro()
	for i := range c.headers {
		id, keyID, ns := sallyport.NewID(sallyport.ServiceAccountPrefix), sallyport.NewID(""), namespaces[i%benchNamespaces]
		token, hash := credential.NewAPIKey("f45a2", keyID)
		c.headers[i] = "Bearer " + token.Reveal()
		add(object.KindPrincipal, id, object.Encode(object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1}))
		add(object.KindKey, keyID, object.Encode(object.Key{Owner: id, Hash: hash, Status: object.Active, Epoch: 1, Expires: expires}))
		add(object.KindGrant, object.GrantID(id, sallyport.ScopeNamespace, ns), object.Encode(object.Grant{Subject: id, Scope: sallyport.ScopeNamespace, Target: ns, Role: "write"}))
	}
	return c
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkDecide compares a decision on an API key, from the header on, with
// its floor: SHA-256 of the key and a look-up of the hash in a Go map.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		size := map[int]string{1000: "1k", 1_000_000: "1M"}[n]
		if n > 1000 && testing.Short() {
			continue
		}
		c := newCrowd(n)
		r, err := replica.Open(replica.Config{})
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		if err := r.Load(c.last); err != nil {
			b.Fatal(err)
		}
		perKey := float64(int64(heap()-before)) / float64(n)
		order := rand.New(rand.NewPCG(1, 2)).Perm(n)
		names := make([]string, benchNamespaces)
		for i := range names {
			names[i] = fmt.Sprintf("n%d.f45a2", i)
		}
		floor := make(map[[32]byte]int, n)
		for i, header := range c.headers {
			floor[sha256.Sum256([]byte(header[len("Bearer "):]))] = i
		}
		b.Run("floor/"+size, func(b *testing.B) {
			b.ReportAllocs()
			var token [128]byte
			i := 0
			for b.Loop() {
				header := c.headers[order[i%n]]
				if _, found := floor[sha256.Sum256(token[:copy(token[:], header[len("Bearer "):])])]; !found {
					b.Fatal("not found")
				}
				i++
			}
		})
		b.Run("apikey/"+size, func(b *testing.B) {
			b.ReportAllocs()
			i, at := 0, time.Now() // servers read the clock anyway
			for b.Loop() {
				k := order[i%n]
				d := r.Decide(replica.CredentialFromHeader(c.headers[k], netip.Addr{}), start, names[k%benchNamespaces], at)
				if !d.Allow {
					b.Fatal(d.Reason)
				}
				i++
			}
			b.ReportMetric(perKey, "B/key")
		})
		runtime.KeepAlive(c)
	}
}
