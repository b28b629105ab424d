package saml

import (
	"slices"

	"github.com/beevik/etree"
)

// checkStructure holds a response, or an assertion that was encrypted, to the one
// shape in which nothing can be mistaken for something else. Signature wrapping
// (CVE-2022-41912, CVE-2024-45409, CVE-2025-47949 and many more) needs a second
// assertion, a second response or a signature where none belongs: in Extensions, in
// ds:Object, in Advice, in a status message. There is none such, whatever namespace it
// claims to be in, before any signature is looked at.
func checkStructure(root *etree.Element, tag string) error {
	namespace := nsAssertion
	if tag == "Response" {
		namespace = nsProtocol
	}
	if !is(root, namespace, tag) {
		return refuse(StepStructure, "the document is %s, not a SAML %s", quote(root.Tag), tag)
	}
	if tag == "Response" {
		for _, c := range root.ChildElements() {
			if !is(c, nsAssertion, "Issuer") && !is(c, nsSignature, "Signature") && !is(c, nsProtocol, "Extensions") &&
				!is(c, nsProtocol, "Status") && !is(c, nsAssertion, "Assertion") && !is(c, nsAssertion, "EncryptedAssertion") {
				return refuse(StepStructure, "the response has the element %s in it", quote(c.FullTag()))
			}
		}
	}
	assertions := 0
	if err := checkPlaces(root, root, &assertions); err != nil {
		return err
	}
	if assertions > 1 {
		return refuse(StepStructure, "there is more than one assertion")
	}
	return nil
}

// checkPlaces goes through everything below el; root is the document's.
func checkPlaces(root, el *etree.Element, assertions *int) error {
	if el == root && el.Tag == "Assertion" {
		*assertions++
	}
	for i, c := range el.ChildElements() {
		switch c.Tag {
		case "Assertion", "EncryptedAssertion":
			*assertions++
			if el != root || !is(root, nsProtocol, "Response") || c.NamespaceURI() != nsAssertion {
				return refuse(StepStructure, "there is an assertion within %s", quote(el.FullTag()))
			}
		case "Response":
			return refuse(StepStructure, "there is a response within the document")
		case "SignedInfo":
			if el.Tag != "Signature" {
				return refuse(StepStructure, "there is a SignedInfo within %s", quote(el.FullTag()))
			}
		case "Signature":
			if err := checkSignaturePlace(root, el, i, c); err != nil {
				return err
			}
		}
		if err := checkPlaces(root, c, assertions); err != nil {
			return err
		}
	}
	return nil
}

// checkSignaturePlace: a signature is a child of what it signs, next to the Issuer (core
// §2.3.3, §3.2.2), and one at most.
func checkSignaturePlace(root, el *etree.Element, i int, signature *etree.Element) error {
	holder := el == root || el.Parent() == root && is(el, nsAssertion, "Assertion")
	if !holder || signature.NamespaceURI() != nsSignature {
		return refuse(StepStructure, "there is a signature within %s", quote(el.FullTag()))
	}
	children := el.ChildElements()
	if i > 1 || i == 1 && !is(children[0], nsAssertion, "Issuer") {
		return refuse(StepStructure, "the signature of %s is not where it belongs, after the Issuer", quote(el.FullTag()))
	}
	return nil
}

// shape reports whether the element's children are exactly those, in that order; a name
// that ends in ? may be missing.
func shape(el *etree.Element, namespace string, names ...string) bool {
	children := el.ChildElements()
	for _, name := range names {
		optional := name[len(name)-1] == '?'
		if optional {
			name = name[:len(name)-1]
		}
		if len(children) > 0 && is(children[0], namespace, name) {
			children = children[1:]
		} else if !optional {
			return false
		}
	}
	return len(children) == 0
}

// oneOf reports whether the element names an algorithm of the list.
func oneOf(el *etree.Element, algorithms ...string) bool {
	return slices.Contains(algorithms, attr(el, "Algorithm"))
}
