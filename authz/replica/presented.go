package replica

import (
	"crypto/tls"
	"crypto/x509"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

// presented is a chain that a client presented, with what was found out about it.
type presented struct {
	*credential.Presented
	leaf revocation // of the leaf, by its fingerprint
	hash uint64     // of the fingerprint

	judging  sync.Mutex  // held while a verdict is found
	trusted  atomic.Bool // somewhere its issuer is known
	verdicts atomic.Pointer[[]*verdict]
}

type verdictCache = atomic.Pointer[standing]

// maxVerdicts bounds what is kept of one chain: a client may call many
// namespaces, with its own bundle each.
const maxVerdicts = 64

func (r *Replica) newPresented(p *credential.Presented) *presented {
	return &presented{Presented: p, leaf: packFingerprint(p.Fingerprint), hash: maphash.String(r.seed, p.Fingerprint)}
}

// verdict gives what was found out about the trust, finding it out if nobody did.
func (p *presented) verdict(t *trust, now time.Time) *verdict {
	if v := p.kept(t, now); v != nil {
		return v
	}
	p.judging.Lock()
	defer p.judging.Unlock()
	if v := p.kept(t, now); v != nil {
		return v
	}
	v := t.judge(p.Presented, now)
	if v.known {
		p.trusted.Store(true)
	}
	var list []*verdict
	if old := p.verdicts.Load(); old != nil {
		for _, kept := range *old {
			if kept.of != t {
				list = append(list, kept)
			}
		}
	}
	if len(list) >= maxVerdicts {
		list = list[1:]
	}
	list = append(list, v)
	p.verdicts.Store(&list)
	return v
}

func (p *presented) kept(t *trust, now time.Time) *verdict {
	list := p.verdicts.Load()
	if list == nil {
		return nil
	}
	for _, v := range *list {
		if v.of == t && !now.Before(v.from) && !now.After(v.until) {
			return v
		}
	}
	return nil
}

// presentedCache finds what is known of a connection's chain by the addresses of
// its certificates, which Go's TLS shares between connections. The cache holds
// on to them, so that none is used again for another certificate. There are two
// generations, both bounded: what was used since the generation before last is
// there.
type presentedCache struct {
	limits            limits
	current, previous atomic.Pointer[generation]
	mu                sync.Mutex // held to add
}

// limits of a generation.
type limits struct {
	count int
	size  int // bytes, about
}

type generation struct {
	chains sync.Map // of *presentedList, by the leaf's *x509.Certificate
	limits          // that were used up
}

// presentedList is the chains that were presented with one leaf.
type presentedList struct {
	*presented
	next *presentedList
}

const (
	// Chains that somebody trusts have a cache of their own, for as many clients as
	// a server has: strangers can have nothing forgotten but what other strangers
	// presented.
	maxStrangers     = 8 << 10
	maxStrangersSize = 64 << 20
	maxTrusted       = 64 << 10
	maxTrustedSize   = 256 << 20
	maxChainsOfLeaf  = 4
	certificateSize  = 4 << 10 // of a parsed one, besides its DER
)

func (c *presentedCache) init(l limits) {
	c.limits = l
	c.current.Store(&generation{})
	c.previous.Store(&generation{})
}

func (g *generation) find(certs []*x509.Certificate) *presented {
	list, ok := g.chains.Load(certs[0])
	if !ok {
		return nil
	}
	for l := list.(*presentedList); l != nil; l = l.next {
		if slices.Equal(l.Certificates, certs) {
			return l.presented
		}
	}
	return nil
}

// find gives what is known of the chain, nil if nothing is.
func (c *presentedCache) find(certs []*x509.Certificate) *presented {
	if p := c.current.Load().find(certs); p != nil {
		return p
	}
	if p := c.previous.Load().find(certs); p != nil {
		return c.add(p)
	}
	return nil
}

// presentedBy gives what is known of a connection's chain.
func (r *Replica) presentedBy(certs []*x509.Certificate) *presented {
	if p := r.trusted.find(certs); p != nil {
		return p
	}
	p := r.strangers.find(certs)
	switch {
	case p == nil:
		p = r.newPresented(credential.NewPresented(slices.Clone(certs)))
		if p.Problem == "" {
			p = r.strangers.add(p)
		}
	case p.trusted.Load():
		p = r.trusted.add(p)
	}
	return p
}

// add keeps the chain, and gives the one that is there already.
func (c *presentedCache) add(p *presented) *presented {
	size := len(p.Certificates) * certificateSize
	for _, cert := range p.Certificates {
		size += len(cert.Raw)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.current.Load()
	if known := g.find(p.Certificates); known != nil {
		return known
	}
	if g.count >= c.limits.count || g.size >= c.limits.size {
		c.previous.Store(g)
		g = &generation{}
		c.current.Store(g)
	}
	list := &presentedList{presented: p}
	if others, ok := g.chains.Load(p.Certificates[0]); ok {
		list.next = others.(*presentedList).first(maxChainsOfLeaf - 1)
	}
	g.chains.Store(p.Certificates[0], list)
	g.count++
	g.size += size
	return p
}

// first copies the first n.
func (l *presentedList) first(n int) *presentedList {
	if l == nil || n == 0 {
		return nil
	}
	return &presentedList{l.presented, l.next.first(n - 1)}
}

// Credential reads what a call brought along: the value of its Authorization
// header, "" for none, and the state of its TLS connection, nil for none. Where
// there is a header it alone counts, with the certificate that a token is bound
// to. from is the caller's address; keys that are
// narrowed to networks need it.
func (r *Replica) Credential(authorization string, connection *tls.ConnectionState, from netip.Addr) Credential {
	c := Credential{From: from}
	if raw, ok := credential.Bearer(authorization); ok && credential.IsToken(raw) {
		r.read(raw, &c)
	} else {
		c = CredentialFromHeader(authorization, from)
	}
	if connection == nil {
		return c
	}
	c.Name = r.namespaceOf(connection.ServerName)
	switch {
	case len(connection.PeerCertificates) == 0:
	case c.Kind == NoCredential:
		p := r.presentedBy(connection.PeerCertificates)
		c.Kind, c.Certificate, c.Account, c.presented = Certificate, p.Presented, p.Account, p
	case c.token != nil && c.token.Certificate != nil:
		p := r.presentedBy(connection.PeerCertificates)
		c.Certificate, c.presented = p.Presented, p
	}
	return c
}

// namespaceOf gives the full name of the namespace that a server name names, in
// lower case; "" if it names none.
func (r *Replica) namespaceOf(serverName string) string {
	serverName = strings.TrimSuffix(serverName, ".")
	domain := r.config.NamespaceDomain
	cut := len(serverName) - len(domain)
	if domain == "" || cut < 2 || serverName[cut-1] != '.' || !strings.EqualFold(serverName[cut:], domain) {
		return ""
	}
	name := strings.ToLower(serverName[:cut-1])
	if strings.IndexByte(name, '.') < 0 {
		return ""
	}
	return name
}
