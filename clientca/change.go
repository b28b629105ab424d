package clientca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// NamespaceChanged is the directory's Config.NamespaceChanged. It refuses what a
// namespace cannot have, and tells authorizers of what it has now. What takes
// away something that certificates in use need is done, and warned about.
func (c *ClientCAs) NamespaceChanged(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) error {
	if after.ID == "" {
		return c.ended(ctx, tx, before.ID)
	}
	_, err := c.changed(ctx, tx, before, after, false)
	return err
}

// ended forgets a namespace.
func (c *ClientCAs) ended(ctx context.Context, tx *journal.Tx, id sallyport.NamespaceID) error {
	if err := forgetNamespace(ctx, tx, tx.Account(), id); err != nil {
		return err
	}
	return tx.Remove(ctx, object.KindClientCAs, string(id))
}

// changed checks and publishes what a namespace became, and gives the warnings.
// With refuse set, taking away what is in use is a Conflict.
func (c *ClientCAs) changed(ctx context.Context, tx *journal.Tx, before, after directory.Namespace, refuse bool) ([]string, error) {
	cas := !bytes.Equal(before.ClientCA, after.ClientCA)
	filters := !slices.Equal(before.CertificateFilters, after.CertificateFilters)
	if !cas && !filters && before.MTLSAuth == after.MTLSAuth {
		return nil, nil
	}
	if letsInMore(before, after) {
		if err := mayLetIn(tx.Caller()); err != nil {
			return nil, err
		}
	}
	if err := c.check(ctx, tx, tx.Account(), before, after); err != nil {
		return nil, err
	}
	stopped, err := c.stopped(ctx, tx, before, after)
	if err != nil {
		return nil, err
	}
	if refuse && stopped.any() {
		return nil, stopped.refusal()
	}
	var warnings []string
	if len(before.CertificateFilters) > 0 && len(after.CertificateFilters) == 0 && len(after.ClientCA) > 0 {
		warnings = append(warnings, "the last certificate filter is gone: every client certificate of the namespace's CAs is let in, and may write")
	}
	if len(after.ClientCA) > 0 && (cas || after.MTLSAuth && !before.MTLSAuth) {
		more, err := bundleWarnings(ctx, tx, tx.Account(), certificates(after.ClientCA), tx.Now())
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
	}
	warnings, err = c.warnOf(ctx, tx, after, stopped, warnings)
	if err != nil {
		return nil, err
	}
	if cas || before.MTLSAuth != after.MTLSAuth {
		if err := replaceCAs(ctx, tx, tx.Account(), after); err != nil {
			return nil, err
		}
	}
	if cas || filters {
		err = c.put(ctx, tx, after)
	}
	return warnings, err
}

// stopped is what a change of the namespace stops, whose maps stay.
func (c *ClientCAs) stopped(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) (stopping, error) {
	maps, err := mapsOf(ctx, tx, tx.Account(), after.ID)
	if err != nil {
		return stopping{}, err
	}
	from, err := c.side(ctx, tx, before, maps)
	if err != nil {
		return stopping{}, err
	}
	to, err := c.side(ctx, tx, after, maps)
	if err != nil {
		return stopping{}, err
	}
	return c.stops(ctx, tx, from, to)
}

// warnOf records the warnings of a change and tells of what it stops.
func (c *ClientCAs) warnOf(ctx context.Context, tx *journal.Tx, n directory.Namespace, stopped stopping, warnings []string) ([]string, error) {
	record := map[string]any{}
	if stopped.any() {
		w := Warning{Account: tx.Account(), Namespace: n.ID, Name: n.Name, Caller: tx.Caller().Principal.ID, Reason: stopped.reason,
			Stops: stopped.fingerprints(), Count: len(stopped.seen), Less: stopped.less, AtLeast: stopped.more}
		if !stopped.asleep {
			if err := c.warn(ctx, tx, w); err != nil {
				return nil, err
			}
		}
		warnings = append(warnings, stopped.text())
		record["stops"], record["count"], record["at_least"] = w.Stops, w.Count, w.AtLeast
	}
	if len(warnings) == 0 {
		return nil, nil
	}
	record["warnings"] = warnings
	tx.Record(journal.Change{Type: "warning", ID: string(n.ID), After: record})
	return warnings, nil
}

