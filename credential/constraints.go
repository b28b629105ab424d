package credential

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Forms of names, as tagged in GeneralName (RFC 5280 §4.2.1.6).
const (
	emailName     = 1
	dnsName       = 2
	directoryName = 4
	uriName       = 6
	ipName        = 7
)

// constraints are those name constraints of a CA that crypto/x509 leaves to
// others: on directory names, and on forms of names that nobody evaluates.
type constraints struct {
	permitted, excluded [][]string // directory names, as relativeNames gives them
	unknown             uint32     // a bit for each other form that is constrained
}

// constraintsOf reads them; nil if a CA has none.
func constraintsOf(ca *x509.Certificate) (*constraints, error) {
	value := extensionValue(ca, 30)
	if value == nil {
		return nil, nil
	}
	var c constraints
	var parts []asn1.RawValue // permitted [0] and excluded [1]
	if _, err := asn1.Unmarshal(value, &parts); err != nil {
		return nil, fmt.Errorf("reading name constraints: %w", err)
	}
	for _, part := range parts {
		for rest := part.Bytes; len(rest) > 0; {
			var subtree []asn1.RawValue // base, minimum, maximum
			var err error
			if rest, err = asn1.Unmarshal(rest, &subtree); err != nil {
				return nil, fmt.Errorf("reading name constraints: %w", err)
			}
			if len(subtree) != 1 {
				return nil, errors.New("reading name constraints: a subtree has more than its base")
			}
			if err := c.add(part.Tag, subtree[0]); err != nil {
				return nil, err
			}
		}
	}
	switch n := len(c.permitted) + len(c.excluded); {
	case n > maxNames:
		return nil, fmt.Errorf("there are %d directory names, more than %d", n, maxNames)
	case n == 0 && c.unknown == 0:
		return nil, nil
	}
	return &c, nil
}

func (c *constraints) add(part int, base asn1.RawValue) error {
	switch base.Tag {
	case emailName, dnsName, uriName, ipName: // crypto/x509 sees to these
		return nil
	case directoryName:
		name, err := relativeNames(base.Bytes)
		if err != nil {
			return err
		}
		if part == 0 {
			c.permitted = append(c.permitted, name)
		} else {
			c.excluded = append(c.excluded, name)
		}
	default:
		c.unknown |= 1 << (uint(base.Tag) & 31)
	}
	return nil
}

// allow reports whether a certificate below the CA has no name that it forbids:
// neither as its subject nor as an alternative name (RFC 5280 §4.2.1.10).
func (c *constraints) allow(cert *x509.Certificate) bool {
	if subject, err := relativeNames(cert.RawSubject); err != nil || len(subject) > 0 && !c.allowName(subject) {
		return false
	}
	value := extensionValue(cert, 17)
	if value == nil {
		return true
	}
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(value, &names); err != nil || len(names) > maxNames {
		return false
	}
	for _, general := range names {
		if c.unknown&(1<<(uint(general.Tag)&31)) != 0 {
			return false
		}
		if general.Tag != directoryName {
			continue
		}
		if name, err := relativeNames(general.Bytes); err != nil || !c.allowName(name) {
			return false
		}
	}
	return true
}

func (c *constraints) allowName(name []string) bool {
	within := func(subtree []string) bool {
		return len(subtree) <= len(name) && slices.Equal(subtree, name[:len(subtree)])
	}
	return !slices.ContainsFunc(c.excluded, within) && (len(c.permitted) == 0 || slices.ContainsFunc(c.permitted, within))
}

// relativeNames are the parts of a distinguished name in DER, from the top, for
// comparison: case and repeated spaces do not matter.
func relativeNames(der []byte) ([]string, error) {
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &sequence); err != nil {
		return nil, fmt.Errorf("reading a distinguished name: %w", err)
	}
	names := make([]string, 0, len(sequence))
	for _, set := range sequence {
		parts := make([]string, 0, len(set))
		for _, attribute := range set {
			parts = append(parts, string(appendAttribute(nil, attribute)))
		}
		slices.Sort(parts)
		names = append(names, strings.Join(parts, ""))
	}
	return names, nil
}

// appendAttribute appends an attribute of a name for comparison.
func appendAttribute(b []byte, attribute pkix.AttributeTypeAndValue) []byte {
	for _, number := range attribute.Type {
		b = append(b, byte(number>>24), byte(number>>16), byte(number>>8), byte(number))
	}
	b = append(b, '=')
	if value, ok := attribute.Value.(string); ok {
		b = append(b, lower(strings.Join(strings.Fields(value), " "))...)
	} else {
		b = fmt.Append(b, attribute.Value)
	}
	return append(b, 0)
}

// extensionValue is the value of the extension 2.5.29.number, nil if there is none.
func extensionValue(cert *x509.Certificate, number int) []byte {
	for i := range cert.Extensions {
		if isExtension(cert.Extensions[i].Id, number) {
			return cert.Extensions[i].Value
		}
	}
	return nil
}

func isExtension(id asn1.ObjectIdentifier, number int) bool {
	return len(id) == 4 && id[0] == 2 && id[1] == 5 && id[2] == 29 && id[3] == number
}
