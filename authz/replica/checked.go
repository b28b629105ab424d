package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// tokenCache has the tokens whose signatures were good, by their hash. There are
// two generations, both bounded: what was used since the generation before last
// is there. Readers take no lock.
type tokenCache struct {
	current, previous atomic.Pointer[table[*token]]
	mu                sync.Mutex // held to add
	size              int        // bytes of the current one, about
}

const (
	maxTokens     = 64 << 10 // of a generation
	maxTokensSize = 64 << 20 // bytes of a generation
	tokenSize     = 1 << 10  // of a token, about, besides its namespaces
	namespaceSize = 64
)

func tokenPlace(hash *[sha256.Size]byte) uint64 { return binary.LittleEndian.Uint64(hash[:]) }

func findToken(t *table[*token], hash *[sha256.Size]byte) *token {
	h := tokenPlace(hash)
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value.hash == *hash {
			return s.value
		}
	}
	return nil
}

// find gives the token of the hash, nil if it is not known. It does not allocate
// for one that was used lately.
func (c *tokenCache) find(hash *[sha256.Size]byte) *token {
	if t := findToken(c.current.Load(), hash); t != nil {
		return t
	}
	if t := findToken(c.previous.Load(), hash); t != nil {
		return c.add(t)
	}
	return nil
}

// add keeps the token, and gives the one that is there already.
func (c *tokenCache) add(t *token) *token {
	c.mu.Lock()
	defer c.mu.Unlock()
	current := c.current.Load()
	if known := findToken(current, &t.hash); known != nil {
		return known
	}
	if current.count >= maxTokens || c.size >= maxTokensSize {
		empty := newTable[*token](current.seed)
		c.previous.Store(current)
		current, c.size = &empty, 0
	}
	next := edit(*current)
	next.set(tokenPlace(&t.hash), func(*token) bool { return false }, t)
	c.current.Store(&next.table)
	c.size += tokenSize + namespaceSize*len(t.Namespaces)
	return t
}

// refusals remembers for a moment what is wrong with tokens, so that a client
// that goes on with a bad one costs no signature each time. Each has one place;
// another token that shares it takes it.
type refusals [refusalPlaces]atomic.Pointer[refusal]

type refusal struct {
	hash    [sha256.Size]byte
	keys    *view // that were known
	at      time.Time
	problem string
}

const (
	refusalPlaces = 1 << 10
	refusalTime   = 5 * time.Second
)

func (r *refusals) place(hash *[sha256.Size]byte) *atomic.Pointer[refusal] {
	return &r[tokenPlace(hash)%refusalPlaces]
}

// find gives what is wrong with the token, "" if that is not known.
func (r *refusals) find(hash *[sha256.Size]byte, keys *view, now time.Time) string {
	known := r.place(hash).Load()
	if known == nil || known.hash != *hash || known.keys != keys || now.Sub(known.at) >= refusalTime {
		return ""
	}
	return known.problem
}

// maxCheckWait is how long a call waits for its turn to have its token's
// signature checked.
const maxCheckWait = 100 * time.Millisecond

// tokens is what a Replica knows of tokens.
type tokens struct {
	good tokenCache
	bad  refusals
	// checking has room for the signatures that may be checked at once: whoever
	// sends invented tokens has half of the machine's processors at most, and calls
	// with tokens that are known do not wait.
	checking chan struct{}
}

func (t *tokens) init(seed maphash.Seed) {
	empty := newTable[*token](seed)
	t.good.current.Store(&empty)
	t.good.previous.Store(&empty)
	t.checking = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
}

// read is the credential of a token. Its signature is checked once; whether it is
// good for a call is decided by each Decide.
func (r *Replica) read(raw string, c *Credential) {
	c.Kind = Token
	if len(raw) > credential.MaxToken {
		c.Problem = fmt.Sprintf("the token is longer than %d bytes; it is none that was issued here", credential.MaxToken)
		return
	}
	hash := sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw))) //nolint:gosec // read only; a copy would be on the heap
	c.token = r.tokens.good.find(&hash)
	if c.token == nil {
		r.check(raw, &hash, c)
	}
	if c.token != nil {
		c.Account = c.token.Account
	}
}

// check finds out whether the token is good.
func (r *Replica) check(raw string, hash *[sha256.Size]byte, c *Credential) {
	var keys *view
	if a := r.find(sallyport.SystemAccount); a != nil {
		keys = a.state.Load().held
	}
	if c.Problem = r.tokens.bad.find(hash, keys, time.Now()); c.Problem != "" {
		return
	}
	if !r.tokens.begin() {
		c.busy = true
		r.metrics.checks.WithLabelValues("busy").Inc()
		return
	}
	defer func() { <-r.tokens.checking }()
	if c.token = r.tokens.good.find(hash); c.token != nil { // while this one waited
		return
	}
	var by *tokenKey
	now := time.Now()
	t, err := credential.VerifyToken(raw, func(kid string) (credential.TokenKey, bool) {
		if by = keys.tokenKey(kid); by == nil {
			return credential.TokenKey{}, false
		}
		return by.TokenKey, true
	}, now)
	if err != nil {
		r.metrics.checks.WithLabelValues("bad").Inc()
		c.Problem = err.Error()
		r.tokens.bad.place(hash).Store(&refusal{*hash, keys, now, c.Problem})
		return
	}
	r.metrics.checks.WithLabelValues("good").Inc()
	c.token = r.tokens.good.add(&token{Token: t, hash: *hash, by: by, expires: t.Expires.UnixMicro()})
}

// begin takes a place among those who check; false if there is none for too long.
func (t *tokens) begin() bool {
	select {
	case t.checking <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(maxCheckWait)
	defer timer.Stop()
	select {
	case t.checking <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}
