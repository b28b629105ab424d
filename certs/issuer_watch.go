package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	watchEvery = 10 * time.Minute
	// rootEvery is how often the root is looked at, however often Problems is asked.
	rootEvery = 5 * time.Second
	// rootRenewal is when it is said that the current root ends: intermediates
	// under it get shorter from a year before.
	rootRenewal = issuerLife + issuerRenewal
)

// findings are what was found when issuers were last looked at.
type findings struct {
	root   string          // what is wrong with the operator's CA; "": nothing
	asked  time.Time       // when it was looked at
	broken int             // accounts with intermediates that do not open or do not match their keys
	told   map[string]bool // those intermediates, by id: the log has them once
	stale  int             // issuers whose CRL was asked for and cannot be made anew
}

type issuerMetrics struct {
	made        prometheus.Counter
	failures    prometheus.Counter
	crls        prometheus.Counter
	crlFailures prometheus.Counter
	crlsStale   prometheus.Gauge
	state       *prometheus.GaugeVec // by state: good, expiring, expired, broken
	rootExpiry  prometheus.Gauge
}

func newIssuerMetrics() issuerMetrics {
	return issuerMetrics{
		made: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_issuers_made_total", Help: "Intermediates of accounts that were made."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_issuer_failures_total", Help: "Times that an account's intermediate could not be made."}),
		crls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_crls_signed_total", Help: "CRLs that were signed."}),
		crlFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_crl_failures_total", Help: "Times that a CRL could not be signed."}),
		crlsStale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_crls_stale", Help: "Issuers whose CRL should have been signed anew and could not be."}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_issuers", Help: "Accounts' intermediates, by state: an expiring or expired one is replaced by the account's next issue. One that does not match its key is broken, and signs no CRL, also when it was replaced; of the others those that issue are counted.",
		}, []string{"state"}),
		rootExpiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_root_not_after_seconds", Help: "When the operator's current CA ends, in seconds since 1970; 0 without one."}),
	}
}

// register makes the metrics known; a nil registerer keeps none.
func (m issuerMetrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.made, m.failures, m.crls, m.crlFailures, m.crlsStale, m.state, m.rootExpiry} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// noteFailure remembers that no intermediate could be made: for a minute the
// account's calls are answered with it, or served by the one before.
func (a *Authority) noteFailure(ctx context.Context, account sallyport.AccountID, err error) {
	if sallyport.KindOf(err) == "" {
		err = &sallyport.Error{Kind: sallyport.Unavailable, Err: err,
			Msg: "no certificate can be issued in this account now; the operator finds the reason in the service's log"}
	}
	if sallyport.KindOf(err) == sallyport.Exhausted { // the account's own doing
		a.log.WarnContext(ctx, "making an intermediate", "account", account, "error", err)
	} else {
		a.log.ErrorContext(ctx, "making an intermediate", "account", account, "error", err)
		a.issuers.metrics.failures.Inc()
	}
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	for other, f := range a.issuers.failures {
		if a.now().Sub(f.at) > watchEvery {
			delete(a.issuers.failures, other)
		}
	}
	a.issuers.failures[account] = issuerFailure{a.now(), err}
}

func (a *Authority) lastFailure(account sallyport.AccountID) (err error, failed bool) {
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	f, ok := a.issuers.failures[account]
	return f.err, ok && a.now().Sub(f.at) < issuerRetry
}

func (a *Authority) forgetFailure(account sallyport.AccountID) {
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	delete(a.issuers.failures, account)
}

// Problems says what the operator should look at. None of it keeps the service
// from doing the rest of its work. It is for everybody's eyes, and names no account.
func (a *Authority) Problems(ctx context.Context) []string {
	if a.vault == nil {
		return nil
	}
	if a.rootIsDue() {
		a.checkRootNow(ctx)
	}
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	var list []string
	if a.issuers.found.root != "" {
		list = append(list, a.issuers.found.root)
	}
	if n := a.issuers.found.broken; n > 0 {
		list = append(list, fmt.Sprintf("certificates: intermediates of %d accounts do not match their keys: they issue nothing, and what they issued cannot get into a CRL; the log says which", n))
	}
	if n := a.issuers.found.stale; n > 0 {
		list = append(list, fmt.Sprintf("certificates: the CRLs of %d issuers cannot be signed anew; the log says why", n))
	}
	failing := 0
	for _, f := range a.issuers.failures {
		if a.now().Sub(f.at) < watchEvery && sallyport.KindOf(f.err) != sallyport.Exhausted {
			failing++
		}
	}
	if failing > 0 {
		list = append(list, fmt.Sprintf("certificates: no intermediate could be made for %d accounts; the log says why", failing))
	}
	return list
}

