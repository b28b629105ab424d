package token

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Authenticate proves a caller by a token, which its client presented together with
// certs over TLS, the leaf first, nil without. The caller has no access yet. Every
// refusal is Unauthenticated. The signature of a token is checked once, and all
// that it hangs on each time.
func (i *Issuer) Authenticate(ctx context.Context, q pg.Querier, raw string, certs []*x509.Certificate, from netip.Addr) (sallyport.Caller, error) {
	t, err := i.verify(ctx, q, raw)
	if err != nil {
		return sallyport.Caller{}, err
	}
	if t.Certificate != nil {
		if len(certs) == 0 {
			return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token is bound to a client certificate; connect with that certificate")
		}
		if sum := sha256.Sum256(certs[0].Raw); !bytes.Equal(sum[:], t.Certificate) {
			return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token is bound to another client certificate; connect with the one that it was got with")
		}
		if err := i.certificate(ctx, q, t.Account, certs); err != nil {
			return sallyport.Caller{}, err
		}
	}
	return i.stand(ctx, q, t, from)
}

// verify checks the token's signature, or finds that it was checked, and that the
// key that made it still counts.
func (i *Issuer) verify(ctx context.Context, q pg.Querier, raw string) (credential.Token, error) {
	if i.url == "" {
		return credential.Token{}, sallyport.Unauthenticated.Errorf("this service takes no tokens; send Authorization: Bearer <API key>")
	}
	if len(raw) > credential.MaxToken {
		return credential.VerifyToken(raw, nil, i.now())
	}
	hash := sha256.Sum256([]byte(raw))
	if t, ok := i.verified.byHash(hash); ok {
		return t, i.keyCounts(ctx, q, t)
	}
	var failed error
	t, err := credential.VerifyToken(raw, func(kid string) (credential.TokenKey, bool) {
		if !printable(kid) { // the database takes no other text
			return credential.TokenKey{}, false
		}
		row, err := findKey(ctx, q, kid)
		if err != nil {
			if !errors.Is(err, sallyport.NotFound) {
				failed = err
			}
			return credential.TokenKey{}, false
		}
		key, err := row.check()
		failed = err
		return key, err == nil
	}, i.now())
	if failed != nil {
		return credential.Token{}, failed
	}
	if err != nil {
		return credential.Token{}, err
	}
	i.verified.add(hash, t)
	return t, nil
}

func (i *Issuer) keyCounts(ctx context.Context, q pg.Querier, t credential.Token) error {
	_, err := findKey(ctx, q, t.Signer)
	if errors.Is(err, sallyport.NotFound) {
		return sallyport.Unauthenticated.Errorf("the key that signed the token was revoked; get a new token")
	}
	return err
}

// Reauthenticate finds out whether a caller that was proved by a token earlier
// still is, within the transaction q. The caller it gives has no access yet.
func (i *Issuer) Reauthenticate(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	t, ok := i.verified.byID(caller.Credential.ID)
	if !ok { // it was proved in this process, and many thousand others since
		return sallyport.Caller{}, sallyport.Unavailable.Errorf("the token must be checked again; try again")
	}
	if t.Account != caller.Account || t.Principal != caller.Principal {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token is another's; get a new one")
	}
	if err := i.keyCounts(ctx, q, t); err != nil {
		return sallyport.Caller{}, err
	}
	return i.stand(ctx, q, t, caller.From)
}

// stand checks what may have ended the token since it was issued. Only who has the
// token reads why.
func (i *Issuer) stand(ctx context.Context, q pg.Querier, t credential.Token, from netip.Addr) (sallyport.Caller, error) {
	if !i.now().Before(t.Expires) {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token expired at %s; get a new one", t.Expires.Format(time.RFC3339))
	}
	owner, err := i.standing(ctx, q, t.Account, t.Principal)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return sallyport.Caller{}, err
	}
	switch {
	case err != nil:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the service account of the token is gone; ask an owner or admin of the account")
	case owner.Status != object.Active:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the service account of the token is %s; ask an owner or admin of the account", owner.Status)
	case owner.Epoch != t.Epoch:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token was ended together with all credentials of its service account; get a new one")
	case owner.Account != object.Active:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the account %s is %s, and takes no tokens", t.Account, owner.Account)
	}
	caller := sallyport.Caller{Account: t.Account, Principal: t.Principal, From: from}
	if t.Key != "" {
		caller.Credential = sallyport.Credential{Kind: i.apiKeys.Kind, ID: t.Key}
		if caller, err = i.apiKeys.Reauthenticate(ctx, q, caller); err != nil {
			return sallyport.Caller{}, err
		}
	} else if err := i.ruleStands(ctx, q, t); err != nil {
		return sallyport.Caller{}, err
	}
	caller.Credential = sallyport.Credential{Kind: CredentialKind, ID: t.ID}
	caller.Limits = narrow(caller.Limits, t)
	return caller, nil
}

func (i *Issuer) ruleStands(ctx context.Context, q pg.Querier, t credential.Token) error {
	rule, err := findRule(ctx, q, t.Account, t.Rule)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return err
	}
	if err != nil || !rule.Enabled || rule.Version != t.RuleVersion || rule.ServiceAccount != t.Principal.ID {
		return sallyport.Unauthenticated.Errorf("the federation rule %s, by which the token was got, was changed, disabled or deleted; get a new token", t.Rule)
	}
	return nil
}

// narrow gives what both the limits and the token allow.
func narrow(l sallyport.Limits, t credential.Token) sallyport.Limits {
	l.ReadOnly = l.ReadOnly || t.ReadOnly
	switch {
	case t.Namespaces == nil:
	case l.Namespaces == nil:
		l.Namespaces = t.Namespaces
	default:
		both := []sallyport.NamespaceID{} // not nil: that would be all
		for _, n := range t.Namespaces {
			if slices.Contains(l.Namespaces, n) {
				both = append(both, n)
			}
		}
		l.Namespaces = both
	}
	return l
}
