package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// build makes the certificate's content and signs it with a throw-away key of
// the type of the issuer's, which stays here. Nothing in it but the key is the
// client's.
func (a *Authority) build(c Certificate, key any, issuer *x509.Certificate) (*x509.Certificate, error) {
	template, err := a.template(c, key)
	if err != nil {
		return nil, err
	}
	signer, err := throwaway(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	standIn := *issuer
	standIn.PublicKey = nil // CreateCertificate would see that it is another's
	der, err := x509.CreateCertificate(rand.Reader, template, &standIn, key, signer)
	if err != nil {
		return nil, fmt.Errorf("building a certificate: %w", err)
	}
	built, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("building a certificate: %w", err)
	}
	return built, nil
}

// template is the profile of client certificates.
func (a *Authority) template(c Certificate, key any) (*x509.Certificate, error) {
	uri, err := url.Parse(c.SPIFFEID)
	if err != nil {
		return nil, fmt.Errorf("building a certificate: %w", err)
	}
	subjectKey, err := subjectKeyID(key)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: clientSerial(),
		Subject:      pkix.Name{Organization: []string{string(c.Account)}, CommonName: c.ServiceAccount},
		NotBefore:    c.NotBefore, NotAfter: c.NotAfter,
		BasicConstraintsValid: true, // and not a CA
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{uri},
		SubjectKeyId:          subjectKey,
	}
	if a.url != "" {
		t.CRLDistributionPoints = []string{a.crlURL(c.Issuer)}
		t.IssuingCertificateURL = []string{a.issuerURL(c.Issuer)}
	}
	return t, nil
}

// clientSerial is 128 random bits, and not zero.
func clientSerial() *big.Int {
	var b [16]byte
	for n := new(big.Int); ; {
		rand.Read(b[:])
		if n.SetBytes(b[:]).Sign() > 0 {
			return n
		}
	}
}

// subjectKeyID is the first 160 bits of the SHA-256 of the key (RFC 7093, 2 (1)).
func subjectKeyID(key any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// complete lints, signs and stores what was recorded, and gives what is stored
// when that was done before. iss and copied are nil where another request
// recorded it. The row is locked meanwhile: it is signed once, and what is
// revoked before is never signed.
func (a *Authority) complete(ctx context.Context, account sallyport.AccountID, id string, iss *issuing, copied *x509.Certificate) (Issued, error) {
	tx, err := a.pool.Begin(ctx)
	if err != nil {
		return Issued{}, &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the database cannot be reached; ask again with the same operation id", Err: err}
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	s, err := findForUpdate(ctx, tx, account, id)
	if err != nil {
		return Issued{}, err
	}
	missing := s.DER == nil
	if missing {
		if iss == nil {
			if iss, err = a.issuerOf(ctx, tx, s.Issuer); err != nil {
				return Issued{}, err
			}
		}
		if err := a.sign(&s, iss, copied); err != nil {
			return Issued{}, err
		}
		if err := storeSigned(ctx, tx, s.Certificate); err != nil {
			return Issued{}, err
		}
	}
	issued, err := a.issued(ctx, tx, s.Certificate, iss)
	if err != nil {
		return Issued{}, err
	}
	// As durable as what was recorded: who has the certificate is known by it.
	if err := pg.Commit(ctx, tx); err != nil {
		return Issued{}, fmt.Errorf("storing certificate %s: %w", id, err)
	}
	if missing {
		a.metrics.countIssued(issued.RenewedFrom != "")
	}
	return issued, nil
}

// issuerOf reads the issuer of a certificate that is to be completed.
func (a *Authority) issuerOf(ctx context.Context, tx pgx.Tx, id string) (*issuing, error) {
	row, err := findIssuer(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if problem := row.unusable(a.now()); problem != "" {
		return nil, sallyport.Conflict.Errorf("the certificate cannot be completed: its issuer cannot sign any more; issue a new one")
	}
	signer, err := a.signer(row)
	if err != nil {
		return nil, err
	}
	chain, err := a.presentedChain(ctx, tx, row)
	return &issuing{ID: id, Certificate: row.certificates[0], Signer: signer, Chain: chain}, err
}

// issued adds to a certificate what its TLS clients present.
func (a *Authority) issued(ctx context.Context, tx pgx.Tx, c Certificate, iss *issuing) (Issued, error) {
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER})
	if iss != nil {
		return Issued{c, append(leaf, iss.Chain...)}, nil
	}
	row, err := findIssuer(ctx, tx, c.Issuer)
	if err != nil {
		return Issued{}, err
	}
	chain, err := a.presentedChain(ctx, tx, row)
	return Issued{c, append(leaf, chain...)}, err
}

// sign lints a copy of what was recorded and then signs it.
func (a *Authority) sign(s *stored, iss *issuing, copied *x509.Certificate) error {
	switch state := s.State(a.now()); state {
	case Incomplete:
	default:
		return sallyport.Conflict.Errorf("the certificate %s was not signed when it was asked for, and now it is %s; issue a new one", s.ID, state)
	}
	if copied == nil {
		var err error
		if copied, err = copyOf(s.tbs, iss.Certificate); err != nil {
			return err
		}
	}
	if err := a.lint(s.Certificate, s.tbs, copied, iss.Certificate); err != nil {
		return err
	}
	der, err := assemble(s.tbs, iss.Signer, iss.Certificate)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(der)
	s.DER, s.Fingerprint = der, hex.EncodeToString(sum[:])
	return nil
}

// copyOf signs what was recorded with a throw-away key.
func copyOf(tbs []byte, issuer *x509.Certificate) (*x509.Certificate, error) {
	key, err := throwaway(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	der, err := assemble(tbs, key, nil)
	if err != nil {
		return nil, err
	}
	copied, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading what is to be signed: %w", err)
	}
	return copied, nil
}

// algorithmOf knows those that issuers sign with.
func algorithmOf(id asn1.ObjectIdentifier) (x509.SignatureAlgorithm, crypto.Hash, error) {
	for _, known := range []struct {
		id        asn1.ObjectIdentifier
		algorithm x509.SignatureAlgorithm
		hash      crypto.Hash
	}{
		{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256, crypto.SHA256},
		{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384, crypto.SHA384},
		{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512, crypto.SHA512},
		{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA, crypto.SHA256},
	} {
		if id.Equal(known.id) {
			return known.algorithm, known.hash, nil
		}
	}
	return 0, 0, fmt.Errorf("the signature algorithm %s is not one that issuers sign with", id)
}

// assemble signs recorded bytes, the DER of a TBSCertificate (RFC 5280, 4.1),
// as the signature algorithm that they name says, and puts them into a
// certificate as they are. The signature is checked with the issuer's
// certificate, unless that is nil.
func assemble(tbs []byte, signer crypto.Signer, issuer *x509.Certificate) (der []byte, err error) {
	var head struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    *big.Int
		Algorithm pkix.AlgorithmIdentifier
	}
	if _, err := asn1.Unmarshal(tbs, &head); err != nil {
		return nil, fmt.Errorf("reading what is to be signed: %w", err)
	}
	algorithm, hash, err := algorithmOf(head.Algorithm.Algorithm)
	if err != nil {
		return nil, err
	}
	h := hash.New()
	h.Write(tbs)
	signature, err := signer.Sign(rand.Reader, h.Sum(nil), hash)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	if issuer != nil {
		if err := issuer.CheckSignature(algorithm, tbs, signature); err != nil {
			return nil, fmt.Errorf("signing a certificate: the signature is not good: %w", err)
		}
	}
	der, err = asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, head.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return der, nil
}
