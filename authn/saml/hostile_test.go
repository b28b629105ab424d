package saml_test

import (
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/sallyport-iam/sallyport/authn/saml"
)

// sideBySide gives an ECDSA signature as XML has it.
func sideBySide(t *testing.T, encoded string) string {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var n struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &n); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(append(n.R.FillBytes(make([]byte, 32)), n.S.FillBytes(make([]byte, 32))...))
}

// evil is a copy in which everything says that it is the victim.
func evil(t *testing.T, el *etree.Element, id string) *etree.Element {
	t.Helper()
	c := parse(t, []byte(strings.ReplaceAll(string(write(t, el)), alice, victim)))
	if id != "" {
		c.CreateAttr("ID", id)
	}
	return c
}

// qualified is a copy of the assertion that can stand alone.
func qualified(a *etree.Element) *etree.Element {
	a = a.Copy()
	a.CreateAttr("xmlns:saml", "urn:oasis:names:tc:SAML:2.0:assertion")
	return a
}

func without(el *etree.Element, tag string) *etree.Element {
	c := el.Copy()
	if child := c.SelectElement(tag); child != nil {
		c.RemoveChild(child)
	}
	return c
}

// wrap makes the eight permutations of signature wrapping of a document (Somorovsky et
// al., "On Breaking SAML", and SAML Raider's names).
func wrap(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	original := parse(t, data)
	signatureOf := func(el *etree.Element) *etree.Element { return el.SelectElement("Signature") }
	if signatureOf(original) != nil {
		one := evil(t, original, "_evil")
		signatureOf(one).AddChild(without(original, "Signature"))
		out["XSW1"] = write(t, one)
		two := evil(t, original, "_evil")
		two.InsertChildAt(1, without(original, "Signature"))
		out["XSW2"] = write(t, two)
	} else {
		// Of the assertion's signature the same, with the whole response moved.
		one := evil(t, original, "_evil")
		signatureOf(one.SelectElement("Assertion")).AddChild(original.Copy())
		out["XSW1"] = write(t, one)
		two := evil(t, original, "_evil")
		two.InsertChildAt(1, original.Copy())
		out["XSW2"] = write(t, two)
	}
	assertion := qualified(original.SelectElement("Assertion"))
	build := func(name string, edit func(r, a *etree.Element)) {
		r := parse(t, data)
		edit(r, r.SelectElement("Assertion"))
		out[name] = write(t, r)
	}
	build("XSW3", func(r, a *etree.Element) {
		r.InsertChildAt(a.Index(), without(evil(t, assertion, "_evil"), "Signature"))
	})
	build("XSW4", func(r, a *etree.Element) {
		e := without(evil(t, assertion, "_evil"), "Signature")
		r.RemoveChild(a)
		e.AddChild(a)
		r.AddChild(e)
	})
	build("XSW5", func(r, a *etree.Element) {
		r.RemoveChild(a)
		r.AddChild(evil(t, assertion, "_evil"))
		r.AddChild(without(assertion, "Signature"))
	})
	holding := func(e *etree.Element) *etree.Element {
		if s := signatureOf(e); s != nil {
			return s
		}
		return e.CreateElement("ds:Signature")
	}
	build("XSW6", func(r, a *etree.Element) {
		e := evil(t, assertion, "_evil")
		r.RemoveChild(a)
		holding(e).AddChild(without(assertion, "Signature"))
		r.AddChild(e)
	})
	build("XSW7", func(r, a *etree.Element) {
		extensions := r.CreateElement("samlp:Extensions")
		r.InsertChildAt(a.Index(), extensions)
		extensions.AddChild(without(evil(t, assertion, ""), "Signature"))
	})
	build("XSW8", func(r, a *etree.Element) {
		e := evil(t, assertion, "_evil")
		r.RemoveChild(a)
		holding(e).CreateElement("ds:Object").AddChild(without(assertion, "Signature"))
		r.AddChild(e)
	})
	return out
}

