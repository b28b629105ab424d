package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"go.temporal.io/cloud-sdk/api/operation/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// attempt is a key that a certificate is asked for. Asking again with the same
// operation ids gives the certificate of a request whose answer was lost.
type attempt struct {
	secret, csr  []byte
	renew, issue string
}

// obtain gets a certificate for a new key: as the successor of the one that is
// held, while it lives and has any; otherwise with the login.
func (a *agent) obtain(ctx context.Context) (version, error) {
	if a.asked == nil {
		secret, csr, err := newKey(a.KeyType)
		if err != nil {
			return version{}, err
		}
		a.asked = &attempt{secret, csr, sallyport.NewID(sallyport.OperationPrefix), sallyport.NewID(sallyport.OperationPrefix)}
	}
	p, err := loadProfile(a.session.profile) // each time: there may be another login by now
	if err != nil {
		return version{}, err
	}
	ways := a.ways()
	if ways[0] && a.live() { // the login would give one whatever became of the one that is held
		if revoked := a.saidRevoked(ctx, p); revoked != nil {
			if err := a.mayFollow(ctx, p, revoked); err != nil {
				return version{}, err
			}
		}
	}
	var refused error
	for _, issue := range ways {
		ask := a.renewed
		if issue {
			ask = a.issued
		}
		v, err := ask(ctx, p)
		switch {
		case err == nil:
			return v, nil
		case transient(err) || ctx.Err() != nil:
			return version{}, err
		case saysRevoked(err) && !issue:
			if err := a.mayFollow(ctx, p, err); err != nil {
				return version{}, err
			}
		}
		if issue { // it says more: whether any certificate is to be had
			refused = errors.Join(err, refused)
		} else {
			refused = errors.Join(refused, err)
		}
	}
	return version{}, refused
}

// live: the certificate that is held has not expired.
func (a *agent) live() bool {
	return a.held != nil && a.session.now().Before(a.held.pair.Leaf.NotAfter)
}

// saidRevoked asks the service whether the certificate that is held was revoked,
// and gives what it says; nil when it was not, or that cannot be found out.
func (a *agent) saidRevoked(ctx context.Context, p profile) error {
	client, err := dial(a.own(p), a.session.timeout)
	if err != nil {
		return nil
	}
	defer client.close()
	_, err = client.admin.ListIssuers(ctx, &adminv1.ListIssuersRequest{})
	if saysRevoked(err) {
		return err
	}
	return nil
}

// mayFollow decides whether the login may get a successor of the certificate that
// is held, which revoked says was revoked: only when that was done to the CA that
// made it, with all that it made, and not to the certificate as well, whichever
// came first. What cannot be found out counts as no.
func (a *agent) mayFollow(ctx context.Context, p profile, revoked error) error {
	ended := &revokedError{a.Dir, revoked}
	client, err := dial(p, a.session.timeout)
	if err != nil {
		return ended
	}
	defer client.close()
	own, err := client.admin.GetCertificate(ctx, &adminv1.GetCertificateRequest{CertificateId: a.held.record.GetId()})
	if err == nil {
		var found *adminv1.ListIssuersResponse
		if found, err = client.admin.ListIssuers(ctx, &adminv1.ListIssuersRequest{}); err == nil && byIssuer(own.GetCertificate(), found.GetIssuers()) {
			return nil
		}
	}
	if transient(err) {
		return err
	}
	return ended
}

// byIssuer: the certificate has no revocation of its own. It tells then when its
// issuer was revoked.
func byIssuer(c *adminv1.Certificate, issuers []*adminv1.Issuer) bool {
	return slices.ContainsFunc(issuers, func(i *adminv1.Issuer) bool {
		return i.GetId() == c.GetIssuerId() && i.GetRevokedTime() != nil && proto.Equal(i.GetRevokedTime(), c.GetRevokedTime())
	})
}

// own is the login with the certificate that is held in its place.
func (a *agent) own(p profile) profile {
	return p.with(filepath.Join(a.held.path, certName), filepath.Join(a.held.path, secretName))
}

// ways are how a certificate can be had, the best first. False: by renewing the
// one that is held, while it lives. True: with the login, when there is none, or
// when a successor would not live as long as is wanted.
func (a *agent) ways() []bool {
	if !a.live() {
		return []bool{true}
	}
	until := a.held.record.GetRenewableUntil()
	if a.heldLife() < time.Duration(a.Lifetime)-slack || until != nil && until.AsTime().Before(a.session.now().Add(time.Duration(a.Lifetime)-slack)) {
		return []bool{true, false}
	}
	return []bool{false, true}
}

// slack is by how much a life may differ from what was asked for: certificates
// have whole seconds.
const slack = 10 * time.Second

// heldLife is how long the certificate was made for.
func (a *agent) heldLife() time.Duration {
	made := a.held.pair.Leaf.NotBefore
	if created := a.held.record.GetCreatedTime(); created != nil {
		made = created.AsTime()
	}
	return a.held.pair.Leaf.NotAfter.Sub(made)
}

// transient: the same request may succeed later.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}

func (a *agent) renewed(ctx context.Context, p profile) (version, error) {
	client, err := dial(a.own(p), a.session.timeout)
	if err != nil {
		return version{}, err
	}
	defer client.close()
	request := &adminv1.RenewCertificateRequest{Csr: a.asked.csr, AsyncOperationId: a.asked.renew} // as long as the old one was made for
	if time.Duration(a.Lifetime) < a.heldLife()-slack {
		request.Lifetime = durationpb.New(time.Duration(a.Lifetime))
	}
	made, err := client.admin.RenewCertificate(ctx, request)
	if err != nil {
		return version{}, err
	}
	return a.complete(ctx, client, made)
}

func (a *agent) issued(ctx context.Context, p profile) (version, error) {
	client, err := dial(p, a.session.timeout)
	if err != nil {
		return version{}, err
	}
	defer client.close()
	made, err := client.admin.IssueCertificate(ctx, &adminv1.IssueCertificateRequest{ServiceAccountId: a.ServiceAccount, Csr: a.asked.csr,
		Lifetime: durationpb.New(time.Duration(a.Lifetime)), AsyncOperationId: a.asked.issue})
	if err != nil {
		return version{}, err
	}
	return a.complete(ctx, client, made)
}

// complete waits until authorizers know the certificate's issuer, which may be
// new, before workers can read it; and adds the roots. Those from before are
// kept when the certificate's owner may not see them.
func (a *agent) complete(ctx context.Context, client *client, made granted) (version, error) {
	v := version{secret: a.asked.secret, chain: made.GetChain(), record: made.GetCertificate()}
	if err := client.settle(ctx, &operation.AsyncOperation{Id: made.GetAsyncOperationId()}); err != nil {
		a.log.Warn("the certificate is made; whether authorizers know of it is not known", "error", err)
	}
	found, err := client.admin.ListIssuers(ctx, &adminv1.ListIssuersRequest{})
	if err == nil {
		v.roots = found.GetRoots()
		return v, nil
	}
	a.log.Warn("reading the roots; ca.crt stays as it is", "error", err)
	if a.held != nil {
		if v.roots, err = readBounded(filepath.Join(a.held.path, rootsName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return version{}, err
		}
	}
	return v, nil
}
