package saml

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"encoding/base64"
	"slices"

	"github.com/beevik/etree"
)

const (
	oaepMGF1P = nsEncryption + "rsa-oaep-mgf1p" // MGF1 with SHA-1, whatever the digest
	oaep      = nsXMLEnc11 + "rsa-oaep"

	maxEncryptedKeys = 3 // of one assertion; each is tried with each of our keys
)

// dataMethods are the ciphers that are taken, by their key's length. RSA 1.5 and 3DES
// are not: the first tells by its errors what it decrypted (Bleichenbacher), the
// second's blocks repeat.
var dataMethods = map[string]struct {
	key int
	gcm bool
}{
	nsXMLEnc11 + "aes128-gcm": {16, true}, nsXMLEnc11 + "aes192-gcm": {24, true}, nsXMLEnc11 + "aes256-gcm": {32, true},
	nsEncryption + "aes128-cbc": {16, false}, nsEncryption + "aes192-cbc": {24, false}, nsEncryption + "aes256-cbc": {32, false},
}

var oaepDigests = map[string]crypto.Hash{
	"": crypto.SHA1, legacyDigest: crypto.SHA1, digestMethods[0]: crypto.SHA256, digestMethods[1]: crypto.SHA384, digestMethods[2]: crypto.SHA512,
}

var oaepMasks = map[string]crypto.Hash{
	"": crypto.SHA1, nsXMLEnc11 + "mgf1sha1": crypto.SHA1, nsXMLEnc11 + "mgf1sha256": crypto.SHA256,
	nsXMLEnc11 + "mgf1sha384": crypto.SHA384, nsXMLEnc11 + "mgf1sha512": crypto.SHA512,
}

// errDecrypt is all that is said about anything that depends on our keys or on the
// plaintext, in the audit log too: each difference is an oracle.
func errDecrypt() error {
	return refuse(StepDecryption, "the assertion could not be decrypted with our keys")
}

// assertionOf finds the response's one assertion, decrypts it if need be and verifies
// its signature. One of response and assertion is signed at least.
func (v *validation) assertionOf(root *etree.Element, responseSigned bool) (*etree.Element, error) {
	assertions, encrypted := all(root, nsAssertion, "Assertion"), all(root, nsAssertion, "EncryptedAssertion")
	if len(assertions)+len(encrypted) != 1 {
		return nil, refuse(StepStructure, "there is no assertion")
	}
	var element *etree.Element
	if len(encrypted) == 1 {
		plain, err := v.decrypt(encrypted[0], responseSigned)
		if err != nil {
			return nil, err
		}
		// What was encrypted is as strange as what came in: anybody can encrypt to us.
		if element, err = parseResponse(plain); err != nil {
			return nil, errDecrypt()
		}
		if err := checkStructure(element, "Assertion"); err != nil {
			return nil, err
		}
		v.encrypted = true
	} else {
		element = assertions[0]
	}
	covered, assertionSigned, err := v.verify(element)
	if err != nil {
		return nil, err
	}
	if !responseSigned && !assertionSigned {
		return nil, refuse(StepSignature, "neither the response nor the assertion is signed")
	}
	return covered, nil
}

// decrypt gives the plaintext of an EncryptedAssertion. crewjam's xmlenc is not used: it
// takes RSA 1.5 and 3DES by default, lacks two of GCM's three key lengths, panics on a
// short ciphertext and takes the digest for the mask too.
func (v *validation) decrypt(el *etree.Element, responseSigned bool) ([]byte, error) {
	data := only(el, nsEncryption, "EncryptedData")
	if data == nil {
		return nil, refuse(StepDecryption, "the encrypted assertion has no EncryptedData")
	}
	if kind := attr(data, "Type"); kind != "" && kind != nsEncryption+"Element" {
		return nil, refuse(StepDecryption, "what is encrypted is %s, not an element", quote(kind))
	}
	method, name := encryptionMethod(data)
	spec, known := dataMethods[name]
	if !known || method == nil {
		return nil, refuse(StepDecryption, "it is encrypted by %s, which is not taken", quote(name))
	}
	// CBC is not authenticated: whoever may change a ciphertext and see whether it was
	// taken reads it byte by byte. Under a verified signature nobody can change it.
	if !spec.gcm && !responseSigned {
		return nil, refuse(StepDecryption, "it is encrypted by CBC in a response that is not signed: let the identity provider sign the response, or encrypt by AES-GCM")
	}
	keys := all(el, nsEncryption, "EncryptedKey")
	if info := only(data, nsSignature, "KeyInfo"); info != nil {
		keys = append(keys, all(info, nsEncryption, "EncryptedKey")...)
	}
	if len(keys) > maxEncryptedKeys {
		return nil, refuse(StepDecryption, "it is encrypted to more than %d keys", maxEncryptedKeys)
	}
	ciphertext, ok := cipherValue(data)
	if !ok || len(keys) == 0 || len(v.c.Keys) == 0 {
		return nil, errDecrypt()
	}
	for _, key := range keys {
		options, err := oaepOptions(key)
		if err != nil {
			return nil, err
		}
		wrapped, ok := cipherValue(key)
		if !ok {
			return nil, errDecrypt()
		}
		for _, own := range v.ownKeys(key) {
			secret, err := own.Private.Decrypt(nil, wrapped, options)
			if err != nil || len(secret) != spec.key {
				continue
			}
			if plain, ok := open(secret, ciphertext, spec.gcm); ok {
				v.decryptedBy = own.Certificate
				return plain, nil
			}
		}
	}
	return nil, errDecrypt()
}

