package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

const (
	freshFor     = 10 * time.Minute // keys are fetched anew after it
	staleFor     = time.Hour        // and used so long, while they cannot be fetched
	refetchAfter = 30 * time.Second // at the soonest, whatever key ids tokens name
	maxIssuers   = 1000             // whose keys are kept, and as many that have none
	maxFetching  = 64               // issuers that are asked at once
	minRSA       = 2048             // bits
	maxRSA       = 4096             // beyond, the check of one signature takes long
	exponentRSA  = 65537

	maxFetchingAccount = 8  // of them, those of one account
	maxUploadedKeys    = 16 // of a set
	maxFetchedKeys     = 50
)

// keySet are the public keys of an issuer, those that can be used.
type keySet []jose.JSONWebKey

// parseKeySet reads a JSON Web Key Set. Keys that cannot be used are left out, of
// whatever kind; one with a private or a symmetric key in it is refused whole, since
// it was published by mistake.
func parseKeySet(data []byte, most int) (keySet, error) {
	all, err := readKeys(data, most)
	if err != nil {
		return nil, err
	}
	set := slices.DeleteFunc(all, func(k jose.JSONWebKey) bool { return algorithmOf(k) == "" })
	if len(set) == 0 {
		return nil, errors.New("has no public key that RS256, ES256 or ES384 can be checked with")
	}
	return set, nil
}

// readKeys reads the public keys for signatures of whatever kind is known.
func readKeys(data []byte, most int) (keySet, error) {
	object, err := strangers().Object(data)
	if err != nil {
		return nil, fmt.Errorf("is not a JSON Web Key Set: %w", err)
	}
	list, ok := object["keys"].([]any)
	if !ok {
		return nil, errors.New("is not a JSON Web Key Set: it has no list of keys")
	}
	if len(list) > most {
		return nil, fmt.Errorf("has more than %d keys", most)
	}
	var set keySet
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if _, private := fields["d"]; private || fields["k"] != nil {
			return nil, errors.New("has a private or secret key in it: give the public ones, and replace that one")
		}
		if uses, ok := fields["key_ops"].([]any); ok && !slices.Contains(uses, any("verify")) {
			continue
		}
		for _, name := range []string{"x5c", "x5u", "x5t", "x5t#S256"} { // certificates count for nothing here
			delete(fields, name)
		}
		text, err := json.Marshal(fields)
		if err != nil {
			continue
		}
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) == nil && key.IsPublic() {
			set = append(set, key)
		}
	}
	return set, nil
}

// parseUploaded reads a key set that a tenant gave: what in it could not be used, or
// makes it unclear which key is meant, is told at once.
func parseUploaded(data []byte) (keySet, error) {
	all, err := readKeys(data, maxUploadedKeys)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, k := range all {
		if public, ok := k.Key.(*rsa.PublicKey); ok && !goodRSA(public) {
			return nil, fmt.Errorf("has an RSA key that is not of %d to %d bits with the exponent %d: leave it out, or have the issuer replace it", minRSA, maxRSA, exponentRSA)
		}
		if k.KeyID != "" && ids[k.KeyID] {
			return nil, fmt.Errorf("has the key id %s more than once: leave out the keys that are not used any more", show(k.KeyID))
		}
		ids[k.KeyID] = true
	}
	return parseKeySet(data, maxUploadedKeys)
}

func goodRSA(k *rsa.PublicKey) bool {
	bits := k.N.BitLen()
	return bits >= minRSA && bits <= maxRSA && k.E == exponentRSA
}

// algorithmOf is the one algorithm that the key may check, "" for none.
func algorithmOf(key jose.JSONWebKey) string {
	algorithm := ""
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		if goodRSA(k) {
			algorithm = "RS256"
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			algorithm = "ES256"
		case elliptic.P384():
			algorithm = "ES384"
		}
	}
	if key.Use != "" && key.Use != "sig" || key.Algorithm != "" && key.Algorithm != algorithm {
		return ""
	}
	return algorithm
}

// encode gives the set as it is kept: nothing but what was understood.
func (s keySet) encode() ([]byte, error) {
	plain := make([]jose.JSONWebKey, 0, len(s))
	for _, k := range s {
		plain = append(plain, jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: k.Algorithm, Use: k.Use})
	}
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: plain})
	if err != nil {
		return nil, fmt.Errorf("encoding a key set: %w", err)
	}
	return text, nil
}

// suitable are the keys that a token with the header may have been signed by. A
// token that names no key may be of the only one there is for its algorithm.
func (s keySet) suitable(kid, algorithm string) []any {
	var keys []any
	for _, k := range s {
		if algorithmOf(k) == algorithm && (kid == "" || k.KeyID == kid) {
			keys = append(keys, k.Key)
		}
	}
	if kid == "" && len(keys) > 1 {
		return nil
	}
	return keys
}

// keySets keeps the keys of issuers that are found by discovery, for each account
// by itself: whatever issuers a tenant names, nobody else's keys go for them. However
// many tokens name unknown keys, an issuer is asked only so often.
type keySets struct {
	fetch  *fetch.Client
	now    func() time.Time
	flight singleflight.Group

	mu       sync.Mutex
	sets     map[trust]*fetched
	fetching map[sallyport.AccountID]int // issuers that are being asked
}

// trust is an issuer as an account knows it.
type trust struct {
	account sallyport.AccountID
	issuer  string
}

