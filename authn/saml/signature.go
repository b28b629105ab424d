package saml

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"

	"github.com/beevik/etree"
	"github.com/russellhaering/goxmldsig"
)

// What a signature may be made with. HMAC would take a certificate, which is public,
// for the secret; other transforms (XSLT, XPath, base64) and canonicalisations let the
// signed bytes be other ones than are read, or programs run.
var (
	signatureMethods = []string{
		dsig.RSASHA256SignatureMethod, dsig.RSASHA384SignatureMethod, dsig.RSASHA512SignatureMethod,
		dsig.ECDSASHA256SignatureMethod, dsig.ECDSASHA384SignatureMethod, dsig.ECDSASHA512SignatureMethod,
	}
	digestMethods = []string{
		"http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2001/04/xmlenc#sha512",
	}
)

const (
	legacySignature = dsig.RSASHA1SignatureMethod
	legacyDigest    = "http://www.w3.org/2000/09/xmldsig#sha1"
	enveloped       = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
)

// verify checks the element's signature. What it gives is made of the bytes that the
// signature covers and of nothing else: whoever reads el afterwards reads what was
// not checked. Without a signature it is el itself, and signed is false; a signature
// that does not verify is never none.
func (v *validation) verify(el *etree.Element) (covered *etree.Element, signed bool, _ error) {
	list := all(el, nsSignature, "Signature")
	if len(list) == 0 {
		return el, false, nil
	}
	if len(list) > 1 {
		return nil, false, refuse(StepSignature, "%s has two signatures", quote(el.Tag))
	}
	if err := v.checkSignature(el, list[0]); err != nil {
		return nil, false, err
	}
	candidates, err := v.candidates(list[0])
	if err != nil {
		return nil, false, err
	}
	var last error
	for _, certificate := range candidates {
		covered, err := verifyWith(el, certificate)
		if err != nil {
			last = err
			continue
		}
		if covered == nil || !is(covered, el.NamespaceURI(), el.Tag) || attr(covered, "ID") != attr(el, "ID") ||
			len(all(covered, nsSignature, "Signature")) > 0 {
			return nil, false, refuse(StepSignature, "the signature of %s covers something else", quote(el.Tag))
		}
		v.signed = append(v.signed, el.Tag)
		v.signedBy = certificate
		return covered, true, nil
	}
	return nil, false, refuse(StepSignature, "the signature of %s is by none of the identity provider's %d certificates: %s",
		quote(el.Tag), len(v.c.IdP.Certificates), quote(last.Error()))
}

// checkSignature holds a signature to the one form that is taken, before any of it is
// computed.
func (v *validation) checkSignature(el, signature *etree.Element) error {
	refused := func(what string) error {
		return refuse(StepSignature, "the signature of %s %s", quote(el.Tag), what)
	}
	// No ds:Object, in which wrapping hides what is moved away, and one SignedInfo:
	// with two, the one that is verified need not be the one that is read
	// (CVE-2025-29774).
	if !shape(signature, nsSignature, "SignedInfo", "SignatureValue", "KeyInfo?") {
		return refused("is not SignedInfo, SignatureValue and KeyInfo")
	}
	info := only(signature, nsSignature, "SignedInfo")
	// One reference: a second could cover the assertion and the first something harmless.
	if !shape(info, nsSignature, "CanonicalizationMethod", "SignatureMethod", "Reference") {
		return refused("does not have one reference")
	}
	canonical, method, reference := info.ChildElements()[0], info.ChildElements()[1], info.ChildElements()[2]
	if !oneOf(canonical, nsExcC14N) || len(canonical.ChildElements()) > 0 {
		return refused("is canonicalised by " + quote(attr(canonical, "Algorithm")) + ", not by exclusive canonicalisation")
	}
	if !oneOf(method, signatureMethods...) && !(v.c.AllowLegacy && oneOf(method, legacySignature)) || len(method.ChildElements()) > 0 {
		return refused("is made with " + quote(attr(method, "Algorithm")) + ", which is not taken")
	}
	// The reference is to the element that holds it. An empty one means the document,
	// which is more, and after decrypting less, than that.
	if id := attr(el, "ID"); id == "" || attr(reference, "URI") != "#"+id {
		return refused("is of " + quote(attr(reference, "URI")) + ", not of what holds it")
	}
	if !shape(reference, nsSignature, "Transforms", "DigestMethod", "DigestValue") {
		return refused("has another reference than Transforms, DigestMethod and DigestValue")
	}
	transforms, digest, value := reference.ChildElements()[0], reference.ChildElements()[1], reference.ChildElements()[2]
	if !oneOf(digest, digestMethods...) && !(v.c.AllowLegacy && oneOf(digest, legacyDigest)) || len(digest.ChildElements()) > 0 {
		return refused("has the digest " + quote(attr(digest, "Algorithm")) + ", which is not taken")
	}
	// An empty digest, or one with something else in it (CVE-2025-29775).
	if text, ok := text(value); !ok || text == "" {
		return refused("has no digest")
	}
	return v.checkTransforms(transforms, refused)
}

