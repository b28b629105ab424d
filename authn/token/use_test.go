package token_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
)

// A rule's and a key's last use is when a token was got by them, and when such a
// token was used.
func TestLastUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, p := w.Tenant(t), w.Tenant(t), newIdP(t)
	key, sa := p.key(t, "1", "ES256"), reader(t, a)
	rule, idle := w.rule(t, a, sa, p), w.rule(t, b, reader(t, b), p)
	made := a.Key(t, sa, sallyport.Limits{})
	flush := func() (rules, keys time.Time) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		check(t, w.issuer.Run(ended))
		check(t, w.Keys.Run(ended))
		got, err := w.issuer.Rule(t.Context(), a.Owner, rule.ID)
		check(t, err)
		read, err := w.Keys.Get(t.Context(), a.Owner, made.Key.ID)
		check(t, err)
		return got.LastUsed, read.LastUsed
	}
	byRule := w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, nil)))
	byKey := w.credentials(t, made)
	for _, raw := range []string{byRule.Token, byKey.Token} {
		caller, err := w.authenticate(t, raw)
		check(t, err)
		w.issuer.MarkUsed(b.ID, caller.Credential.ID, w.Now().Add(time.Hour)) // another account's: nothing
	}
	w.issuer.MarkUsed(a.ID, "tok_unknown", w.Now())
	minute := w.Now().UTC().Truncate(time.Minute)
	if r, k := flush(); r.Before(minute.Add(-time.Minute)) || k.Before(minute.Add(-time.Minute)) || r.After(minute) || k.After(minute) {
		t.Errorf("when they were got: %s, %s; want %s", r, k, minute)
	}
	w.Advance(5 * time.Minute)
	for _, raw := range []string{byRule.Token, byKey.Token} {
		caller, err := w.authenticate(t, raw)
		check(t, err)
		w.issuer.MarkUsed(a.ID, caller.Credential.ID, w.Now())
	}
	if r, k := flush(); r.Before(minute.Add(5*time.Minute)) || k.Before(minute.Add(5*time.Minute)) {
		t.Errorf("when they were used: %s, %s; want %s", r, k, minute.Add(5*time.Minute))
	}
	w.issuer.MarkRuleUsed(a.ID, rule.ID, minute.Add(-time.Hour))
	if r, _ := flush(); r.Before(minute) {
		t.Errorf("it went back to %s", r)
	}
	if got, err := w.issuer.Rule(t.Context(), b.Owner, idle.ID); err != nil || !got.LastUsed.IsZero() {
		t.Errorf("one that was not used: %s, %v", got.LastUsed, err)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	c := w.config
	registry := prometheus.NewRegistry()
	c.Metrics = registry
	w.handler = newIssuer(t, c).Handler()
	w.credentials(t, a.Key(t, reader(t, a), sallyport.Limits{}))
	w.token(t, "grant_type", "password")
	families, err := registry.Gather()
	check(t, err)
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			counts[f.GetName()+" "+m.GetLabel()[0].GetValue()] += m.GetCounter().GetValue()
		}
	}
	if counts["sallyport_tokens_issued_total client_credentials"] != 1 || counts["sallyport_token_requests_refused_total unsupported_grant_type"] != 1 {
		t.Errorf("got %v", counts)
	}
}
