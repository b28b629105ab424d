package credential

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
)

// Limits of a namespace's filters, as Temporal Cloud has them; it states none
// for a value's length.
const (
	maxFilters     = 25
	maxFilterValue = 256
)

// Filter says which client certificates of a namespace's own CAs are let in: a
// leaf matches if it matches all the fields that are given. A value is exact but
// for one * at its beginning or its end. Case does not matter, Unicode's letter
// by letter; a letter outside ASCII is never equal to one inside.
type Filter struct {
	CommonName             string `json:"common_name,omitempty"`
	Organization           string `json:"organization,omitempty"`
	OrganizationalUnit     string `json:"organizational_unit,omitempty"`
	SubjectAlternativeName string `json:"subject_alternative_name,omitempty"` // DNS name, e-mail, URI or IP address (RFC 5952)
}

// Check reports what is wrong with the filter: Invalid, with the field as
// common_name and so on, or with none if the filter is empty.
func (f Filter) Check() error {
	if field, problem := f.flaw(); problem != "" {
		return sallyport.InvalidField(field, "%s", problem)
	}
	return nil
}

// CheckFilters checks a namespace's filters: at most 25, each good, none twice.
// The error is Invalid with a field as [3].common_name, or [3], or none.
func CheckFilters(list []Filter) error {
	if len(list) > maxFilters {
		return sallyport.Invalid.Errorf("there are %d filters; at most %d are possible", len(list), maxFilters)
	}
	ids := make([]string, 0, len(list))
	for i, f := range list {
		place := fmt.Sprintf("[%d]", i)
		if field, problem := f.flaw(); problem != "" {
			return sallyport.InvalidField(strings.TrimSuffix(place+"."+field, "."), "%s", problem)
		}
		id := f.ID()
		if same := slices.Index(ids, id); same >= 0 {
			return sallyport.InvalidField(place, "is the same as filter %d; leave one out", same+1)
		}
		ids = append(ids, id)
	}
	return nil
}

// flaw says what is wrong with the filter, and with which field unless it is
// empty; "" if nothing is.
func (f Filter) flaw() (field, problem string) {
	for i, value := range f.values() {
		if problem := valueFlaw(value); problem != "" {
			return filterFields[i], problem
		}
	}
	if f == (Filter{}) {
		return "", "the filter is empty and would let everybody in; give at least one of its fields"
	}
	return "", ""
}

// ID names a filter by its content, whatever its case: 32 characters of hex.
func (f Filter) ID() string {
	h := sha256.New()
	for _, value := range f.values() {
		value = lower(value)
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(value)))
		h.Write(length[:])
		h.Write([]byte(value))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Match reports whether the leaf matches. Of a field that the leaf has several
// times, one has to match. An empty filter matches nothing. It does not allocate.
func (f Filter) Match(p *Presented) bool {
	if f == (Filter{}) {
		return false
	}
	return matches(f.CommonName, p.commonNames) && matches(f.Organization, p.organizations) &&
		matches(f.OrganizationalUnit, p.units) && matches(f.SubjectAlternativeName, p.altNames)
}

var filterFields = [...]string{"common_name", "organization", "organizational_unit", "subject_alternative_name"}

// values are the fields in the order of filterFields.
func (f Filter) values() [4]string {
	return [...]string{f.CommonName, f.Organization, f.OrganizationalUnit, f.SubjectAlternativeName}
}

// valueFlaw says what is wrong with one value, "" if nothing is.
func valueFlaw(value string) string {
	inner := strings.TrimPrefix(value, "*")
	if inner == value {
		inner = strings.TrimSuffix(value, "*")
	}
	switch {
	case value == "":
		return ""
	case len(value) > maxFilterValue:
		return fmt.Sprintf("has more than %d bytes", maxFilterValue)
	case inner == "" || strings.Contains(inner, "*"):
		return "may have one * at its beginning or its end, with something beside it, and none elsewhere"
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return "has characters that are no text"
	}
	return ""
}

// matches reports whether the pattern is not given or fits one of the names,
// which are in lower case.
func matches(pattern string, names []string) bool {
	if pattern == "" {
		return true
	}
	last := len(pattern) - 1
	for _, name := range names {
		switch {
		case pattern[0] == '*':
			if hasSuffix(name, pattern[1:]) {
				return true
			}
		case pattern[last] == '*':
			if _, ok := hasPrefix(name, pattern[:last]); ok {
				return true
			}
		default:
			if n, ok := hasPrefix(name, pattern); ok && n == len(name) {
				return true
			}
		}
	}
	return false
}

// hasPrefix reports whether name begins with prefix in lower case, and with how
// many bytes of it.
func hasPrefix(name, prefix string) (n int, ok bool) {
	for i := 0; i < len(prefix); {
		if c := prefix[i]; c < utf8.RuneSelf {
			if n == len(name) || name[n] != lowerByte(c) {
				return 0, false
			}
			i, n = i+1, n+1
			continue
		}
		want, size := utf8.DecodeRuneInString(prefix[i:])
		got, length := utf8.DecodeRuneInString(name[n:])
		if length == 0 || got != lowerRune(want) {
			return 0, false
		}
		i, n = i+size, n+length
	}
	return n, true
}

// hasSuffix reports whether name ends with suffix in lower case.
func hasSuffix(name, suffix string) bool {
	for i, n := len(suffix), len(name); i > 0; {
		if c := suffix[i-1]; c < utf8.RuneSelf {
			if n == 0 || name[n-1] != lowerByte(c) {
				return false
			}
			i, n = i-1, n-1
			continue
		}
		want, size := utf8.DecodeLastRuneInString(suffix[:i])
		got, length := utf8.DecodeLastRuneInString(name[:n])
		if length == 0 || got != lowerRune(want) {
			return false
		}
		i, n = i-size, n-length
	}
	return true
}

func lower(s string) string { return strings.Map(lowerRune, s) }

// lowerRune is the lower case of a letter. The few letters outside ASCII whose
// lower case is inside (the Kelvin sign, the dotted I) stay, so that nobody is
// let in who only looks right.
func lowerRune(r rune) rune {
	if r < utf8.RuneSelf {
		return rune(lowerByte(byte(r)))
	}
	if l := unicode.ToLower(r); l >= utf8.RuneSelf {
		return l
	}
	return r
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
