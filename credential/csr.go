package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxCSR        = 16 << 10
	maxManagedRSA = 4096
	minExponent   = 65537
)

// ParseCSR reads a certificate request, PEM or DER and nothing beside it, at
// most 16 KB. Its signature is checked, which proves that the sender has the
// key. Of all that it asks for only the key counts. The error is Invalid.
func ParseCSR(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxCSR {
		return nil, sallyport.Invalid.Errorf("the certificate request has %d bytes; at most %d are possible", len(data), maxCSR)
	}
	der, err := csrDER(data)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, &sallyport.Error{Kind: sallyport.Invalid, Msg: "this is not a PKCS #10 certificate request with a key that is understood; make one with `sallyport cert issue` or `openssl req -new`", Err: err}
	}
	// The key comes first: what a signature costs to check is the sender's choice.
	if err := AllowedKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if !strongSignature(csr.SignatureAlgorithm) {
		return nil, sallyport.Invalid.Errorf("the certificate request is signed with %s; sign it with SHA-256 or stronger", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, &sallyport.Error{Kind: sallyport.Invalid, Msg: "the certificate request is not signed by the key in it; make it anew with the key that the certificate is for", Err: err}
	}
	return csr, nil
}

// csrDER takes the request out of its PEM, if it is in PEM.
func csrDER(data []byte) ([]byte, error) {
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		return nil, sallyport.Invalid.Errorf("the certificate request is empty")
	}
	if text[0] == 0x30 { // a SEQUENCE; a PEM begins with a dash
		return data, nil
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil || !bytes.HasPrefix(text, []byte(pemBegin)):
		return nil, sallyport.Invalid.Errorf("the certificate request is neither PEM nor DER")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, sallyport.Invalid.Errorf("this is a PEM block of another kind than CERTIFICATE REQUEST; send the request, and never a private key")
	case len(rest) > 0:
		return nil, sallyport.Invalid.Errorf("there is something after the certificate request; send the request alone")
	}
	return block.Bytes, nil
}

// AllowedKey says why a managed certificate cannot have this public key: P-256,
// P-384 and RSA of 2048 to 4096 bits are possible. The error is Invalid.
func AllowedKey(pub any) error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if problem := keyFlaw(key); problem != "" {
			return sallyport.Invalid.Errorf("the request %s; use P-256", problem)
		}
		if key.N.BitLen() > maxManagedRSA {
			return sallyport.Invalid.Errorf("the request has an RSA key of %d bits; at most %d are possible; use P-256", key.N.BitLen(), maxManagedRSA)
		}
		if key.E < minExponent {
			return sallyport.Invalid.Errorf("the request has an RSA key with the exponent %d; at least %d is needed; use P-256", key.E, minExponent)
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return sallyport.Invalid.Errorf("the request has an ECDSA key on the curve %s; P-256 and P-384 are possible", key.Curve.Params().Name)
	}
	return sallyport.Invalid.Errorf("the request has a key that is neither ECDSA nor RSA; use P-256, P-384 or RSA of %d to %d bits", minRSA, maxManagedRSA)
}