type fetched struct {
	keys  keySet
	at    time.Time // of the keys; zero: there are none
	tried time.Time
	used  time.Time
	err   error // of the last try
}

func newKeySets(client *fetch.Client, now func() time.Time) *keySets {
	return &keySets{fetch: client, now: now, sets: map[trust]*fetched{}, fetching: map[sallyport.AccountID]int{}}
}

// suitable finds the issuer's keys for a token, fetching them if that may help. The
// error says to those who may know the rule why there are none.
func (s *keySets) suitable(ctx context.Context, in trust, kid, algorithm string) ([]any, error) {
	known, keys := s.known(in, kid, algorithm)
	now := s.now()
	if keys != nil && now.Sub(known.at) < freshFor {
		return keys, nil
	}
	if known.tried.IsZero() || now.Sub(known.tried) >= refetchAfter || now.Before(known.tried) {
		var busy error
		select {
		case result := <-s.flight.DoChan(string(in.account)+" "+in.issuer, func() (any, error) { return nil, s.refetch(context.WithoutCancel(ctx), in) }):
			busy = result.Err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		known, keys = s.known(in, kid, algorithm)
		if busy != nil && keys == nil {
			return nil, busy
		}
	}
	switch {
	case keys != nil:
		return keys, nil
	case known.err != nil:
		return nil, known.err
	}
	return nil, sallyport.Unavailable.Errorf("the issuer %s publishes no key for the token (key id %s, %s); the keys are fetched again in %s at the latest",
		in.issuer, show(kid), algorithm, refetchAfter)
}

// known gives what is kept of the issuer, and the suitable keys unless they are too old.
func (s *keySets) known(in trust, kid, algorithm string) (fetched, []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.sets[in]
	if !ok {
		return fetched{}, nil
	}
	f.used = s.now()
	if f.used.Sub(f.at) >= staleFor {
		return *f, nil
	}
	return *f, f.keys.suitable(kid, algorithm)
}

// refetch asks the issuer once. An error says that it was not asked, for want of a place.
func (s *keySets) refetch(ctx context.Context, in trust) error {
	if !s.begin(in.account) {
		return sallyport.Unavailable.Errorf("too many issuers are being asked for their keys; try again")
	}
	keys, err := s.discover(ctx, in.issuer)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetching[in.account]--; s.fetching[in.account] == 0 {
		delete(s.fetching, in.account)
	}
	f, ok := s.sets[in]
	if !ok {
		f = &fetched{}
		s.sets[in] = f
	}
	f.tried, f.used, f.err = s.now(), s.now(), err
	switch {
	case err == nil:
		f.keys, f.at = keys, f.tried
	case f.tried.Sub(f.at) >= staleFor: // they are not used any more
		f.keys, f.at = nil, time.Time{}
	}
	s.forget(f.keys != nil)
	return nil
}

// begin takes a place for asking an issuer. Those of one account are few, so that
// slow issuers of a tenant's leave places for the others'.
func (s *keySets) begin(account sallyport.AccountID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.fetching {
		all += n
	}
	if all >= maxFetching || s.fetching[account] >= maxFetchingAccount {
		return false
	}
	s.fetching[account]++
	return true
}

// forget makes place among the issuers that have keys, or among those that have
// none: a failure never makes keys go. Of the account that has most there, what was
// not used for longest goes. The caller holds the lock.
func (s *keySets) forget(withKeys bool) {
	shares, all := map[sallyport.AccountID]int{}, 0
	for in, f := range s.sets {
		if (f.keys != nil) == withKeys {
			shares[in.account]++
			all++
		}
	}
	if all <= maxIssuers {
		return
	}
	most := 0
	for _, n := range shares {
		most = max(most, n)
	}
	var (
		oldest trust
		since  time.Time
	)
	for in, f := range s.sets {
		if (f.keys != nil) == withKeys && shares[in.account] == most && (oldest.issuer == "" || f.used.Before(since)) {
			oldest, since = in, f.used
		}
	}
	delete(s.sets, oldest)
}

// discover is OpenID Connect Discovery 1.0 §4: the document must name the very
// issuer that was asked.
func (s *keySets) discover(ctx context.Context, issuer string) (keySet, error) {
	text, err := s.fetch.Get(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	document, err := strangers().Object(text)
	if err != nil {
		return nil, sallyport.Unavailable.Errorf("the discovery document of %s is not good: %v", issuer, err)
	}
	if document["issuer"] != issuer {
		return nil, sallyport.Unavailable.Errorf("the discovery document of %s is for another issuer: its issuer is %s", issuer, show(document["issuer"]))
	}
	address, ok := document["jwks_uri"].(string)
	if !ok {
		return nil, sallyport.Unavailable.Errorf("the discovery document of %s names no jwks_uri", issuer)
	}
	if strings.HasPrefix(issuer, "https://") && !strings.HasPrefix(address, "https://") {
		return nil, sallyport.Unavailable.Errorf("the jwks_uri of %s does not begin with https://", issuer)
	}
	if text, err = s.fetch.Get(ctx, address); err != nil {
		return nil, err
	}
	keys, err := parseKeySet(text, maxFetchedKeys)
	if err != nil {
		return nil, sallyport.Unavailable.Errorf("the key set of %s %v", issuer, err)
	}
	return keys, nil
}