// put tells authorizers what the namespace's bundle, filters and maps are.
func (c *ClientCAs) put(ctx context.Context, tx *journal.Tx, n directory.Namespace) error {
	maps, err := mapsOf(ctx, tx, tx.Account(), n.ID)
	if err != nil {
		return err
	}
	o, ok := clientCAs(n, maps)
	if !ok {
		return tx.Remove(ctx, object.KindClientCAs, string(n.ID))
	}
	return tx.Put(ctx, object.KindClientCAs, string(n.ID), object.Encode(o))
}

// clientCAs is what authorizers know of the namespace from here; nothing when
// there are no CAs.
func clientCAs(n directory.Namespace, maps map[string]storedMap) (object.ClientCAs, bool) {
	var o object.ClientCAs
	for _, cert := range certificates(n.ClientCA) {
		o.Certificates = append(o.Certificates, cert.Raw)
	}
	for _, f := range n.CertificateFilters {
		m := maps[f.ID()]
		o.Filters = append(o.Filters, object.CertificateFilter{
			CommonName: f.CommonName, Organization: f.Organization, OrganizationalUnit: f.OrganizationalUnit,
			SubjectAlternativeName: f.SubjectAlternativeName, ServiceAccount: m.ServiceAccount, Permission: m.Permission})
	}
	return o, len(o.Certificates) > 0
}

// Objects rebuilds the account's replicated client CAs from the tables, by id.
func (c *ClientCAs) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	namespaces, err := c.directory.AllNamespaces(ctx, q, account)
	if err != nil {
		return nil, err
	}
	maps, err := allMaps(ctx, q, account)
	if err != nil {
		return nil, err
	}
	var objects []object.Object
	for _, n := range namespaces {
		if o, ok := clientCAs(n, maps[n.ID]); ok {
			objects = append(objects, object.Object{Kind: object.KindClientCAs, ID: string(n.ID), Data: object.Encode(o)})
		}
	}
	return objects, nil
}

// List gives a namespace's bundle, certificate by certificate, to those who may
// read the namespace.
func (c *ClientCAs) List(ctx context.Context, caller sallyport.Caller, namespace string) (Bundle, error) {
	n, err := c.directory.NamespaceFor(ctx, c.pool, caller, authz.NamespaceGet, namespace)
	if err != nil {
		return Bundle{}, err
	}
	seen, err := lastOfCAs(ctx, c.pool, caller.Account, n.ID)
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{Enabled: n.MTLSAuth, Revision: n.Revision}
	cas := certificates(n.ClientCA)
	revoked, err := revokedCAs(ctx, c.pool, caller.Account, cas)
	if err != nil {
		return Bundle{}, err
	}
	for i, cert := range cas {
		warnings := credential.ClientCAWarnings([]*x509.Certificate{cert}, c.now())
		if revoked[i] {
			warnings = append(warnings, revokedCA)
		}
		ca := CA{Fingerprint: credential.Fingerprint(cert), FingerprintSHA1: credential.FingerprintSHA1(cert),
			Subject: text(cert.Subject.String(), maxName), Issuer: text(cert.Issuer.String(), maxName),
			NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
			Warning: strings.Join(warnings, "; "),
			PEM:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})}
		ca.LastSeen = seen[ca.Fingerprint]
		b.CAs = append(b.CAs, ca)
	}
	return b, nil
}

// Add appends certificates, PEM, to a namespace's bundle, whose other bytes stay
// as they are. The rules are those of the whole bundle.
func (c *ClientCAs) Add(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, more []byte) (Change, journal.Committed, error) {
	added, err := newCAs(more)
	if err != nil {
		return Change{}, journal.Committed{}, err
	}
	return c.edit(ctx, caller, op, namespace, opens, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		held := certificates(n.ClientCA)
		for i, cert := range added {
			if slices.ContainsFunc(held, cert.Equal) {
				return Change{}, sallyport.AlreadyExists.Errorf("certificate %d (%s) is in the bundle already; leave it out", i+1, credential.Fingerprint(cert))
			}
		}
		change, err := c.set(ctx, tx, n, appended(n.ClientCA, more), n.CertificateFilters, false)
		return change, ofBundle(err, "certificates", "in the bundle with these at its end, ")
	})
}

