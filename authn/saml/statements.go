package saml

import (
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// overflowLinks are the attributes that Entra sends instead of the groups when there
// are more of them than it puts into an assertion.
var overflowLinks = []string{
	"http://schemas.microsoft.com/claims/groups.link",
	"http://schemas.microsoft.com/ws/2008/06/identity/claims/groups.link",
}

// Attribute is one that the provider stated. Values are in the order of the assertion and
// as they stand there, with space around them; empty ones are left out. None: it is
// stated that there is none.
type Attribute struct {
	Name         string
	NameFormat   string
	FriendlyName string // for people; never looked up by
	Values       []string
}

// Attributes are what the provider stated, each name once.
type Attributes []Attribute

// Values are the attribute's of that Name. stated is false if the provider says
// nothing about it, which is not the same as that there are none.
func (a Attributes) Values(name string) (values []string, stated bool) {
	for _, attribute := range a {
		if attribute.Name == name {
			return attribute.Values, true
		}
	}
	return nil, false
}

// One is the value of an attribute that has exactly one. With two there is no first
// to take: which of two e-mails comes first may be up to the person.
func (a Attributes) One(name string) (string, bool) {
	values, _ := a.Values(name)
	if len(values) != 1 {
		return "", false
	}
	return values[0], true
}

// Groups are the person's by the attribute of that name. stated is false, and nothing
// may be taken away from anybody, if the attribute is missing or the provider says that
// there are too many to send.
func (a Attributes) Groups(name string) (groups []string, stated bool) {
	for _, attribute := range a {
		if slices.Contains(overflowLinks, attribute.Name) {
			return nil, false
		}
	}
	return a.Values(name)
}

// readAuthn: without a statement of it nobody has proved anything (profiles §4.1.4.2).
func (v *validation) readAuthn(a *etree.Element, out *Assertion) error {
	statements := all(a, nsAssertion, "AuthnStatement")
	if len(statements) == 0 {
		return refuse(StepStatements, "the assertion does not say when the person signed in")
	}
	for _, s := range statements {
		at, ok := instant(attr(s, "AuthnInstant"))
		if !ok || at.After(v.now.Add(v.skew)) {
			return refuse(StepStatements, "the AuthnInstant %s is no time in UTC, or in the future", quote(attr(s, "AuthnInstant")))
		}
		if v.e.MaxAge > 0 && at.Before(v.now.Add(-v.e.MaxAge-v.skew)) {
			return refuse(StepStatements, "the person signed in at %s, and a fresh proof within %s was asked for", at, v.e.MaxAge)
		}
		if end := attr(s, "SessionNotOnOrAfter"); end != "" {
			until, ok := instant(end)
			if !ok || !v.now.Add(-v.skew).Before(until) {
				return refuse(StepStatements, "the session at the identity provider ended at %s", quote(end))
			}
			if out.SessionNotOnOrAfter.IsZero() || until.Before(out.SessionNotOnOrAfter) {
				out.SessionNotOnOrAfter = until
			}
		}
		// All of them must hold; the newest is told.
		if !at.After(out.AuthnInstant) {
			continue
		}
		out.AuthnInstant, out.SessionIndex = at, attr(s, "SessionIndex")
		if context := only(s, nsAssertion, "AuthnContext"); context != nil {
			if class := only(context, nsAssertion, "AuthnContextClassRef"); class != nil {
				out.AuthnContext, _ = text(class)
			}
		}
	}
	return nil
}

// readAttributes joins the values of attributes of one name: some providers write one
// attribute per group. Encrypted ones are not read, so that nothing is stated of them.
func (v *validation) readAttributes(a *etree.Element, out *Assertion) error {
	for _, s := range all(a, nsAssertion, "AttributeStatement") {
		for _, el := range all(s, nsAssertion, "Attribute") {
			name := attr(el, "Name")
			if name == "" {
				return refuse(StepStatements, "an attribute has no name")
			}
			values, err := attributeValues(el)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(out.Attributes, func(other Attribute) bool { return other.Name == name })
			if i >= 0 {
				out.Attributes[i].Values = append(out.Attributes[i].Values, values...)
				continue
			}
			if len(out.Attributes) == maxStatement {
				return refuse(StepStatements, "the assertion has more than %d attributes", maxStatement)
			}
			out.Attributes = append(out.Attributes, Attribute{
				Name: name, NameFormat: attr(el, "NameFormat"), FriendlyName: attr(el, "FriendlyName"), Values: values,
			})
		}
	}
	return nil
}

// attributeValues takes texts. A value that is made of elements (a NameID in
// eduPersonTargetedID) is not one, and is left out rather than flattened.
func attributeValues(el *etree.Element) ([]string, error) {
	values := []string{}
	for _, c := range all(el, nsAssertion, "AttributeValue") {
		if len(c.ChildElements()) > 0 {
			continue
		}
		value, ok := exact(c)
		if !ok {
			return nil, refuse(StepStatements, "the attribute %s has something else than text in it", quote(attr(el, "Name")))
		}
		if strings.Trim(value, space) != "" {
			values = append(values, value)
		}
	}
	return values, nil
}
