package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport-iam/sallyport"
)

const (
	pkiKept    = time.Second // how old an answer may be that is given without asking the database
	pkiEntries = 512         // answers that are remembered
	pkiBytes   = 64 << 20    // of all of them
	pkiAsking  = 8           // that ask the database at a time
	pkiQueue   = 256         // that wait for it; others are sent away
	pkiWait    = 5 * time.Second
)

// PKI serves what everybody may know, to everybody: /pki/crl/<issuer>.crl and
// /pki/issuer/<issuer>.crt in DER, by credential.IssuerID, and /pki/roots.pem.
// However many strangers ask, the database is asked little.
func (a *Authority) PKI() http.Handler {
	p := &pki{authority: a, asking: make(chan struct{}, pkiAsking), queue: make(chan struct{}, pkiQueue), kept: map[string]*document{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pki/crl/{file}", p.named(".crl", a.crlDocument))
	mux.HandleFunc("GET /pki/issuer/{file}", p.named(".crt", a.issuerDocument))
	mux.HandleFunc("GET /pki/roots.pem", func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, "", a.rootsDocument) })
	return mux
}

// document is an answer, with what caches need.
type document struct {
	body     []byte
	kind     string
	tag      string
	modified time.Time
	life     time.Duration // for which caches may keep it

	asked time.Time // when the database was last asked
}

type pki struct {
	authority *Authority
	asking    chan struct{}
	queue     chan struct{}
	flight    singleflight.Group

	mu    sync.Mutex
	kept  map[string]*document // by path
	bytes int
}

// errBusy sends away who asks when too many do.
var errBusy = errors.New("too many ask at once")

type documentFunc func(ctx context.Context, issuer string) (*document, error)

// named serves documents of the issuer that the file is named after.
func (p *pki) named(suffix string, make documentFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		issuer, ok := strings.CutSuffix(r.PathValue("file"), suffix)
		if b, err := hex.DecodeString(issuer); !ok || err != nil || len(b) != sha256.Size || issuer != strings.ToLower(issuer) {
			http.NotFound(w, r)
			return
		}
		p.serve(w, r, issuer, make)
	}
}

func (p *pki) serve(w http.ResponseWriter, r *http.Request, issuer string, make documentFunc) {
	d, err := p.get(r.Context(), r.URL.Path, issuer, make)
	switch {
	case errors.Is(err, sallyport.NotFound):
		http.NotFound(w, r)
		return
	case err != nil:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not available now; try again", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", d.kind)
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(d.life.Seconds())))
	h.Set("Expires", p.authority.now().Add(d.life).UTC().Format(http.TimeFormat))
	h.Set("Etag", d.tag)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", d.modified, bytes.NewReader(d.body)) // conditional requests, ranges, HEAD
}

// get answers from memory what was asked for a moment ago, and otherwise asks
// the database, once for all who wait.
func (p *pki) get(ctx context.Context, path, issuer string, make documentFunc) (*document, error) {
	if d := p.recent(path); d != nil {
		return d, nil
	}
	result := p.flight.DoChan(path, func() (any, error) {
		select {
		case p.queue <- struct{}{}:
			defer func() { <-p.queue }()
		default:
			return nil, errBusy
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pkiWait)
		defer cancel()
		select {
		case p.asking <- struct{}{}:
			defer func() { <-p.asking }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		d, err := make(ctx, issuer)
		if err == nil {
			p.keep(path, d)
		} else if !errors.Is(err, sallyport.NotFound) && ctx.Err() == nil {
			p.authority.log.WarnContext(ctx, "answering on the PKI's paths", "path", path, "error", err)
		}
		return d, err
	})
	select {
	case done := <-result:
		d, _ := done.Val.(*document)
		return d, done.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pki) recent(path string) *document {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.kept[path]; d != nil && time.Since(d.asked) < pkiKept {
		return d
	}
	return nil
}

// keep remembers the answer, and forgets others where they take too much.
func (p *pki) keep(path string, d *document) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.asked = time.Now()
	for other, o := range p.kept {
		if other == path || len(p.kept) >= pkiEntries || p.bytes+len(d.body) > pkiBytes {
			p.bytes -= len(o.body)
			delete(p.kept, other)
		}
	}
	if len(d.body) <= pkiBytes {
		p.kept[path] = d
		p.bytes += len(d.body)
	}
}

func (a *Authority) crlDocument(ctx context.Context, issuer string) (*document, error) {
	c, err := a.CRL(ctx, issuer)
	if err != nil {
		return nil, err
	}
	return &document{body: c.DER, kind: "application/pkix-crl", tag: fmt.Sprintf(`"%d"`, c.Number), modified: c.ThisUpdate, life: time.Minute}, nil
}

func (a *Authority) issuerDocument(ctx context.Context, issuer string) (*document, error) {
	row, err := findIssuer(ctx, a.pool, issuer)
	if err != nil {
		return nil, err
	}
	if len(row.certificates) == 0 {
		return nil, sallyport.NotFound.Errorf("the issuer has no certificate")
	}
	return &document{body: row.certificates[0].Raw, kind: "application/pkix-cert", tag: tagOf(row.certificates[0].Raw), modified: row.created, life: time.Hour}, nil
}

func (a *Authority) rootsDocument(ctx context.Context, _ string) (*document, error) {
	roots, err := a.publishedRoots(ctx, a.pool)
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, sallyport.NotFound.Errorf("there is no root")
	}
	return &document{body: roots, kind: "application/pem-certificate-chain", tag: tagOf(roots), life: time.Minute}, nil
}

func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}