// newCAs reads what is to be added, within the bounds of a whole bundle: what is
// larger is refused before anything is parsed, and before the account is locked.
func newCAs(more []byte) ([]*x509.Certificate, error) {
	switch {
	case len(bytes.TrimSpace(more)) == 0:
		return nil, sallyport.InvalidField("certificates", "is required: send one or more CA certificates as PEM")
	case len(more) > maxBundle:
		return nil, sallyport.InvalidField("certificates", "has %d bytes; a whole bundle has at most %d", len(more), maxBundle)
	case bytes.Count(more, []byte(pemBegin)) > maxCAs:
		return nil, sallyport.InvalidField("certificates", "has more than %d certificates, and a whole bundle has no more", maxCAs)
	}
	return certificates(more), nil
}

// Remove takes certificates, by their SHA-256 or SHA-1 fingerprints, out of a
// namespace's bundle. When client certificates that were seen in the last days
// would stop working it is a Conflict that lists them, unless it is forced.
func (c *ClientCAs) Remove(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, fingerprints []string, force bool) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, closes, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		gone, err := named(n.ClientCA, fingerprints)
		if err != nil {
			return Change{}, err
		}
		rest := without(n.ClientCA, func(cert *x509.Certificate) bool { return gone[credential.Fingerprint(cert)] })
		if len(certificates(rest)) == 0 {
			rest = nil // nor any text that is left
			managed, err := c.managed(ctx, tx)
			if err == nil && n.MTLSAuth && !managed {
				err = sallyport.Conflict.Errorf("mTLS is on and needs a CA; add another one first, or switch mTLS off")
			}
			if err != nil {
				return Change{}, err
			}
		}
		change, err := c.set(ctx, tx, n, rest, n.CertificateFilters, !force)
		return change, ofBundle(err, "fingerprints", "in the bundle without these, ")
	})
}

// MTLSParams say what client certificates are let in.
type MTLSParams struct {
	Enabled       bool
	ClientCA      []byte // PEM; what there is where ReplaceBundle is not set
	ReplaceBundle bool
	Seen          int64 // the namespace's revision that was read last; 0: whatever it is
	Force         bool
}

// SetMTLS switches mTLS on or off, and may replace the bundle. When client
// certificates that were seen in the last days would stop working it is a
// Conflict that lists them, unless it is forced.
func (c *ClientCAs) SetMTLS(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, p MTLSParams) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, closes, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		m := directory.MTLS{On: p.Enabled, ClientCA: n.ClientCA, Filters: n.CertificateFilters}
		if p.ReplaceBundle {
			m.ClientCA = p.ClientCA
		}
		after, err := c.directory.SetMTLS(ctx, tx, n, p.Seen, m)
		if err != nil {
			return Change{}, err
		}
		warnings, err := c.changed(ctx, tx, n, after, !p.Force)
		return Change{after.Revision, warnings}, ofBundle(err, "client_ca", "")
	})
}

// named finds the certificates of the bundle that fingerprints name. They are
// written in either case, with or without colons.
func named(bundle []byte, fingerprints []string) (map[string]bool, error) {
	if len(fingerprints) == 0 {
		return nil, sallyport.InvalidField("fingerprints", "is required: name the certificates to remove; ListClientCas gives their fingerprints")
	}
	byName := map[string]string{}
	for _, cert := range certificates(bundle) {
		fingerprint := credential.Fingerprint(cert)
		byName[fingerprint], byName[credential.FingerprintSHA1(cert)] = fingerprint, fingerprint
	}
	gone := map[string]bool{}
	for i, name := range fingerprints {
		name = strings.ToLower(strings.ReplaceAll(name, ":", ""))
		fingerprint, ok := byName[name]
		if !ok {
			return nil, &sallyport.Error{Kind: sallyport.NotFound, Field: fmt.Sprintf("fingerprints[%d]", i),
				Msg: "is of no certificate in the bundle; ListClientCas gives their SHA-256 and SHA-1 fingerprints"}
		}
		gone[fingerprint] = true
	}
	return gone, nil
}

