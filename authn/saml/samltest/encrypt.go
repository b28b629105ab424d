package samltest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // to show that it is refused
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/beevik/etree"
)

// Encryption is how an assertion is encrypted. The names are the ends of the
// algorithms' addresses.
type Encryption struct {
	To     *x509.Certificate
	Data   string // aes256-gcm, aes128-cbc, tripledes-cbc, …
	Key    string // rsa-oaep-mgf1p, rsa-oaep, rsa-1_5
	SHA256 bool   // OAEP's digest; the mask's is SHA-1 for rsa-oaep-mgf1p, SHA-256 too for rsa-oaep
	// Sibling puts the EncryptedKey beside the EncryptedData, as some providers do.
	Sibling bool
	// Garble changes the ciphertext, its nonce included.
	Garble func([]byte) []byte
}

// Element gives the EncryptedAssertion of a plaintext, which need not be an assertion.
func (e *Encryption) Element(plain []byte) (*etree.Element, error) {
	secret := make([]byte, map[string]int{"aes128": 16, "aes192": 24, "aes256": 32, "tripledes": 24}[strings.Split(e.Data, "-")[0]])
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	data, err := seal(secret, plain, e.Data)
	if err != nil {
		return nil, err
	}
	if e.Garble != nil {
		data = e.Garble(data)
	}
	wrapped, more, err := e.wrap(secret)
	if err != nil {
		return nil, err
	}
	namespace := "http://www.w3.org/2001/04/xmlenc#"
	if strings.HasSuffix(e.Data, "gcm") {
		namespace = "http://www.w3.org/2009/xmlenc11#"
	}
	keyNamespace := "http://www.w3.org/2001/04/xmlenc#"
	if e.Key == "rsa-oaep" {
		keyNamespace = "http://www.w3.org/2009/xmlenc11#"
	}
	key := fmt.Sprintf(`<xenc:EncryptedKey xmlns:xenc="http://www.w3.org/2001/04/xmlenc#"><xenc:EncryptionMethod Algorithm="%s%s">%s</xenc:EncryptionMethod><xenc:CipherData><xenc:CipherValue>%s</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey>`,
		keyNamespace, e.Key, more, base64.StdEncoding.EncodeToString(wrapped))
	inside, beside := `<ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">`+key+`</ds:KeyInfo>`, ""
	if e.Sibling {
		inside, beside = "", key
	}
	d := etree.NewDocument()
	err = d.ReadFromString(fmt.Sprintf(`<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"><xenc:EncryptedData xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Type="http://www.w3.org/2001/04/xmlenc#Element"><xenc:EncryptionMethod Algorithm="%s%s"/>%s<xenc:CipherData><xenc:CipherValue>%s</xenc:CipherValue></xenc:CipherData></xenc:EncryptedData>%s</saml:EncryptedAssertion>`,
		namespace, e.Data, inside, base64.StdEncoding.EncodeToString(data), beside))
	return d.Root(), err
}

// wrap encrypts the key, and gives what EncryptionMethod says besides.
func (e *Encryption) wrap(secret []byte) (wrapped []byte, more string, err error) {
	public, ok := e.To.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, "", fmt.Errorf("%T is no RSA key", e.To.PublicKey)
	}
	if e.Key == "rsa-1_5" {
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, public, secret) //nolint:staticcheck // to show that it is refused
		return wrapped, "", err
	}
	digest, mask := crypto.SHA1, crypto.SHA1
	if e.SHA256 {
		digest = crypto.SHA256
		more = `<ds:DigestMethod xmlns:ds="http://www.w3.org/2000/09/xmldsig#" Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>`
		if e.Key == "rsa-oaep" {
			mask = crypto.SHA256
			more += `<xenc11:MGF xmlns:xenc11="http://www.w3.org/2009/xmlenc11#" Algorithm="http://www.w3.org/2009/xmlenc11#mgf1sha256"/>`
		}
	}
	wrapped, err = rsa.EncryptOAEPWithOptions(rand.Reader, public, secret, &rsa.OAEPOptions{Hash: digest, MGFHash: mask})
	return wrapped, more, err
}

func seal(secret, plain []byte, name string) ([]byte, error) {
	if strings.HasSuffix(name, "gcm") {
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, aead.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return nil, err
		}
		return aead.Seal(nonce, nonce, plain, nil), nil
	}
	block, err := aes.NewCipher(secret)
	if name == "tripledes-cbc" {
		block, err = des.NewTripleDESCipher(secret) //nolint:gosec // to show that it is refused
	}
	if err != nil {
		return nil, err
	}
	padding := block.BlockSize() - len(plain)%block.BlockSize()
	padded := append(append([]byte(nil), plain...), make([]byte, padding)...)
	padded[len(padded)-1] = byte(padding)
	out := make([]byte, block.BlockSize()+len(padded))
	if _, err := rand.Read(out[:block.BlockSize()]); err != nil {
		return nil, err
	}
	cipher.NewCBCEncrypter(block, out[:block.BlockSize()]).CryptBlocks(out[block.BlockSize():], padded)
	return out, nil
}