func TestWrapping(t *testing.T) {
	w := made()
	for mode, s := range map[string][2]bool{"response signed": {true, false}, "assertion signed": {false, true}, "both signed": {true, true}} {
		data := w.response(t, w.saying(s[0], s[1]))
		permutations := wrap(t, data)
		if len(permutations) != 8 {
			t.Errorf("%d permutations", len(permutations))
		}
		for name, wrapped := range permutations {
			t.Run(mode+" "+name, func(t *testing.T) {
				if !strings.Contains(string(wrapped), victim) {
					t.Fatal("it is not about the victim")
				}
				w.mustRefuse(t, w.c, wrapped, "", "")
			})
			t.Run(mode+" "+name+" with one ID", func(t *testing.T) {
				w.mustRefuse(t, w.c, []byte(strings.ReplaceAll(string(wrapped), "_evil", parse(t, data).SelectAttrValue("ID", ""))), "", "")
			})
		}
	}
}

// TestHostile changes a good response after it was signed. mode: 1 the response is signed,
// 2 the assertion, 3 both.
func TestHostile(t *testing.T) {
	w := made()
	replace := func(old, to string) func(string) string {
		return func(x string) string { return strings.Replace(x, old, to, 1) }
	}
	name := "<saml:NameID Format=\"" + saml.FormatEmail + "\">" + alice
	info := "<ds:SignedInfo"
	edit := func(path string, change func(el *etree.Element)) func(string) string {
		return func(x string) string {
			root := parse(t, []byte(x))
			for _, el := range root.FindElements(path) {
				change(el)
			}
			return string(write(t, root))
		}
	}
	algorithm := func(path, value string) func(string) string {
		return edit(path, func(el *etree.Element) { el.CreateAttr("Algorithm", value) })
	}
	// The library would refuse these too, for the digest or the value that does not fit
	// any more: the check is ours, before it.
	details := map[string]string{
		"a signature without references": "one reference", "two references": "one reference", "two SignedInfo": "is not SignedInfo",
		"a reference to the document": "not of what holds it", "a reference of another first letter": "not of what holds it",
		"HMAC with the certificate": "hmac-sha1", "no signature method": "is made with", "an XSLT transform": "xslt", "a third transform": "two transforms",
		"canonicalised with comments": "is canonicalised by", "inclusive canonicalisation": "c14n-20010315", "the digest MD5": "md5", "an empty digest": "no digest",
		"a digest with an element": "no digest", "an object in the signature": "is not SignedInfo", "an empty signature": "is not SignedInfo",
	}
	for _, test := range []struct {
		name string
		step saml.Step
		edit func(string) string
	}{
		{"the victim's name", saml.StepSignature, func(x string) string { return strings.ReplaceAll(x, alice, victim) }},
		{"a comment in the NameID", saml.StepParse, replace(name, `<saml:NameID Format="`+saml.FormatEmail+`">`+victim+"<!---->."+alice)},
		{"a comment elsewhere", saml.StepParse, replace("<saml:Subject>", "<saml:Subject><!-- x -->")},
		{"CDATA in the NameID", saml.StepParse, replace(name, strings.Replace(name, alice, "<![CDATA["+alice+"]]>", 1))},
		{"an instruction in the NameID", saml.StepParse, replace(name, strings.Replace(name, "alice", "al<?x y?>ice", 1))},
		{"a DOCTYPE", saml.StepParse, func(x string) string { return "<!DOCTYPE x>" + x }},
		{"an external entity", saml.StepParse, func(x string) string {
			return `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + strings.Replace(x, alice, "&e;", 1)
		}},
		{"an entity that is not declared", saml.StepParse, replace(alice, "&e;")},
		{"an XML declaration of UTF-7", saml.StepParse, func(x string) string { return `<?xml version="1.0" encoding="UTF-7"?>` + x }},
		{"an XML declaration within", saml.StepParse, replace("<saml:Subject>", `<?xml version="1.0"?><saml:Subject>`)},
		{"a name with two colons", saml.StepParse, replace("<saml:Subject>", "<saml:Subject><a:b:c/>")},
		{"a name that begins with a colon", saml.StepParse, replace("<saml:Subject>", `<saml:Subject><:b xmlns="urn:x"/>`)},
		{"an attribute that begins with a colon", saml.StepParse, replace("<saml:Subject>", `<saml:Subject :ID="x">`)},
		{"a prefix that is not declared", saml.StepParse, replace("<saml:Subject>", `<saml:Subject><x:y/>`)},
		{"an attribute twice", saml.StepParse, replace(` Version="2.0"`, ` Version="2.0" Version="2.0"`)},
		{"an ID twice", saml.StepParse, replace("<saml:Subject>", `<saml:Subject ID="_a"><b ID="_a"/>`)},
		{"an ID in a namespace", saml.StepParse, replace(` ID="`, ` xmlns:x="urn:x" x:ID="_evil" ID="`)},
		{"an xml:id", saml.StepParse, replace(` ID="`, ` xml:id="_evil" ID="`)},
		{"a relative namespace", saml.StepParse, replace("<saml:Subject>", `<saml:Subject xmlns:x="x">`)},
		{"the assertion's namespace taken away", "", replace("<saml:Subject>", `<saml:Subject xmlns:saml="urn:other">`)},
		{"text after the end", saml.StepParse, func(x string) string { return x + "x" }},
		{"a second document", saml.StepParse, func(x string) string { return x + x }},
		{"half of it", saml.StepParse, func(x string) string { return x[:len(x)/2] }},
		{"nothing", saml.StepParse, func(string) string { return "" }},
		{"another document", saml.StepStructure, func(string) string { return "<html/>" }},
		{"an assertion alone", saml.StepStructure, func(x string) string {
			root := parse(t, []byte(x))
			a := root.SelectElement("Assertion")
			a.CreateAttr("xmlns:saml", "urn:oasis:names:tc:SAML:2.0:assertion")
			return string(write(t, a))
		}},
		{"a signature in the extensions", saml.StepStructure, replace("<samlp:Status>", `<samlp:Extensions><ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/></samlp:Extensions><samlp:Status>`)},
		{"an assertion in the extensions", saml.StepStructure, replace("<samlp:Status>", `<samlp:Extensions><saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/></samlp:Extensions><samlp:Status>`)},
		{"an assertion of another namespace beside it", saml.StepStructure, func(x string) string {
			return strings.Replace(x, "</samlp:Response>", `<x:Assertion xmlns:x="urn:x"/></samlp:Response>`, 1)
		}},
		{"an empty signature", saml.StepSignature, edit("//Signature", func(el *etree.Element) {
			for _, c := range el.ChildElements() {
				el.RemoveChild(c)
			}
		})},
		{"a signature without value", saml.StepSignature, edit("//SignatureValue", func(el *etree.Element) { el.SetText("") })},
		{"a signature without references", saml.StepSignature, edit("//SignedInfo", func(el *etree.Element) { el.RemoveChild(el.SelectElement("Reference")) })},
		{"two references", saml.StepSignature, edit("//SignedInfo", func(el *etree.Element) { el.AddChild(el.SelectElement("Reference").Copy()) })},
		{"two SignedInfo", saml.StepSignature, edit("//Signature", func(el *etree.Element) { el.InsertChildAt(0, el.SelectElement("SignedInfo").Copy()) })},
		{"two SignedInfo, one in KeyInfo", saml.StepStructure, edit("//KeyInfo", func(el *etree.Element) { el.AddChild(el.Parent().SelectElement("SignedInfo").Copy()) })},
		{"a reference to the document", saml.StepSignature, edit("//Reference", func(el *etree.Element) { el.CreateAttr("URI", "") })},
		{"a reference of another first letter", saml.StepSignature, edit("//Reference", func(el *etree.Element) { el.CreateAttr("URI", "x"+el.SelectAttrValue("URI", "")[1:]) })},
		{"HMAC with the certificate", saml.StepSignature, algorithm("//SignatureMethod", "http://www.w3.org/2000/09/xmldsig#hmac-sha1")},
		{"no signature method", saml.StepSignature, algorithm("//SignatureMethod", "")},
		{"an XSLT transform", saml.StepSignature, algorithm("//Transforms/Transform[1]", "http://www.w3.org/TR/1999/REC-xslt-19991116")},
		{"a third transform", saml.StepSignature, edit("//Transforms", func(el *etree.Element) { el.AddChild(el.ChildElements()[0].Copy()) })},
		{"canonicalised with comments", saml.StepSignature, algorithm("//CanonicalizationMethod", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments")},
		{"inclusive canonicalisation", saml.StepSignature, algorithm("//Transforms/Transform[2]", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")},
		{"the digest MD5", saml.StepSignature, algorithm("//DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#md5")},
		{"an empty digest", saml.StepSignature, edit("//DigestValue", func(el *etree.Element) { el.SetText("") })},
		{"a digest with a comment", saml.StepParse, replace("<ds:DigestValue>", "<ds:DigestValue><!--x-->")},
		{"a digest with an element", saml.StepSignature, edit("//DigestValue", func(el *etree.Element) { el.CreateElement("x").SetText("y") })},
		{"an object in the signature", saml.StepSignature, edit("//Signature", func(el *etree.Element) { el.CreateElement("ds:Object").SetText("x") })},
		{"SignedInfo moved into another namespace", "", replace(info, strings.Replace(info, "ds:", "x:", 1)+` xmlns:x="urn:x"`)},
		{"the signature moved to the end", saml.StepStructure, edit("//Signature", func(el *etree.Element) { p := el.Parent(); p.RemoveChild(el); p.AddChild(el) })},
		{"the stranger's certificate in KeyInfo", saml.StepSignature, func(x string) string {
			x = edit("//X509Certificate", func(el *etree.Element) { el.SetText(base64.StdEncoding.EncodeToString(w.stranger.Certificate.Raw)) })(x)
			return strings.ReplaceAll(x, alice, victim)
		}},
	} {
		for mode := 1; mode <= 3; mode++ {
			t.Run(fmt.Sprint(test.name, " ", mode), func(t *testing.T) {
				x := string(w.response(t, w.saying(mode&1 != 0, mode&2 != 0)))
				changed := test.edit(x)
				if changed == x {
					t.Fatal("nothing was changed")
				}
				w.mustRefuse(t, w.c, []byte(changed), test.step, details[test.name])
			})
		}
	}
}

// TestRemovedSignature: what is left when a signature is taken away is not signed.
func TestRemovedSignature(t *testing.T) {
	w := made()
	for mode := 1; mode <= 2; mode++ {
		root := parse(t, w.response(t, w.saying(mode == 1, mode == 2)))
		for _, el := range root.FindElements("//Signature") {
			el.Parent().RemoveChild(el)
		}
		w.mustRefuse(t, w.c, write(t, root), saml.StepSignature, "neither")
	}
}

// TestKeyInfo: it is not signed, so that it may say anything and nothing follows from it.
func TestKeyInfo(t *testing.T) {
	w := made()
	for name, change := range map[string]func(*etree.Element){
		"none":       func(el *etree.Element) { el.Parent().RemoveChild(el) },
		"another's":  func(el *etree.Element) { el.FindElement("//X509Certificate").SetText("eA==") },
		"an RSA key": func(el *etree.Element) { el.RemoveChild(el.ChildElements()[0]); el.CreateElement("ds:KeyValue") },
		"the stranger's": func(el *etree.Element) {
			el.FindElement("//X509Certificate").SetText(base64.StdEncoding.EncodeToString(w.stranger.Certificate.Raw))
		},
		"a name of nothing": func(el *etree.Element) {
			el.RemoveChild(el.ChildElements()[0])
			el.CreateElement("ds:KeyName").SetText("x")
		},
	} {
		root := parse(t, w.response(t, w.saying(false, true)))
		change(root.FindElement("//KeyInfo"))
		if a, err := w.validate(w.c, write(t, root)); err != nil || a.Subject != alice {
			t.Errorf("%s: %q, %s", name, a.Subject, detail(err))
		}
	}
}

// TestBounded: nothing is worth an attacker's time.
func TestBounded(t *testing.T) {
	w := made()
	x := string(w.response(t, w.saying(true, true)))
	inside := func(s string) string { return strings.Replace(x, "<saml:Subject>", s+"<saml:Subject>", 1) }
	for name, text := range map[string]string{
		"8 MB of comment":       inside("<!--" + strings.Repeat("x", 8<<20) + "-->"),
		"8 MB of space":         inside(strings.Repeat(" ", 8<<20)),
		"200 KB of comment":     inside("<!--" + strings.Repeat("x", 200<<10) + "-->"),
		"40 000 levels":         strings.Repeat("<a>", 40000) + strings.Repeat("</a>", 40000),
		"30 000 open":           strings.Repeat("<a>", 30000),
		"100 levels":            inside(strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100)),
		"60 000 elements":       inside(strings.Repeat("<a/>", 60000)),
		"10 000 attributes":     inside("<a" + attributes(10000) + "/>"),
		"20 times 10 attribute": inside(strings.Repeat("<a"+attributes(200)+"/>", 60)),
		"a name of 100 KB":      inside("<" + strings.Repeat("a", 100<<10) + "/>"),
		"10 000 namespaces":     inside("<a" + namespaces(8000) + "/>"),
		"a NameID of 200 KB":    strings.Replace(x, alice, strings.Repeat("x", 200<<10), 1),
		"billion laughs":        `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>`,
		"zeros":                 string(make([]byte, 200<<10)),
	} {
		t.Run(name, func(t *testing.T) { w.mustRefuse(t, w.c, []byte(text), "", "") })
	}
	// What is within the limits takes a bounded time too.
	s := w.saying(true, true)
	for i := range 3500 {
		s.Groups = append(s.Groups, fmt.Sprint("group-of-people-", i))
	}
	w.idp = w.stranger
	data := w.response(t, s)
	w.mustRefuse(t, w.c, data, saml.StepSignature, "")
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` a%d="x"`, i)
	}
	return b.String()
}

func namespaces(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` xmlns:a%d="urn:x"`, i)
	}
	return b.String()
}

func TestBase64(t *testing.T) {
	w := made()
	data := w.response(t, w.saying(true, true))
	encoded := base64.StdEncoding.EncodeToString(data)
	var lines strings.Builder
	for len(encoded) > 76 {
		lines.WriteString(encoded[:76] + "\r\n")
		encoded = encoded[76:]
	}
	lines.WriteString(encoded + "\r\n")
	if _, err := saml.Validate(t.Context(), w.c, lines.String(), w.expect(), w.now); err != nil {
		t.Error("broken into lines:", detail(err))
	}
	for name, raw := range map[string]string{
		"empty": "", "not base64": "<samlp:Response/>", "of URLs": base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe\xfd")),
		"long": strings.Repeat("A", 1<<20), "spaces": strings.Repeat(" ", 9<<20),
	} {
		began := time.Now()
		a, err := saml.Validate(t.Context(), w.c, raw, w.expect(), w.now)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("%s: %s", name, took)
		}
		checkRefusal(t, a, err, "", "")
	}
}

// TestScan: what is held to be well-formed by the scanner is so for others, and nothing
// that a reader could take for something else passes.
func TestScan(t *testing.T) {
	for text, want := range map[string]bool{
		`<a/>`: true, `<a b="c">d</a>`: true, "<?xml version=\"1.0\" encoding='UTF-8'?>\n<a/>\n": true, `<a xmlns="urn:x" xmlns:b="urn:y" b:c="d" c="e"/>`: true,
		`<a>&lt;&#65;&amp;</a>`: true, `<a xml:lang="en"/>`: true, `<a xmlns:xml="http://www.w3.org/XML/1998/namespace"/>`: true,
		`<a></b>`: false, `<a>`: false, `</a>`: false, `<a/><b/>`: false, `x<a/>`: false, `<a b="1" b="2"/>`: false,
		`<a xmlns:b="urn:x" xmlns:c="urn:x" b:d="1" c:d="2"/>`: false, `<a xmlns:xml="urn:x"/>`: false, `<a xmlns:b=""/>`: false, `<a xmlns=""/>`: false,
		`<a xmlns:b="http://www.w3.org/XML/1998/namespace"/>`: false, `<a b=c/>`: false, `<a b/>`: false, `<a b="<"/>`: false, "<a>\x00</a>": false, "<a>\xff</a>": false,
		`<é/>`: false, `<a:b/>`: false, `<xmlns:a/>`: false, ` <?xml version="1.0"?><a/>`: false, `<?xml version="1.0" encoding="ISO-8859-1"?><a/>`: false,
		`<a id="x"><b ID="x"/></a>`: false, `<a Id="x y"/>`: false, `<a>]]></a>`: false, `<?xml version="1.1"?><a/>`: false,
	} {
		if err := saml.Scan([]byte(text)); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	for n, want := range map[int]bool{4999: true, 5000: false} {
		if err := saml.Scan([]byte("<a>" + strings.Repeat("<b/>", n) + "</a>")); (err == nil) != want {
			t.Errorf("%d elements: %v", n, err)
		}
	}
	for n, want := range map[int]bool{24: true, 25: false} {
		if err := saml.Scan([]byte(strings.Repeat("<a>", n) + strings.Repeat("</a>", n))); (err == nil) != want {
			t.Errorf("%d levels: %v", n, err)
		}
		if err := saml.Scan([]byte("<a" + attributes(n) + "/>")); (err == nil) != want {
			t.Errorf("%d attributes: %v", n, err)
		}
	}
}
