package clientca

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
)

const (
	flushEvery = 5 * time.Second
	reapEvery  = 10 * time.Minute
	seenBatch  = 500

	// Between two flushes; of more the use is not kept, and comes again.
	maxPending        = 100_000
	maxPendingRefused = 10_000
	maxPendingBytes   = 64 << 20

	// Rows of a namespace: certificates that were ever let in, and others.
	maxSeen    = 10_000
	maxRefused = 200

	keepUnseen  = 90 * 24 * time.Hour
	keepExpired = 30 * 24 * time.Hour
	reapBatch   = 5000

	maxName   = 256 // bytes of a subject or issuer
	maxReason = 300
)

// pendingSeen collects uses in memory until they are flushed.
type pendingSeen struct {
	mu      sync.Mutex
	uses    map[seenKey]Use
	refused int
	bytes   int // of chains
}

// seenKey keeps what was refused apart: of one certificate, some calls are let in
// and others are not.
type seenKey struct {
	account     sallyport.AccountID
	namespace   sallyport.NamespaceID
	fingerprint string
	refused     bool
}

func newPendingSeen() pendingSeen { return pendingSeen{uses: map[seenKey]Use{}} }

// add takes a use in, or merges it with the one that is there, of which the
// newest counts. The chain may have come with either of the certificate's two.
func (p *pendingSeen) add(use Use) {
	key := seenKey{use.Account, use.Namespace, use.Fingerprint, use.Refused != ""}
	other := key
	other.refused = !key.refused
	p.mu.Lock()
	defer p.mu.Unlock()
	old, known := p.uses[key]
	beside, both := p.uses[other]
	chain := use.Chain
	for _, c := range [][][]byte{old.Chain, beside.Chain} {
		if len(chain) == 0 {
			chain = c
		}
	}
	if known && !use.At.After(old.At) {
		use = old
	}
	use.Chain = chain
	bytes := p.bytes + size(chain) - size(old.Chain)
	if both {
		bytes += size(chain) - size(beside.Chain)
		beside.Chain = chain
	}
	refused := p.refused
	if key.refused && !known {
		refused++
	}
	full := !known && len(p.uses) >= maxPending || refused > max(p.refused, maxPendingRefused) || bytes > max(p.bytes, maxPendingBytes)
	if full {
		return
	}
	p.uses[key], p.refused, p.bytes = use, refused, bytes
	if both {
		p.uses[other] = beside
	}
}

func size(chain [][]byte) (n int) {
	for _, der := range chain {
		n += len(der)
	}
	return n
}

// take empties it.
func (p *pendingSeen) take() []Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	uses := make([]Use, 0, len(p.uses))
	for _, use := range p.uses {
		uses = append(uses, use)
	}
	p.uses, p.refused, p.bytes = map[seenKey]Use{}, 0, 0
	return uses
}

// MarkSeen notes that a client certificate was presented on calls. It never
// blocks and does not touch the database. Run writes it, to the minute.
func (c *ClientCAs) MarkSeen(use Use) {
	now := c.now()
	if use.At.After(now) {
		use.At = now // an authorizer's clock is ahead
	}
	if now.Sub(use.At) > keepUnseen || len(use.Chain) > maxChain || size(use.Chain) > maxChainBytes {
		return
	}
	use.At = use.At.UTC().Truncate(time.Minute)
	c.seen.add(use)
}

// Run writes what was seen every few seconds until the context ends, and once
// more then; meanwhile it drops what is old and keeps the metrics of expiry.
func (c *ClientCAs) Run(ctx context.Context) error {
	flush, measure, reap := time.NewTicker(flushEvery), time.NewTicker(measureEvery), time.NewTicker(reapEvery)
	defer flush.Stop()
	defer measure.Stop()
	defer reap.Stop()
	if ctx.Err() == nil {
		c.measure(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			c.flush(final)
			return nil
		case <-flush.C:
			c.flush(ctx)
		case <-measure.C:
			c.measure(ctx)
		case <-reap.C:
			c.logged(ctx, "reaping seen certificates", c.Reap(ctx))
		}
	}
}

func (c *ClientCAs) logged(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		c.log.WarnContext(ctx, what, "error", err)
	}
}

func (c *ClientCAs) flush(ctx context.Context) {
	byAccount := map[sallyport.AccountID][]Use{}
	for _, use := range c.seen.take() {
		byAccount[use.Account] = append(byAccount[use.Account], use)
	}
	for account, uses := range byAccount {
		// In one order everywhere, so that copies of the service cannot wait for each other.
		slices.SortFunc(uses, func(a, b Use) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Fingerprint, b.Fingerprint), a.At.Compare(b.At))
		})
		for batch := range slices.Chunk(uses, seenBatch) {
			err := c.write(ctx, account, batch)
			if err == nil {
				continue
			}
			c.logged(ctx, "keeping which certificates were seen", err)
			for _, use := range batch { // they wait for the next flush
				c.seen.add(use)
			}
		}
	}
}

