package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	issuerLife = 365 * 24 * time.Hour
	// issuerRenewal is how long before its end an intermediate is replaced, so
	// that certificates can always have the longest life that may be asked for.
	issuerRenewal = 97 * 24 * time.Hour
	// keepIssuer is how long after its end an intermediate's row stays.
	keepIssuer = 31 * 24 * time.Hour
	// issuerRetry is how long after it could not be made nobody tries again.
	issuerRetry = time.Minute
)

// issuing is an account's intermediate that makes certificates now.
type issuing struct {
	ID          string // credential.IssuerID
	Certificate *x509.Certificate
	Signer      crypto.Signer
	Chain       []byte // PEM: the certificate, and those above it up to the root, which is not in it
}

// issuerState is what this process remembers of issuers.
type issuerState struct {
	making  singleflight.Group // by account
	metrics issuerMetrics

	mu       sync.Mutex
	failures map[sallyport.AccountID]issuerFailure // that no intermediate could be made
	found    findings                              // of the last look at all issuers
}

type issuerFailure struct {
	at  time.Time
	err error
}

// errIssuerNeeded asks withIssuer for a new intermediate.
var errIssuerNeeded = errors.New("the account needs a new intermediate")

// errIssuerThere ends the making of an intermediate that somebody else has made.
var errIssuerThere = errors.New("the account has a new intermediate already")

// service is the caller of what happens by itself.
func service(account sallyport.AccountID) sallyport.Caller {
	return sallyport.OperatorCaller(account, "sallyportd")
}

// issuer gives the account's intermediate that makes certificates now, for a
// change within withIssuer: it answers errIssuerNeeded, to be handed on as it is,
// when there is none or it is to be replaced.
func (a *Authority) issuer(ctx context.Context, tx *journal.Tx) (*issuing, error) {
	if a.vault == nil {
		return nil, sallyport.Conflict.Errorf("this service has no managed CA; use certificates of your own CA")
	}
	if tx.Account() == sallyport.SystemAccount { // whose CAs are the roots
		return nil, sallyport.Conflict.Errorf("there are no certificates in the operator's account; use API keys")
	}
	root, err := a.currentRoot(ctx, tx)
	if err != nil && !errors.Is(err, sallyport.Unavailable) {
		return nil, err
	}
	best, row, err := a.bestIssuer(ctx, tx, tx.Account())
	if err != nil {
		return nil, err
	}
	if best != nil && (root == nil || a.lasting(row, root)) {
		return best, nil
	}
	failure, failed := a.lastFailure(tx.Account())
	switch {
	case !failed:
		return nil, errIssuerNeeded
	case best != nil:
		return best, nil
	}
	return nil, failure
}

// bestIssuer is the account's newest intermediate that can issue, nil if there
// is none. Ones that do not open or do not match their keys are passed over:
// makeIssuer tells of them.
func (a *Authority) bestIssuer(ctx context.Context, q pg.Querier, account sallyport.AccountID) (*issuing, *issuerRow, error) {
	rows, err := issuerRows(ctx, q, account)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		if !row.retired.IsZero() || row.unusable(a.now()) != "" {
			continue
		}
		signer, err := a.signer(row)
		if err != nil {
			continue
		}
		chain, err := a.presentedChain(ctx, q, row)
		if err != nil {
			return nil, nil, err
		}
		return &issuing{ID: row.id, Certificate: row.certificates[0], Signer: signer, Chain: chain}, &row, nil
	}
	return nil, nil, nil
}

// unusable says why the CA cannot sign at the moment, its key apart; "" if it can.
func (r issuerRow) unusable(now time.Time) string {
	switch {
	case len(r.certificates) == 0:
		return "it has no certificate"
	case !r.revoked.IsZero():
		return "it is revoked"
	case now.After(r.notAfter):
		return "it expired at " + r.notAfter.Format(time.RFC3339)
	case now.Before(r.notBefore):
		return "it is not valid before " + r.notBefore.Format(time.RFC3339)
	}
	return ""
}

// lasting reports whether a new intermediate would be no better than this one.
func (a *Authority) lasting(row, root *issuerRow) bool {
	renew := row.notAfter.Before(a.now().Add(issuerRenewal)) && row.notAfter.Before(root.notAfter)
	return row.parent == root.id && row.trustDomain() == a.trustDomain && !renew
}

// presentedChain is what stands above leaves in what their TLS clients present:
// the intermediate, and those between it and the root.
func (a *Authority) presentedChain(ctx context.Context, q pg.Querier, row issuerRow) ([]byte, error) {
	chain := row.certificates
	if parent, err := findIssuer(ctx, q, row.parent); err == nil {
		chain = append(chain[:len(chain):len(chain)], parent.certificates...)
	} else if !errors.Is(err, sallyport.NotFound) {
		return nil, err
	}
	var text bytes.Buffer
	for i, c := range chain {
		if i == 0 || !bytes.Equal(c.RawSubject, c.RawIssuer) {
			text.Write(encodePEM(c))
		}
	}
	return text.Bytes(), nil
}

func encodePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// signer makes a stored key usable. It is the one place that does: a key that
// is kept elsewhere (a KMS) would be reached from here. It fails when the key
// does not open or is not that of the certificate.
func (a *Authority) signer(row issuerRow) (crypto.Signer, error) {
	if a.vault == nil || row.sealedKey == nil {
		return nil, sallyport.Unavailable.Errorf("the key of the issuer %s is not here", row.id)
	}
	der, err := a.vault.Open(row.sealedKey, keyContext(row.account, row.id))
	if err != nil {
		return nil, fmt.Errorf("opening the key of the issuer %s: %w", row.id, err)
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the key of the issuer %s cannot be read", row.id) // the cause might say something of the key
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key of the issuer %s cannot sign", row.id)
	}
	id, err := keyID(signer.Public())
	if err != nil || id != row.id || len(row.certificates) > 0 && credential.IssuerID(row.certificates[0]) != id {
		return nil, fmt.Errorf("the issuer %s does not match its key", row.id)
	}
	if a.watch != nil {
		signer = a.watch(signer)
	}
	return signer, nil
}

// sealKey is the reverse of signer.
func (a *Authority) sealKey(account sallyport.AccountID, id string, key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding an issuer's key: %w", err)
	}
	defer clear(der)
	return a.vault.Seal(der, keyContext(account, id))
}

func keyContext(account sallyport.AccountID, id string) []byte {
	return []byte("issuer/" + string(account) + "/" + id)
}

// withIssuer runs a change that calls issuer. Where the account needs a new
// intermediate it is made, in commits of its own since it is recorded before it
// is signed, and the change is run again.
func (a *Authority) withIssuer(ctx context.Context, account sallyport.AccountID, change func() (journal.Committed, error)) (journal.Committed, error) {
	for attempt := 0; ; attempt++ {
		done, err := change()
		if !errors.Is(err, errIssuerNeeded) {
			return done, err
		}
		if attempt == 3 {
			return done, sallyport.Unavailable.Errorf("the account's CA is being replaced; try again")
		}
		_, err, _ = a.issuers.making.Do(string(account), func() (any, error) {
			making, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second) // others wait for it too
			defer cancel()
			return nil, a.makeIssuer(making, account)
		})
		if err != nil {
			a.noteFailure(ctx, account, err)
		}
	}
}

// makeIssuer makes the account a new intermediate under the current root: it is
// recorded, then linted, then signed, then published to authorizers. The one
// before stays good for what it issued.
func (a *Authority) makeIssuer(ctx context.Context, account sallyport.AccountID) error {
	root, err := a.currentRoot(ctx, a.pool)
	if err != nil {
		return err
	}
	rootKey, err := a.signer(*root)
	if err != nil {
		return err
	}
	if err := a.tellReplaced(ctx, account); err != nil {
		return err
	}
	var d *draft
	_, err = a.journal.Commit(ctx, service(account), account, journal.Operation{Type: "RecordIssuer"}, func(tx *journal.Tx) error {
		best, row, err := a.bestIssuer(ctx, tx, account)
		if err != nil {
			return err
		}
		if best != nil && a.lasting(row, root) {
			return errIssuerThere
		}
		if err := a.checkIssuersADay(ctx, tx); err != nil {
			return err
		}
		d, err = a.recordIntermediate(ctx, tx, root)
		return err
	})
	if errors.Is(err, errIssuerThere) {
		return nil
	}
	if err != nil {
		return err
	}
	cert, err := d.complete(rootKey)
	if err != nil {
		return err
	}
	_, err = a.journal.Commit(ctx, service(account), account, journal.Operation{Type: "PublishIssuer"}, func(tx *journal.Tx) error {
		id := credential.IssuerID(cert)
		if err := publishIssuer(ctx, tx, id, encodePEM(cert)); err != nil {
			return err
		}
		tx.Target(id)
		tx.Record(journal.Change{Type: "issuer", ID: id, After: map[string]any{
			"fingerprint": credential.Fingerprint(cert), "not_after": cert.NotAfter}})
		return tx.Put(ctx, object.KindIssuer, id, issuerObject(cert))
	})
	if err == nil {
		a.issuers.metrics.made.Inc()
		a.forgetFailure(account)
	}
	return err
}