// CheckIssuers looks at the CAs of the operator and of all accounts, for
// Problems and the metrics. Run does it.
func (a *Authority) CheckIssuers(ctx context.Context) error {
	const batch = 1000
	if a.vault == nil {
		return nil
	}
	a.checkRootNow(ctx)
	broken, told, before := map[sallyport.AccountID]bool{}, map[string]bool{}, a.toldBroken()
	states := map[string]int{"good": 0, "expiring": 0, "expired": 0, "broken": 0}
	for after := ""; ; {
		rows, err := issuersFrom(ctx, a.pool, a.now(), after, batch)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.account == sallyport.SystemAccount {
				continue
			}
			state := a.stateOf(row)
			if state == "broken" {
				broken[row.account], told[row.id] = true, true
				if !before[row.id] {
					a.tellBroken(ctx, row)
				}
			} else if !row.retired.IsZero() {
				continue
			}
			states[state]++
		}
		if len(rows) < batch {
			break
		}
		after = rows[len(rows)-1].id
	}
	for state, n := range states {
		a.issuers.metrics.state.WithLabelValues(state).Set(float64(n))
	}
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	a.issuers.found.broken, a.issuers.found.told = len(broken), told
	return nil
}

// toldBroken gives the intermediates that were found broken last. It is not to
// be written to.
func (a *Authority) toldBroken() map[string]bool {
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	return a.issuers.found.told
}

func (a *Authority) tellBroken(ctx context.Context, row issuerRow) {
	a.log.ErrorContext(ctx, "an intermediate issues nothing", "account", row.account, "issuer", row.id, "problem", a.issuerProblem(row))
}

// noteStale keeps how many issuers' CRLs could not be made anew.
func (a *Authority) noteStale(n int) {
	a.issuers.metrics.crlsStale.Set(float64(n))
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	a.issuers.found.stale = n
}

func (a *Authority) rootIsDue() bool {
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	return a.now().Sub(a.issuers.found.asked) >= rootEvery
}

func (a *Authority) checkRootNow(ctx context.Context) {
	problem := a.rootProblem(ctx)
	a.issuers.mu.Lock()
	defer a.issuers.mu.Unlock()
	if problem != "" && problem != a.issuers.found.root {
		a.log.WarnContext(ctx, problem)
	}
	a.issuers.found.root, a.issuers.found.asked = problem, a.now()
}

func (a *Authority) stateOf(row issuerRow) string {
	if a.now().After(row.notAfter) {
		return "expired"
	}
	_, err := a.signer(row)
	switch {
	case err != nil || len(row.certificates) == 0:
		return "broken"
	case row.unusable(a.now()) != "":
		return "expired"
	case row.notAfter.Before(a.now().Add(issuerRenewal)):
		return "expiring"
	}
	return "good"
}

func (a *Authority) rootProblem(ctx context.Context) string {
	root, err := a.currentRoot(ctx, a.pool)
	a.issuers.metrics.rootExpiry.Set(0)
	if errors.Is(err, errNoRoot) {
		return "certificates: there is no root that could sign; make one with: sallyportd ca init"
	}
	if err != nil {
		return "certificates: the root cannot be read"
	}
	a.issuers.metrics.rootExpiry.Set(float64(root.notAfter.Unix()))
	if _, err := a.signer(*root); err != nil {
		return "certificates: the root's key does not open with the operator's key, or is another's"
	}
	if root.notAfter.Before(a.now().Add(rootRenewal)) {
		return "certificates: the root ends at " + root.notAfter.Format(time.DateOnly) + "; make its successor with: sallyportd ca rotate"
	}
	return ""
}

// ReapIssuers removes the CAs that expired over 31 days ago, from authorizers
// too. Run does it.
func (a *Authority) ReapIssuers(ctx context.Context) error {
	accounts, err := accountsWithEndedIssuers(ctx, a.pool, a.now().Add(-keepIssuer))
	if err != nil {
		return err
	}
	var failed []error
	for _, account := range accounts {
		_, err := a.journal.Commit(ctx, service(account), account, journal.Operation{Type: "ReapIssuers"}, func(tx *journal.Tx) error {
			ids, err := removeEndedIssuers(ctx, tx, tx.Now().Add(-keepIssuer))
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return errNothingEnded
			}
			slices.Sort(ids)
			for _, id := range ids {
				tx.Record(journal.Change{Type: "issuer", ID: id})
				if err := tx.Remove(ctx, object.KindIssuer, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errNothingEnded) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// runIssuers reaps intermediates and keeps CRLs fresh until the context ends.
func (a *Authority) runIssuers(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := errors.Join(a.RenewCRLs(ctx), a.ReapIssuers(ctx)); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "looking after issuers", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
