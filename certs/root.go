package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// RootParams says what root to make, or what request for one.
type RootParams struct {
	Name    string // the organisation's, at most 40 characters
	Years   int    // of its life, 1 to 30; zero: 10. Not for requests
	KeyType string // KeyP256 or KeyP384; "": KeyP384
}

// Root is a CA of the operator's, under which accounts' intermediates are made:
// a root of its own, or an intermediate that was signed elsewhere.
type Root struct {
	ID        string // credential.IssuerID
	Subject   string
	Chain     []byte // PEM, itself first; nil: its certificate was not signed, or not imported yet
	NotBefore time.Time
	NotAfter  time.Time
	Created   time.Time
	Retired   time.Time // new intermediates are made by others since then; zero: by it
	Current   bool
	Issuers   int    // good intermediates under it, at most MaxCounted
	Problem   string // why it cannot sign; "": it can
}

// MaxCounted is where Root.Issuers ends.
const MaxCounted = 100_000

var errNoRoot = sallyport.Unavailable.Errorf("there is no operator's root that could sign; the operator makes one with: sallyportd ca init")

// currentRoot is the operator's CA that signs new intermediates. Its error is
// Unavailable when there is none.
func (a *Authority) currentRoot(ctx context.Context, q pg.Querier) (*issuerRow, error) {
	rows, err := issuerRows(ctx, q, sallyport.SystemAccount)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.retired.IsZero() && row.unusable(a.now()) == "" {
			return &row, nil
		}
	}
	return nil, errNoRoot
}

// InitRoot makes the operator's first root: it answers AlreadyExists when there
// is one that signs.
func (a *Authority) InitRoot(ctx context.Context, caller sallyport.Caller, p RootParams) (Root, error) {
	return a.makeRoot(ctx, caller, p, false)
}

// RotateRoot makes a new root beside the others, and retires them: an account's
// next issue makes an intermediate under the new one. What was issued before
// stays good, and the old roots stay published as long as it is.
func (a *Authority) RotateRoot(ctx context.Context, caller sallyport.Caller, p RootParams) (Root, error) {
	return a.makeRoot(ctx, caller, p, true)
}

func (a *Authority) makeRoot(ctx context.Context, caller sallyport.Caller, p RootParams, rotate bool) (Root, error) {
	if err := a.checkRoot(caller, &p); err != nil {
		return Root{}, err
	}
	var d *draft
	_, err := a.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: "RecordRoot"}, func(tx *journal.Tx) error {
		if root, err := a.currentRoot(ctx, tx); err == nil && !rotate {
			return sallyport.AlreadyExists.Errorf("there is a root, %s; replace it with: sallyportd ca rotate", root.certificates[0].Subject)
		} else if err != nil && sallyport.KindOf(err) != sallyport.Unavailable {
			return err
		}
		key, err := newKey(p.KeyType)
		if err != nil {
			return err
		}
		if d, err = newDraft(rootTemplate(p.Name, p.Years, tx.Now()), nil, key.Public(), a); err != nil {
			return err
		}
		return a.record(ctx, tx, d, "", key)
	})
	if err != nil {
		return Root{}, err
	}
	recorded, err := findIssuer(ctx, a.pool, credential.IssuerID(d.copied))
	if err != nil {
		return Root{}, err
	}
	key, err := a.signer(recorded)
	if err != nil {
		return Root{}, err
	}
	cert, err := d.complete(key)
	if err != nil {
		return Root{}, err
	}
	return a.publishRoot(ctx, caller, "PublishRoot", []*x509.Certificate{cert})
}

// publishRoot makes the CA the current one.
func (a *Authority) publishRoot(ctx context.Context, caller sallyport.Caller, operation string, chain []*x509.Certificate) (Root, error) {
	var text bytes.Buffer
	for _, c := range chain {
		text.Write(encodePEM(c))
	}
	notBefore, notAfter := chainValidity(chain)
	id := credential.IssuerID(chain[0])
	_, err := a.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: operation}, func(tx *journal.Tx) error {
		if err := publishIssuer(ctx, tx, id, text.Bytes()); err != nil {
			return err
		}
		tx.Target(id)
		tx.Record(journal.Change{Type: "root", ID: id, After: map[string]any{
			"subject": chain[0].Subject.String(), "fingerprint": credential.Fingerprint(chain[0]), "not_after": notAfter}})
		return setIssuerLife(ctx, tx, id, notBefore, notAfter)
	})
	if err != nil {
		return Root{}, err
	}
	return a.root(ctx, id)
}

// chainValidity is when all of the chain is valid.
func chainValidity(chain []*x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = chain[0].NotBefore, chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotBefore.After(notBefore) {
			notBefore = c.NotBefore
		}
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return notBefore, notAfter
}

