package token

import (
	"crypto/sha256"
	"sync"

	"github.com/sallyport-iam/sallyport/credential"
)

const generation = 20_000 // tokens

// verified remembers tokens whose signature was checked, by their SHA-256 and by
// their id. There are two generations: what is not used goes with the older one.
type verified struct {
	mu         sync.Mutex
	young, old tokens
}

type tokens struct {
	byHash map[[sha256.Size]byte]credential.Token
	byID   map[string]credential.Token
}

func newTokens() tokens {
	return tokens{map[[sha256.Size]byte]credential.Token{}, map[string]credential.Token{}}
}

func newVerified() verified { return verified{young: newTokens(), old: newTokens()} }

func (v *verified) byHash(hash [sha256.Size]byte) (credential.Token, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.young.byHash[hash]
	if ok {
		return t, true
	}
	if t, ok = v.old.byHash[hash]; ok {
		v.keep(hash, t)
	}
	return t, ok
}

func (v *verified) byID(id string) (credential.Token, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.young.byID[id]
	if !ok {
		t, ok = v.old.byID[id]
	}
	return t, ok
}

func (v *verified) add(hash [sha256.Size]byte, t credential.Token) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keep(hash, t)
}

func (v *verified) keep(hash [sha256.Size]byte, t credential.Token) {
	if len(v.young.byHash) >= generation {
		v.old, v.young = v.young, newTokens()
	}
	v.young.byHash[hash], v.young.byID[t.ID] = t, t
}
