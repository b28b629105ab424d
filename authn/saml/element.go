package saml

import (
	"strings"
	"time"

	"github.com/beevik/etree"
)

// space is what XML calls so.
const space = " \t\r\n"

// is compares the namespace too: an element of the same name in another one is another.
func is(el *etree.Element, namespace, tag string) bool {
	return el.Tag == tag && el.NamespaceURI() == namespace
}

// all are the children of that name, never their descendants.
func all(el *etree.Element, namespace, tag string) []*etree.Element {
	var list []*etree.Element
	for _, c := range el.ChildElements() {
		if is(c, namespace, tag) {
			list = append(list, c)
		}
	}
	return list
}

// only is the one child of that name: nil if there is none or several, so that there
// is never a first one to prefer to a second.
func only(el *etree.Element, namespace, tag string) *etree.Element {
	if list := all(el, namespace, tag); len(list) == 1 {
		return list[0]
	}
	return nil
}

// attr is the value of an attribute in no namespace, "" if there is none. (etree's own
// look-up of ID finds x:ID too.)
func attr(el *etree.Element, name string) string {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return a.Value
		}
	}
	return ""
}

// text is exact's without the space around it: for what is compared or decoded.
func text(el *etree.Element) (_ string, ok bool) {
	value, ok := exact(el)
	return strings.Trim(value, space), ok
}

// exact is an element's text; ok says that it has nothing else in it. All of its text,
// not that before the first child (CVE-2018-0489 and its sisters).
func exact(el *etree.Element) (_ string, ok bool) {
	var b strings.Builder
	for _, token := range el.Child {
		data, isText := token.(*etree.CharData)
		if !isText {
			return "", false
		}
		b.WriteString(data.Data)
	}
	return b.String(), true
}

// instant reads an xs:dateTime. SAML (core §1.3.3) has them in UTC; one without a zone
// could be any time, and is none.
func instant(value string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil || t.Year() < 1970 || t.Year() > 9000 {
		return time.Time{}, false
	}
	return t.UTC(), true
}

// detach copies an element out of its document, with the namespaces that it stood in.
func detach(el *etree.Element) *etree.Element {
	copied := el.Copy()
	for parent := el.Parent(); parent != nil; parent = parent.Parent() {
		for _, a := range parent.Attr {
			if (a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns") && !declares(copied, a) {
				copied.CreateAttr(a.FullKey(), a.Value)
			}
		}
	}
	return copied
}

func declares(el *etree.Element, declaration etree.Attr) bool {
	for _, a := range el.Attr {
		if a.Space == declaration.Space && a.Key == declaration.Key {
			return true
		}
	}
	return false
}