// write keeps uses of one account's namespaces that are there.
func (c *ClientCAs) write(ctx context.Context, account sallyport.AccountID, uses []Use) error {
	var ids []sallyport.NamespaceID
	for _, use := range uses {
		ids = append(ids, use.Namespace)
	}
	slices.Sort(ids)
	namespaces, err := c.directory.NamespacesByID(ctx, c.pool, account, slices.Compact(ids))
	if err != nil {
		return err
	}
	bundles := map[sallyport.NamespaceID]known{}
	var list []sighting
	for _, use := range uses {
		n, ok := namespaces[use.Namespace]
		if !ok {
			continue
		}
		if _, ok := bundles[n.ID]; !ok {
			bundles[n.ID] = knownOf(n)
		}
		if s, ok := sightingOf(use, bundles[n.ID], c.now()); ok {
			list = append(list, s)
		}
	}
	grown, err := writeSightings(ctx, c.pool, account, list)
	if err != nil {
		return err
	}
	for id := range grown {
		if err := trimSeen(ctx, c.pool, account, id, maxSeen, maxRefused); err != nil {
			return err
		}
	}
	return nil
}

// known is what uses of a namespace's certificates are compared with.
type known struct {
	anchors *credential.Anchors
	cas     map[string]bool // fingerprints of the bundle
	filters []credential.Filter
}

func knownOf(n directory.Namespace) known {
	cas := certificates(n.ClientCA)
	k := known{credential.NewAnchors(cas), map[string]bool{}, n.CertificateFilters}
	for _, ca := range cas {
		k.cas[credential.Fingerprint(ca)] = true
	}
	return k
}

// sightingOf makes a use fit to be kept. Nothing that an authorizer sends is
// believed to be well-formed.
func sightingOf(use Use, k known, now time.Time) (sighting, bool) {
	use.Refused = text(use.Refused, maxReason)
	s := sighting{use: use, cas: []string{}}
	customers := use.Refused == "" && !use.Managed
	if !isHex(use.Fingerprint) || customers && !isHex(use.CA) {
		return s, false
	}
	if customers {
		s.cas = append(s.cas, use.CA)
		if use.Filter > 0 && use.Filter <= len(k.filters) {
			s.filter = k.filters[use.Filter-1].ID()
		}
	}
	if len(use.Chain) == 0 {
		return s, true
	}
	certs, err := parseChain(use.Chain)
	if err != nil || credential.Fingerprint(certs[0]) != use.Fingerprint {
		return s, false
	}
	leaf := certs[0]
	s.leaf = Seen{Subject: text(leaf.Subject.String(), maxName), Issuer: text(leaf.Issuer.String(), maxName),
		Serial: text(credential.SerialText(leaf.SerialNumber), 80), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if customers {
		s.cas = k.chainCAs(s.cas, certs, now)
	}
	return s, true
}

// chainCAs adds to the CA that the authorizer named the others of the bundle
// through which the chains of a certificate go.
func (k known) chainCAs(cas []string, certs []*x509.Certificate, now time.Time) []string {
	for _, chain := range credential.NewPresented(certs).Verify(k.anchors, credential.CustomerCA, now).Chains {
		for _, ca := range chain.Certificates[1:] {
			if fingerprint := credential.Fingerprint(ca); k.cas[fingerprint] && !slices.Contains(cas, fingerprint) {
				cas = append(cas, fingerprint)
			}
		}
	}
	return cas
}

// isHex reports whether s has the form of a SHA-256 fingerprint.
func isHex(s string) bool {
	return len(s) == 64 && !slices.ContainsFunc([]byte(s), func(b byte) bool { return (b < '0' || b > '9') && (b < 'a' || b > 'f') })
}

// Seen lists the client certificates that were presented on calls to a
// namespace since a time (zero: all that are kept), by fingerprint, to those who
// may read the namespace. The refused ones are among them.
func (c *ClientCAs) Seen(ctx context.Context, caller sallyport.Caller, namespace string, since time.Time, p sallyport.Page) ([]Seen, string, error) {
	n, err := c.directory.NamespaceFor(ctx, c.pool, caller, authz.NamespaceGet, namespace)
	if err != nil {
		return nil, "", err
	}
	cursor, err := c.pages.Cursor(caller.Account, fmt.Sprintf("seen-certificates/%s/%d", n.ID, since.Unix()), p)
	if err != nil {
		return nil, "", err
	}
	rows, err := listSeen(ctx, c.pool, caller.Account, n.ID, since, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	rows, next := page.Cut(cursor, rows, func(s Seen) string { return s.Fingerprint })
	return rows, next, nil
}

// Reap drops certificates that were not seen for 90 days or expired over 30 days
// ago. Run does it. Several may run at once.
func (c *ClientCAs) Reap(ctx context.Context) error {
	for {
		now := c.now()
		n, err := reapSeen(ctx, c.pool, now.Add(-keepUnseen), now.Add(-keepExpired), reapBatch)
		if err != nil || n < reapBatch {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
