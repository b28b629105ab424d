package saml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// scan reads a document once without building anything, and holds it to a subset of
// XML in which all readers agree: UTF-8, names with at most one colon (CVE-2020-29509
// to 29511 and CVE-2020-27846: Go writes other names than it read), declared
// prefixes, no attribute twice, IDs in no namespace and each once.
func scan(data []byte, l limits, remarks bool) error {
	if len(data) > l.bytes {
		return fmt.Errorf("it is larger than %d bytes", l.bytes)
	}
	s := &scanner{limits: l, remarks: remarks, ids: map[string]bool{}}
	decoder := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := decoder.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("it is not well-formed: %s", quote(err.Error()))
		}
		if err := s.token(token, decoder.InputOffset()); err != nil {
			return err
		}
	}
	if len(s.open) > 0 || s.elements == 0 {
		return errors.New("it ends within an element")
	}
	return nil
}

type scanner struct {
	limits
	remarks  bool // comments and instructions are passed over
	open     []opened
	elements int
	roots    int
	ids      map[string]bool
	before   bool // something was before the root
}

// opened is an element whose end has not come; prefixes are those it declares.
type opened struct {
	name     xml.Name
	prefixes map[string]string
}

func (s *scanner) token(token xml.Token, offset int64) error {
	switch t := token.(type) {
	case xml.StartElement:
		return s.start(t)
	case xml.EndElement:
		if len(s.open) == 0 || s.open[len(s.open)-1].name != t.Name {
			return errors.New("an end tag closes another element than is open")
		}
		s.open = s.open[:len(s.open)-1]
	case xml.CharData:
		if len(s.open) == 0 && len(bytes.Trim(t, space)) > 0 {
			return errors.New("it has text outside of its root element")
		}
	case xml.ProcInst:
		if t.Target == "xml" {
			return s.declaration(t)
		}
		if !s.remarks {
			return errors.New("it has a processing instruction")
		}
	case xml.Comment:
		if !s.remarks {
			return errors.New("it has a comment")
		}
	default:
		return fmt.Errorf("it has a DOCTYPE at byte %d", offset)
	}
	s.before = true
	return nil
}

// declaration takes UTF-8 only: in another encoding the same bytes are other names.
func (s *scanner) declaration(t xml.ProcInst) error {
	if s.before {
		return errors.New("its XML declaration is not at the beginning")
	}
	s.before = true
	text := strings.ToLower(string(t.Inst))
	if _, encoding, found := strings.Cut(text, "encoding"); found {
		encoding = strings.TrimLeft(encoding, " =\t\r\n")
		if !strings.HasPrefix(encoding, `"utf-8"`) && !strings.HasPrefix(encoding, `'utf-8'`) {
			return errors.New("it is not encoded in UTF-8")
		}
	}
	return nil
}

func (s *scanner) start(t xml.StartElement) error {
	s.before = true
	if len(s.open) == 0 {
		if s.roots++; s.roots > 1 {
			return errors.New("it has two root elements")
		}
	}
	if s.elements++; s.elements > s.limits.elements {
		return fmt.Errorf("it has more than %d elements", s.limits.elements)
	}
	if len(s.open) >= s.depth {
		return fmt.Errorf("it is nested deeper than %d elements", s.depth)
	}
	if len(t.Attr) > s.attributes {
		return fmt.Errorf("an element has more than %d attributes", s.attributes)
	}
	o := opened{name: t.Name}
	for _, a := range t.Attr {
		prefix, namespace, err := declared(a)
		if err != nil {
			return err
		}
		if namespace == "" {
			continue
		}
		if o.prefixes == nil {
			o.prefixes = map[string]string{}
		}
		o.prefixes[prefix] = namespace
	}
	s.open = append(s.open, o)
	return s.names(t)
}

// declared gives the prefix and namespace that an attribute declares, "" if it declares
// none. Relative and empty namespaces are refused: canonicalisation of them fails
// or yields nothing in some libraries, and a digest of nothing always fits.
func declared(a xml.Attr) (prefix, namespace string, err error) {
	switch {
	case a.Name.Space == "xmlns":
		prefix = a.Name.Local
	case a.Name.Space != "" || a.Name.Local != "xmlns":
		return "", "", nil
	}
	if prefix == "xml" && a.Value == "http://www.w3.org/XML/1998/namespace" {
		return "", "", nil // what it is anyway; some providers' metadata say so
	}
	if prefix == "xml" || prefix == "xmlns" {
		return "", "", errors.New("it declares a reserved prefix")
	}
	if !strings.Contains(a.Value, ":") || strings.ContainsAny(a.Value, space) ||
		strings.HasPrefix(a.Value, "http://www.w3.org/XML/") || strings.HasPrefix(a.Value, "http://www.w3.org/2000/xmlns") {
		return "", "", fmt.Errorf("it declares the namespace %s, which is empty, relative or reserved", quote(a.Value))
	}
	return prefix, a.Value, nil
}

// names checks an element's own name and those of its attributes.
func (s *scanner) names(t xml.StartElement) error {
	if err := s.name(t.Name); err != nil {
		return err
	}
	for i, a := range t.Attr {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			if !plainName(a.Name.Local) {
				return fmt.Errorf("it declares the prefix %s", quote(a.Name.Local))
			}
		} else if err := s.name(a.Name); err != nil {
			return err
		}
		for _, other := range t.Attr[:i] {
			if s.same(a.Name, other.Name) {
				return fmt.Errorf("an element has the attribute %s twice", quote(a.Name.Local))
			}
		}
		if strings.EqualFold(a.Name.Local, "id") && a.Name.Space != "xmlns" {
			// An ID in a namespace or of another spelling is one to some readers only,
			// and two of a kind are two elements that one signature could mean.
			if a.Name.Space != "" || !plainName("_"+a.Value) || len(a.Value) > 256 {
				return fmt.Errorf("it has the ID %s in a namespace or in a form that XML does not have", quote(a.Value))
			}
			if s.ids[a.Value] {
				return fmt.Errorf("it has the ID %s twice", quote(a.Value))
			}
			s.ids[a.Value] = true
		}
	}
	return nil
}

func (s *scanner) name(n xml.Name) error {
	if len(n.Space) > s.limits.name || len(n.Local) > s.limits.name {
		return fmt.Errorf("a name is longer than %d bytes", s.limits.name)
	}
	if !plainName(n.Local) || n.Space != "" && !plainName(n.Space) {
		return fmt.Errorf("it has the name %s", quote(n.Space+":"+n.Local))
	}
	if n.Space != "" && n.Space != "xml" && s.lookup(n.Space) == "" {
		return fmt.Errorf("the prefix %s is not declared", quote(n.Space))
	}
	return nil
}

func (s *scanner) lookup(prefix string) string {
	for i := len(s.open) - 1; i >= 0; i-- {
		if namespace := s.open[i].prefixes[prefix]; namespace != "" {
			return namespace
		}
	}
	return ""
}

// same reports whether two attributes are one, also by two prefixes of one namespace.
func (s *scanner) same(a, b xml.Name) bool {
	if a.Local != b.Local {
		return false
	}
	return a.Space == b.Space || a.Space != "" && b.Space != "" && a.Space != "xmlns" && b.Space != "xmlns" && s.lookup(a.Space) == s.lookup(b.Space)
}

// plainName reports whether the text is a name without colon, in ASCII.
func plainName(text string) bool {
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return text != ""
}
