package clientca

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
)

const (
	inUse     = 7 * 24 * time.Hour // what was seen within is in use
	maxCheck  = 5000               // certificates that one check looks at
	maxJudged = maxSeen            // that a change looks at, inside the account's lock
	maxStops  = 1000               // that are read at once for it; when so many stop it looks no further
	maxListed = 20                 // that a refusal and a warning name
	maxTold   = 1500               // that a check lists, of each sort: what a gRPC client takes is 4 MB
	maxChecks = 2                  // at once: each takes up to a second of a processor
)

// Check tries another bundle or other filters on the certificates that were seen
// on calls to the namespace, the newest first. Those of the managed CA are not
// touched by either, and what has expired or is revoked works under none. Who may
// read the namespace may ask.
func (c *ClientCAs) Check(ctx context.Context, caller sallyport.Caller, namespace string, p CheckParams) (CheckResult, error) {
	n, err := c.directory.NamespaceFor(ctx, c.pool, caller, authz.NamespaceGet, namespace)
	if err != nil {
		return CheckResult{}, err
	}
	after := n
	if len(p.Bundle) > 0 {
		after.ClientCA = p.Bundle
	}
	if p.ReplaceFilters {
		after.CertificateFilters = p.Filters
	}
	if err := c.checkTrial(ctx, caller.Account, after, p); err != nil {
		return CheckResult{}, err
	}
	select {
	case c.checks <- struct{}{}:
		defer func() { <-c.checks }()
	case <-ctx.Done():
		return CheckResult{}, ctx.Err()
	}
	now := c.now()
	if p.Since.IsZero() {
		p.Since = now.Add(-inUse)
	}
	tried := certificates(after.ClientCA)
	t := &trial{now: now.UTC(), before: newRules(certificates(n.ClientCA), n.CertificateFilters, nil), after: newRules(tried, after.CertificateFilters, nil)}
	result := CheckResult{}
	err = seenChains(ctx, c.pool, caller.Account, n.ID, p.Since, now, maxCheck+1, func(s seenChain) {
		if result.Incomplete = t.count == maxCheck; !result.Incomplete {
			t.judge(s)
		}
	})
	if err != nil {
		return CheckResult{}, err
	}
	result.Checked = t.count
	v, err := t.verdict(ctx, c.pool, caller.Account)
	if err != nil {
		return CheckResult{}, err
	}
	result.Incomplete = result.Incomplete || max(len(v.stop), len(v.start)) > maxTold
	result.WouldStop, result.WouldStart = byFingerprint(v.stop), byFingerprint(v.start)
	if result.Warnings, err = bundleWarnings(ctx, c.pool, caller.Account, tried, now); err != nil {
		return CheckResult{}, err
	}
	if !n.MTLSAuth {
		result.Warnings = append(result.Warnings, "mTLS is off in this namespace: no client certificate is let in now, whatever its CA")
	}
	return result, nil
}

// checkTrial refuses what an update would refuse.
func (c *ClientCAs) checkTrial(ctx context.Context, account sallyport.AccountID, n directory.Namespace, p CheckParams) error {
	if len(p.Bundle) > 0 {
		if err := c.checkBundle(ctx, c.pool, account, p.Bundle); err != nil {
			return inField(err, "bundle")
		}
	}
	if p.ReplaceFilters {
		if err := credential.CheckFilters(p.Filters); err != nil {
			return inField(err, "filters")
		}
	}
	if len(p.Bundle) == 0 && !p.ReplaceFilters {
		return nil // as it is
	}
	err := c.checkPublic(n.ClientCA, len(n.CertificateFilters))
	if err != nil {
		return ofBundle(err, "filters", "")
	}
	return nil
}

// byFingerprint sorts those that are listed: the last seen.
func byFingerprint(list []Seen) []Seen {
	list = list[:min(len(list), maxTold)]
	slices.SortFunc(list, func(a, b Seen) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
	return list
}