func (a *Authority) checkRoot(caller sallyport.Caller, p *RootParams) error {
	if err := a.operatorOnly(caller); err != nil {
		return err
	}
	if p.Years == 0 {
		p.Years = 10
	}
	if p.KeyType == "" {
		p.KeyType = KeyP384
	}
	p.Name = strings.TrimSpace(p.Name)
	switch {
	case p.Name == "" || utf8.RuneCountInString(p.Name) > 40 || strings.ContainsFunc(p.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return sallyport.InvalidField("name", "is the organisation's name, of at most 40 characters")
	case p.Years < 1 || p.Years > 30:
		return sallyport.InvalidField("years", "is between 1 and 30")
	case p.KeyType != KeyP256 && p.KeyType != KeyP384:
		return sallyport.InvalidField("key_type", "is %s or %s", KeyP256, KeyP384)
	}
	return nil
}

func (a *Authority) operatorOnly(caller sallyport.Caller) error {
	if caller.Principal.Kind != sallyport.Operator {
		return sallyport.PermissionDenied.Errorf("only the operator may change the CAs of the service")
	}
	if a.vault == nil {
		return sallyport.Conflict.Errorf("the CAs' keys are sealed with the operator's key: give --operator-key")
	}
	return nil
}

// CheckKey answers Conflict when the operator's key is another than the one that
// sealed the keys of the operator's CAs: what a service with it sealed would
// open for no other.
func (a *Authority) CheckKey(ctx context.Context) error {
	rows, err := issuerRows(ctx, a.pool, sallyport.SystemAccount)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.sealedKey != nil && !a.vault.Has(row.sealedKey) {
			return sallyport.Conflict.Errorf("the operator's key is not the one that the secrets in this database were sealed with; give the file that the service ran with before")
		}
	}
	return nil
}

// RetireRoot ends a root's making new intermediates. It answers Conflict when no
// other could.
func (a *Authority) RetireRoot(ctx context.Context, caller sallyport.Caller, id string) (Root, error) {
	if err := a.operatorOnly(caller); err != nil {
		return Root{}, err
	}
	_, err := a.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: "RetireRoot", Request: []byte(id)}, func(tx *journal.Tx) error {
		rows, err := issuerRows(ctx, tx, sallyport.SystemAccount)
		if err != nil {
			return err
		}
		found, others := false, false
		for _, row := range rows {
			switch {
			case row.id == id && !row.retired.IsZero():
				return sallyport.Conflict.Errorf("it was retired at %s", row.retired.Format(time.RFC3339))
			case row.id == id:
				found = true
				others = others || len(row.certificates) == 0 // a request that is given up
			default:
				others = others || row.retired.IsZero() && a.issuerProblem(row) == ""
			}
		}
		if !found {
			return sallyport.NotFound.Errorf("there is no such root; see: sallyportd ca list")
		}
		if !others {
			return sallyport.Conflict.Errorf("it is the only one that signs; make its successor with: sallyportd ca rotate")
		}
		tx.Target(id)
		tx.Record(journal.Change{Type: "root", ID: id, After: map[string]any{"retired": true}})
		return retireIssuer(ctx, tx, id)
	})
	if err != nil {
		return Root{}, err
	}
	return a.root(ctx, id)
}

func (a *Authority) root(ctx context.Context, id string) (Root, error) {
	all, err := a.ListRoots(ctx)
	if err != nil {
		return Root{}, err
	}
	for _, r := range all {
		if r.ID == id {
			return r, nil
		}
	}
	return Root{}, sallyport.NotFound.Errorf("there is no such root; see: sallyportd ca list")
}

// ListRoots lists the operator's CAs, newest first.
func (a *Authority) ListRoots(ctx context.Context) ([]Root, error) {
	rows, err := issuerRows(ctx, a.pool, sallyport.SystemAccount)
	if err != nil {
		return nil, err
	}
	roots := make([]Root, 0, len(rows))
	current := false
	for _, row := range rows {
		r := Root{ID: row.id, Chain: row.chain, NotBefore: row.notBefore, NotAfter: row.notAfter, Created: row.created,
			Retired: row.retired, Problem: a.issuerProblem(row)}
		if len(row.certificates) > 0 {
			r.Subject = row.certificates[0].Subject.String()
		}
		r.Current = !current && row.retired.IsZero() && row.unusable(a.now()) == ""
		current = current || r.Current
		if r.Issuers, err = countUnder(ctx, a.pool, row.id, a.now(), MaxCounted); err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// Roots are all CA certificates of the operator's that have not expired, retired
// ones and those above one that was signed elsewhere included. What chains to
// them is no customer's own CA.
func (a *Authority) Roots(ctx context.Context, q pg.Querier) ([]*x509.Certificate, error) {
	rows, err := issuerRows(ctx, q, sallyport.SystemAccount)
	if err != nil {
		return nil, err
	}
	var roots []*x509.Certificate
	for _, row := range rows {
		for _, c := range row.certificates {
			if !a.now().After(c.NotAfter) {
				roots = append(roots, c)
			}
		}
	}
	return roots, nil
}

// publishedRoots are the trust anchors, PEM, that verify what the managed CA has
// issued: the current root's, and those of retired ones as long as there are
// good intermediates under them.
func (a *Authority) publishedRoots(ctx context.Context, q pg.Querier) ([]byte, error) {
	rows, err := issuerRows(ctx, q, sallyport.SystemAccount)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	shown := map[string]bool{}
	for _, row := range rows {
		if row.unusable(a.now()) != "" {
			continue
		}
		if !row.retired.IsZero() {
			n, err := countUnder(ctx, q, row.id, a.now(), 1)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				continue
			}
		}
		anchor := encodePEM(row.certificates[len(row.certificates)-1])
		if !shown[string(anchor)] {
			shown[string(anchor)] = true
			text.Write(anchor)
		}
	}
	return text.Bytes(), nil
}