// kind of a change.
type kind bool

const (
	opens  kind = true // it may let in more than before
	closes kind = false
)

// mayLetIn: client certificates work from everywhere, and after the credential
// of whoever lets them in has ended. One that works from some networks only would
// be got around by them, and the end of one that may be stolen off a worker, a
// certificate or a token, would be outlived. What is narrowed to namespaces does
// not reach further by a CA, which is of one namespace.
func mayLetIn(caller sallyport.Caller) error {
	switch kind := caller.Credential.Kind; {
	case caller.Limits.Sources != nil:
		return sallyport.PermissionDenied.Errorf("this credential works from some networks only and client certificates work from everywhere, so that it cannot add client CAs, change certificate filters and what they give, nor switch mTLS on; use one that is not narrowed to networks")
	case kind == "certificate" || kind == "token":
		return sallyport.PermissionDenied.Errorf("client certificates that a %s lets in would outlive its end, so that it cannot add client CAs, change certificate filters and what they give, nor switch mTLS on; use an API key, or ask an admin", kind)
	}
	return nil
}

// letsInMore reports whether certificates may be let in that were not before.
func letsInMore(before, after directory.Namespace) bool {
	if !slices.Equal(before.CertificateFilters, after.CertificateFilters) || len(after.ClientCA) > maxBundle || after.MTLSAuth && !before.MTLSAuth {
		return true
	}
	held := certificates(before.ClientCA)
	return slices.ContainsFunc(certificates(after.ClientCA), func(ca *x509.Certificate) bool { return !slices.ContainsFunc(held, ca.Equal) })
}

// edit carries out a change of a namespace by somebody who may change it.
func (c *ClientCAs) edit(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, k kind, change func(*journal.Tx, directory.Namespace) (Change, error)) (Change, journal.Committed, error) {
	var made Change
	done, err := c.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		n, err := c.directory.NamespaceFor(ctx, tx, tx.Caller(), authz.NamespaceUpdate, namespace)
		if err != nil {
			return err
		}
		if k == opens {
			if err := mayLetIn(tx.Caller()); err != nil {
				return err
			}
		}
		tx.Target(string(n.ID))
		made, err = change(tx, n)
		return err
	})
	if err == nil && done.Replayed {
		var n directory.Namespace
		n, err = c.directory.NamespaceByID(ctx, c.pool, done.Account, sallyport.NamespaceID(done.Target))
		if errors.Is(err, sallyport.NotFound) {
			err = nil // it was changed, and has gone since
		}
		made = Change{Revision: n.Revision}
	}
	if err != nil {
		return Change{}, journal.Committed{}, err
	}
	return made, done, nil
}

// set changes a namespace's bundle and filters inside its lock.
func (c *ClientCAs) set(ctx context.Context, tx *journal.Tx, n directory.Namespace, ca []byte, filters []credential.Filter, refuse bool) (Change, error) {
	after, err := c.directory.SetMTLS(ctx, tx, n, 0, directory.MTLS{On: n.MTLSAuth, ClientCA: ca, Filters: filters})
	if err != nil {
		return Change{}, err
	}
	warnings, err := c.changed(ctx, tx, n, after, refuse)
	return Change{after.Revision, warnings}, err
}

// ofBundle names the field of our own request in an error about the namespace's
// whole bundle, whose certificates the error counts.
func ofBundle(err error, field, in string) error {
	e, ok := err.(*sallyport.Error) //nolint:errorlint // only what a check answers itself, not a cause
	if !ok || e.Field != bundleField && e.Field != filtersField {
		return err
	}
	if e.Field == filtersField {
		in = "the filters "
	}
	return &sallyport.Error{Kind: e.Kind, Field: field, Msg: in + e.Msg}
}