// checkTransforms takes what every identity provider writes: the signature is left out,
// the rest is canonicalised. (Without the second the standard means inclusive
// canonicalisation, and goxmldsig none.)
func (v *validation) checkTransforms(transforms *etree.Element, refused func(string) error) error {
	if !shape(transforms, nsSignature, "Transform", "Transform") {
		return refused("does not have the two transforms that are taken")
	}
	first, second := transforms.ChildElements()[0], transforms.ChildElements()[1]
	if !oneOf(first, enveloped) || len(first.ChildElements()) > 0 || !oneOf(second, nsExcC14N) {
		return refused("has the transforms " + quote(attr(first, "Algorithm")) + " and " + quote(attr(second, "Algorithm")) + ", which are not taken")
	}
	if !shape(second, nsExcC14N, "InclusiveNamespaces?") {
		return refused("has a transform with something unknown in it")
	}
	return nil
}

// candidates are the provider's certificates that may have signed, the one that the
// signature names first. The name is a hint and no more: what a document says about its
// key is never believed.
func (v *validation) candidates(signature *etree.Element) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for _, c := range v.c.IdP.Certificates {
		if usable(c, v.now) && (v.c.AllowLegacy || strong(c)) {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, refuse(StepSignature, "all certificates of the identity provider have ended or are too weak: take up its new metadata")
	}
	named := namedCertificate(signature)
	slices.SortStableFunc(list, func(a, b *x509.Certificate) int {
		switch {
		case bytes.Equal(a.Raw, named):
			return -1
		case bytes.Equal(b.Raw, named):
			return 1
		}
		return 0
	})
	return list, nil
}

// namedCertificate is what KeyInfo holds, nil if nothing.
func namedCertificate(holder *etree.Element) []byte {
	el := holder
	for _, tag := range []string{"KeyInfo", "X509Data", "X509Certificate"} {
		if el = only(el, nsSignature, tag); el == nil {
			return nil
		}
	}
	value, _ := text(el)
	raw, err := base64.StdEncoding.DecodeString(stripSpace(value))
	if err != nil {
		return nil
	}
	return raw
}

// verifyWith is goxmldsig's verification against one certificate. KeyInfo is taken out
// (it is not signed), so that the library has nothing to choose by; whether the
// certificate's time is over was decided before.
func verifyWith(el *etree.Element, certificate *x509.Certificate) (*etree.Element, error) {
	el = detach(el)
	signature := only(el, nsSignature, "Signature")
	if info := only(signature, nsSignature, "KeyInfo"); info != nil {
		signature.RemoveChild(info)
	}
	value := only(signature, nsSignature, "SignatureValue")
	encoded, _ := text(value)
	value.SetText(signatureValue(stripSpace(encoded), certificate))
	library := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{certificate}})
	library.Clock = dsig.NewFakeClockAt(certificate.NotBefore)
	return library.Validate(el)
}

// signatureValue gives the signature in the form that crypto/x509 checks. XML has
// ECDSA's two numbers side by side (RFC 4051 §2.3.6), ASN.1 has them as a sequence.
func signatureValue(encoded string, certificate *x509.Certificate) string {
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return encoded
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	if len(raw) != 2*size {
		return encoded
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])})
	if err != nil {
		return encoded
	}
	return base64.StdEncoding.EncodeToString(der)
}

// strong reports whether the key is one that nobody can be thought to break.
func strong(c *x509.Certificate) bool {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return key.Curve.Params().BitSize >= 256
	}
	return false
}
