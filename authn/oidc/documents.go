package oidc

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

const (
	freshFor     = 10 * time.Minute // documents are fetched anew after it
	staleFor     = time.Hour        // while they cannot be fetched, they are used
	refetchAfter = 30 * time.Second // at the soonest, whatever key ids tokens name
	retryAfter   = 5 * time.Second  // a provider that did not answer
	maxProviders = 1000             // whose documents are kept
	maxFetching  = 64
)

// published is what a provider publishes: read only.
type published struct {
	Metadata
	keys keySet
}

// documents keeps what providers publish. However many tokens name unknown keys, a
// provider is asked only so often. Connections with the same issuer share it, since
// all that is kept comes from the issuer itself.
type documents struct {
	fetch    *fetch.Client
	now      func() time.Time
	flight   singleflight.Group
	fetching chan struct{}

	mu    sync.Mutex
	known map[source]*entry
}

// source is where documents come from, and what they must say of themselves.
type source struct{ wellKnown, announced string }

type entry struct {
	published published
	at        time.Time // of what is published; zero: there is nothing
	tried     time.Time
	err       error // of the last try
}

func newDocuments(client *fetch.Client, now func() time.Time) *documents {
	return &documents{fetch: client, now: now, fetching: make(chan struct{}, maxFetching), known: map[source]*entry{}}
}

// get gives what the provider publishes.
func (d *documents) get(ctx context.Context, p Provider) (published, error) {
	return d.find(ctx, p, func(published) bool { return true })
}

// keys finds the keys that may have signed a token, fetching the key set anew if
// that may help.
func (d *documents) keys(ctx context.Context, p Provider, id, algorithm string) ([]key, error) {
	var keys []key
	found, err := d.find(ctx, p, func(p published) bool {
		keys = p.keys.suitable(id, algorithm)
		return len(keys) > 0
	})
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, refuse(BadSignature, "%s publishes no key for the token (key id %s, %s); its keys are fetched again at most every %s", found.Issuer, show(id), algorithm, refetchAfter)
	}
	return keys, nil
}

// find gives what the provider publishes, fetched anew if it is old or not good
// enough, and that is allowed again.
func (d *documents) find(ctx context.Context, p Provider, good func(published) bool) (published, error) {
	s := source{p.wellKnown(), p.announces()}
	now := d.now()
	e := d.peek(s)
	if e.at.IsZero() || now.Sub(e.at) >= freshFor || !good(e.published) {
		wait := refetchAfter
		if e.err != nil {
			wait = retryAfter
		}
		if e.tried.IsZero() || now.Sub(e.tried) >= wait || now.Before(e.tried) {
			flight := d.flight.DoChan(s.wellKnown+" "+s.announced, func() (any, error) { d.refetch(context.WithoutCancel(ctx), s); return nil, nil })
			select {
			case <-flight:
			case <-ctx.Done():
				return published{}, ctx.Err()
			}
			e = d.peek(s)
		}
	}
	if e.at.IsZero() || d.now().Sub(e.at) >= staleFor {
		if e.err == nil {
			return published{}, refuse(Unreachable, "%s has not published its documents lately", s.announced)
		}
		return published{}, unreachable(e.err)
	}
	good(e.published)
	return e.published, nil
}

func (d *documents) peek(s source) entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.known[s]; ok {
		return *e
	}
	return entry{}
}

// refetch asks the provider once.
func (d *documents) refetch(ctx context.Context, s source) {
	var (
		found published
		err   error
	)
	select {
	case d.fetching <- struct{}{}:
		found, err = d.discover(ctx, s)
		<-d.fetching
	default:
		err = sallyport.Unavailable.Errorf("too many providers are being asked for their documents; try again")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.known[s]
	if !ok {
		d.forgetOne()
		e = &entry{}
		d.known[s] = e
	}
	e.tried, e.err = d.now(), err
	if err == nil {
		e.published, e.at = found, e.tried
	}
}

// forgetOne makes place for a provider. The caller holds the lock.
func (d *documents) forgetOne() {
	if len(d.known) < maxProviders {
		return
	}
	var oldest *source
	for s, e := range d.known {
		if oldest == nil || e.tried.Before(d.known[*oldest].tried) {
			oldest = &s
		}
	}
	delete(d.known, *oldest)
}

func (d *documents) discover(ctx context.Context, s source) (published, error) {
	data, err := d.fetch.Get(ctx, s.wellKnown)
	if err != nil {
		return published{}, err
	}
	m, err := parseMetadata(data, s.announced)
	if err != nil {
		return published{}, err
	}
	if data, err = d.fetch.Get(ctx, m.Keys); err != nil {
		return published{}, err
	}
	keys, err := parseKeySet(data)
	if err != nil {
		return published{}, sallyport.Unavailable.Errorf("the key set of %s %v", s.announced, err)
	}
	return published{m, keys}, nil
}
