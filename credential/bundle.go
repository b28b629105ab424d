package credential

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
	"unicode"

	"github.com/sallyport-iam/sallyport"
)

// Limits of a namespace's client CAs, as Temporal Cloud has them, and of what a
// client presents.
const (
	maxCABytes    = 32 << 10
	maxCAs        = 16
	maxChainBytes = 64 << 10
	maxChain      = 10
	expiresSoon   = 15 * 24 * time.Hour
)

const (
	pemBegin      = "-----BEGIN "
	byteOrderMark = "\ufeff" // which editors put before the first line
)

// ParseClientCAs reads a namespace's bundle of client CAs: PEM certificates, with
// whatever text around them, at most 16 in 32 KB, each a CA with an allowed key and
// signature, each a root or with a way to a root through others of the bundle.
// One that has expired is accepted. An empty bundle gives none. At most 16 × 16
// signatures are checked. The error is Invalid, without a Field.
func ParseClientCAs(bundle []byte) ([]*x509.Certificate, error) {
	if len(bundle) > maxCABytes {
		return nil, sallyport.Invalid.Errorf("the bundle has %d bytes; at most %d are possible", len(bundle), maxCABytes)
	}
	cas, err := parsePEM(bundle, maxCAs)
	if err != nil {
		return nil, err
	}
	for i, ca := range cas {
		problem := memberOf(ca).flaw
		if problem == "" && !usable(ca, x509.ExtKeyUsageClientAuth) {
			problem = "is for other uses than client authentication: its extended key usage does not have it"
		}
		if problem != "" {
			return nil, sallyport.Invalid.Errorf("certificate %d %s", i+1, problem)
		}
		if same := slices.IndexFunc(cas[:i], ca.Equal); same >= 0 {
			return nil, sallyport.Invalid.Errorf("certificate %d is the same as certificate %d; leave one out", i+1, same+1)
		}
	}
	return cas, checkRooted(cas)
}

// checkRooted checks that each of the bundle leads to a root in it. Every pair
// of certificates is looked at once at most.
func checkRooted(cas []*x509.Certificate) error {
	rooted := make([]*x509.Certificate, 0, len(cas)) // grows as it is walked: parents whose children are still to be found
	waiting := make([]int, 0, len(cas))
	for i, ca := range cas {
		if selfIssued(ca) && ca.CheckSignatureFrom(ca) == nil {
			rooted = append(rooted, ca)
		} else {
			waiting = append(waiting, i)
		}
	}
	for next := 0; next < len(rooted); next++ {
		parent := rooted[next]
		waiting = slices.DeleteFunc(waiting, func(i int) bool {
			issued := bytes.Equal(cas[i].RawIssuer, parent.RawSubject) && cas[i].CheckSignatureFrom(parent) == nil
			if issued {
				rooted = append(rooted, cas[i])
			}
			return issued
		})
	}
	if len(waiting) == 0 {
		return nil
	}
	i := waiting[0]
	if selfIssued(cas[i]) {
		return sallyport.Invalid.Errorf("certificate %d names itself as its issuer, but is not signed by its own key, nor by another one of the bundle", i+1)
	}
	return sallyport.Invalid.Errorf("certificate %d does not lead to a root in the bundle; add its issuer %s and whatever is above it", i+1, quoted(cas[i].Issuer.String()))
}

// parsePEM reads PEM certificates. Around their blocks there may be text, as
// RFC 7468 §2 allows and openssl writes it, but nothing that is almost a block:
// somebody else may read a certificate there, or miss one.
func parsePEM(data []byte, most int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		i := bytes.Index(rest, []byte(pemBegin))
		if i < 0 {
			if err := checkText(rest, len(certs)); err != nil {
				return nil, err
			}
			if len(certs) == 0 && len(bytes.TrimSpace(rest)) > 0 {
				return nil, sallyport.Invalid.Errorf("there is no certificate; send CA certificates as PEM")
			}
			return certs, nil
		}
		if err := checkText(rest[:i], len(certs)); err != nil {
			return nil, err
		}
		line := rest[bytes.LastIndexByte(rest[:i], '\n')+1 : i]
		block, after := pem.Decode(rest[i:])
		// A malformed block is passed over by Decode in favour of a later one.
		if block == nil || len(line) > 0 && !bytes.Equal(line, []byte(byteOrderMark)) || markers(rest[i:len(rest)-len(after)]) != 2 {
			return nil, broken(len(certs))
		}
		cert, err := parseBlock(block, len(certs)+1, most)
		if err != nil {
			return nil, err
		}
		certs, rest = append(certs, cert), after
	}
}

// checkText checks what is outside of the blocks, after so many of them.
func checkText(text []byte, number int) error {
	if markers(text) > 0 {
		return broken(number)
	}
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\n' }
	if bytes.IndexFunc(text, control) >= 0 {
		return sallyport.Invalid.Errorf("there are control characters after %d certificates; send the certificates as PEM, which is text", number)
	}
	return nil
}

// markers counts what begins or ends blocks.
func markers(data []byte) int {
	return bytes.Count(data, []byte("-----BEGIN")) + bytes.Count(data, []byte("-----END"))
}

func broken(number int) error {
	return sallyport.Invalid.Errorf("certificate %d is not well-formed PEM", number+1)
}

// parseBlock reads the number-th PEM block as a certificate.
func parseBlock(block *pem.Block, number, most int) (*x509.Certificate, error) {
	if block.Type != "CERTIFICATE" {
		return nil, sallyport.Invalid.Errorf("block %d is not a certificate; send certificates only, and never a private key", number)
	}
	if number > most {
		return nil, sallyport.Invalid.Errorf("there are more than %d certificates", most)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, &sallyport.Error{Kind: sallyport.Invalid, Msg: fmt.Sprintf("certificate %d cannot be read as X.509", number), Err: err}
	}
	return cert, nil
}

// ParseChain reads what a client would present, leaf first: PEM, with whatever
// text between the certificates, or one certificate in DER; at most 10 in 64 KB.
// Nothing is judged. The error is Invalid, without a Field.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxChainBytes {
		return nil, sallyport.Invalid.Errorf("the certificates have %d bytes; at most %d are possible", len(data), maxChainBytes)
	}
	if len(data) > 0 && data[0] == 0x30 { // a SEQUENCE
		cert, err := parseBlock(&pem.Block{Type: "CERTIFICATE", Bytes: data}, 1, 1)
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{cert}, nil
	}
	var certs []*x509.Certificate
	data = bytes.TrimPrefix(data, []byte(byteOrderMark)) // after which Decode does not see a block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := parseBlock(block, len(certs)+1, maxChain)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, sallyport.Invalid.Errorf("there is no certificate; send the client's certificate as PEM, with those that it presents beside it")
	}
	return certs, nil
}

// ClientCAWarnings says which CAs have expired or will within 15 days, a text each.
func ClientCAWarnings(cas []*x509.Certificate, now time.Time) []string {
	var warnings []string
	for i, ca := range cas {
		switch {
		case now.After(ca.NotAfter):
			warnings = append(warnings, fmt.Sprintf("client CA certificate %d (%s) expired at %s; no client certificate under it is accepted", i+1, nameOf(ca), stamp(ca.NotAfter)))
		case now.Add(expiresSoon).After(ca.NotAfter):
			warnings = append(warnings, fmt.Sprintf("client CA certificate %d (%s) expires at %s; add its successor and move the clients before", i+1, nameOf(ca), stamp(ca.NotAfter)))
		}
	}
	return warnings
}