// checkIssuersADay bounds what an account can have the root sign, and what all
// that read its issuers have to hold: each one that is revoked is replaced.
func (a *Authority) checkIssuersADay(ctx context.Context, tx *journal.Tx) error {
	n, err := countIssuersSince(ctx, tx, tx.Account(), tx.Now().Add(-24*time.Hour))
	if err == nil && n >= a.maxIssuersADay {
		return sallyport.Exhausted.Errorf("the account had %d intermediates made within 24 hours, and may have %d; revoke certificates instead of the CA that issued them, and wait, or ask the operator of the service for more", n, a.maxIssuersADay)
	}
	return err
}

// tellReplaced logs the intermediates that are to be replaced since they do not
// match their keys, which is the sign of damage.
func (a *Authority) tellReplaced(ctx context.Context, account sallyport.AccountID) error {
	rows, err := issuerRows(ctx, a.pool, account)
	for _, row := range rows {
		if row.chain != nil && row.retired.IsZero() && a.stateOf(row) == "broken" {
			a.tellBroken(ctx, row)
		}
	}
	return err
}

func (a *Authority) recordIntermediate(ctx context.Context, tx *journal.Tx, root *issuerRow) (*draft, error) {
	key, err := newKey(KeyP256)
	if err != nil {
		return nil, err
	}
	d, err := newDraft(intermediate(tx.Account(), a.trustDomain, tx.Now(), root.certificates[0]), root.certificates[0], key.Public(), a)
	if err != nil {
		return nil, err
	}
	return d, a.record(ctx, tx, d, root.id, key)
}

// record inserts the row of a CA that will be signed.
func (a *Authority) record(ctx context.Context, tx *journal.Tx, d *draft, parent string, key crypto.Signer) error {
	id := credential.IssuerID(d.copied)
	sealed, err := a.sealKey(tx.Account(), id, key)
	if err != nil {
		return err
	}
	tx.Target(id)
	tx.Record(journal.Change{Type: "issuer", ID: id, After: map[string]any{
		"parent": parent, "serial": credential.SerialText(d.copied.SerialNumber), "subject": d.copied.Subject.String()}})
	return insertIssuer(ctx, tx, issuerRow{account: tx.Account(), id: id, parent: parent, tbs: d.copied.RawTBSCertificate, sealedKey: sealed,
		notBefore: d.copied.NotBefore, notAfter: d.copied.NotAfter, created: tx.Now(), revision: tx.Revision()})
}

// issuerObjects rebuilds the account's KindIssuer objects, by id. A revoked one
// stays until it expires, beside its revocation: so that its certificates'
// holders are told why they are refused.
func (a *Authority) issuerObjects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	rows, err := issuerRows(ctx, q, account)
	if err != nil || account == sallyport.SystemAccount {
		return nil, err
	}
	var objects []object.Object
	for _, row := range rows {
		if len(row.certificates) > 0 {
			objects = append(objects, object.Object{Kind: object.KindIssuer, ID: row.id, Data: issuerObject(row.certificates[0])})
		}
	}
	return objects, nil
}

func issuerObject(cert *x509.Certificate) []byte {
	return object.Encode(object.Issuer{Certificate: cert.Raw, TrustDomain: trustDomainOf(cert)})
}

// accountIssuers lists the account's intermediates, newest first.
func (a *Authority) accountIssuers(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]Issuer, error) {
	rows, err := issuerRows(ctx, q, account)
	if err != nil || account == sallyport.SystemAccount {
		return nil, err
	}
	var issuers []Issuer
	current := false
	for _, row := range rows {
		if len(row.certificates) == 0 {
			continue
		}
		i := Issuer{ID: row.id, Chain: row.chain, NotBefore: row.notBefore, NotAfter: row.notAfter,
			Revoked: row.revoked, CRL: a.crlURL(row.id), Problem: a.issuerProblem(row)}
		i.Current = !current && row.retired.IsZero() && i.Problem == ""
		current = current || i.Current
		issuers = append(issuers, i)
	}
	return issuers, nil
}

// issuerProblem says why the CA cannot sign; "" if it can.
func (a *Authority) issuerProblem(row issuerRow) string {
	if text := row.unusable(a.now()); text != "" {
		return text
	}
	if _, err := a.signer(row); err != nil {
		return "its key does not open, or is another's"
	}
	return ""
}

// crlURL is where others find the issuer's CRL, "" if they cannot.
func (a *Authority) crlURL(issuer string) string {
	if a.url == "" {
		return ""
	}
	return a.url + "/pki/crl/" + issuer + ".crl"
}

// issuerURL is where others find the issuer's certificate, "" if they cannot.
func (a *Authority) issuerURL(issuer string) string {
	if a.url == "" {
		return ""
	}
	return a.url + "/pki/issuer/" + issuer + ".crt"
}