// ownKeys are our keys, the one that the EncryptedKey names first.
func (v *validation) ownKeys(key *etree.Element) []Key {
	named := namedCertificate(key)
	i := slices.IndexFunc(v.c.Keys, func(k Key) bool { return bytes.Equal(k.Certificate.Raw, named) })
	if i <= 0 {
		return v.c.Keys
	}
	list := []Key{v.c.Keys[i]}
	list = append(list, v.c.Keys[:i]...)
	return append(list, v.c.Keys[i+1:]...)
}

func encryptionMethod(el *etree.Element) (*etree.Element, string) {
	method := only(el, nsEncryption, "EncryptionMethod")
	if method == nil {
		return nil, ""
	}
	return method, attr(method, "Algorithm")
}

// oaepOptions reads how a key was wrapped (XML Encryption 1.1 §5.5.2).
func oaepOptions(key *etree.Element) (*rsa.OAEPOptions, error) {
	method, name := encryptionMethod(key)
	if method == nil || name != oaepMGF1P && name != oaep {
		return nil, refuse(StepDecryption, "its key is encrypted by %s, which is not taken", quote(name))
	}
	digest, mask := "", ""
	if el := only(method, nsSignature, "DigestMethod"); el != nil {
		digest = attr(el, "Algorithm")
	}
	if el := only(method, nsXMLEnc11, "MGF"); el != nil && name == oaep {
		mask = attr(el, "Algorithm")
	}
	hash, knownHash := oaepDigests[digest]
	maskHash, knownMask := oaepMasks[mask]
	if !knownHash || !knownMask || len(all(method, nsEncryption, "OAEPparams")) > 0 {
		return nil, refuse(StepDecryption, "its key is encrypted by RSA-OAEP with %s and %s, which are not taken", quote(digest), quote(mask))
	}
	return &rsa.OAEPOptions{Hash: hash, MGFHash: maskHash}, nil
}

// cipherValue takes a value and no reference, which would be fetched from anywhere.
func cipherValue(el *etree.Element) ([]byte, bool) {
	holder := only(el, nsEncryption, "CipherData")
	if holder == nil || !shape(holder, nsEncryption, "CipherValue") {
		return nil, false
	}
	value, ok := text(holder.ChildElements()[0])
	if !ok {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(stripSpace(value))
	return raw, err == nil
}

// open decrypts the data. Both forms begin with what makes each encryption another:
// twelve bytes of nonce, or a block.
func open(secret, ciphertext []byte, gcm bool) ([]byte, bool) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, false
	}
	if gcm {
		aead, err := cipher.NewGCM(block)
		if err != nil || len(ciphertext) < aead.NonceSize() {
			return nil, false
		}
		plain, err := aead.Open(nil, ciphertext[:aead.NonceSize()], ciphertext[aead.NonceSize():], nil)
		return plain, err == nil
	}
	if len(ciphertext) < 2*aes.BlockSize || len(ciphertext)%aes.BlockSize != 0 {
		return nil, false
	}
	plain := make([]byte, len(ciphertext)-aes.BlockSize)
	cipher.NewCBCDecrypter(block, ciphertext[:aes.BlockSize]).CryptBlocks(plain, ciphertext[aes.BlockSize:])
	// The last byte counts the padding; the others of it are anything (XML Encryption §5.2.1).
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > aes.BlockSize {
		return nil, false
	}
	return plain[:len(plain)-padding], true
}
