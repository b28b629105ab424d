package saml_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"
	"github.com/russellhaering/goxmldsig"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

func TestAccepted(t *testing.T) {
	w := made()
	for _, test := range []struct {
		name      string
		response  bool
		assertion bool
		edit      func(*samltest.Saying)
	}{
		{"response signed", true, false, nil},
		{"assertion signed", false, true, nil},
		{"both signed", true, true, nil},
		{"response signed, default namespace", true, false, func(s *samltest.Saying) { s.DefaultNamespace = true }},
		{"assertion signed, default namespace", false, true, func(s *samltest.Saying) { s.DefaultNamespace = true }},
		{"both signed, default namespace", true, true, func(s *samltest.Saying) { s.DefaultNamespace = true }},
		{"SHA-512", true, true, func(s *samltest.Saying) { s.Method = dsig.RSASHA512SignatureMethod }},
		{"namespaces of the response", false, true, func(s *samltest.Saying) {
			s.EditResponse = func(r *etree.Element) { r.CreateAttr("xmlns:xs", "http://www.w3.org/2001/XMLSchema") }
		}},
		{"three thousand groups", true, true, func(s *samltest.Saying) {
			for i := range 3000 {
				s.Groups = append(s.Groups, fmt.Sprint("group", i))
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := w.saying(test.response, test.assertion)
			if test.edit != nil {
				test.edit(&s)
			}
			a, err := w.validate(w.c, w.response(t, s))
			if err != nil {
				t.Fatal(detail(err))
			}
			var signed []string
			if test.response {
				signed = append(signed, "Response")
			}
			if test.assertion {
				signed = append(signed, "Assertion")
			}
			got := []any{a.Subject, a.NameID, a.Issuer, a.Signed, a.Encrypted, a.Unsolicited, a.SessionIndex, a.AuthnInstant.Equal(w.now.Truncate(time.Millisecond))}
			want := []any{alice, saml.NameID{Value: alice, Format: saml.FormatEmail}, w.idp.EntityID, signed, false, false, "session-1", true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			groups, stated := a.Attributes.Groups("groups")
			if !stated || len(groups) != len(s.Groups) || groups[0] != "admins" {
				t.Errorf("got %d groups, stated %v", len(groups), stated)
			}
			if !a.SignedBy.Equal(w.idp.Certificate) || len(a.Warnings) != 0 {
				t.Errorf("signed by %v with %v", a.SignedBy.Subject, a.Warnings)
			}
		})
	}
}

func TestECDSA(t *testing.T) {
	w := made()
	w.idp = w.elliptic
	data := w.response(t, w.saying(true, true))
	if _, err := w.validate(w.c, data); err != nil {
		t.Fatal("as a sequence:", detail(err))
	}
	root := parse(t, data)
	for _, el := range root.FindElements("//SignatureValue") {
		el.SetText(sideBySide(t, el.Text()))
	}
	// The response's signature covers the assertion's, so that only the inner one can be
	// rewritten after signing, in a response that is not signed.
	inner := parse(t, w.response(t, w.saying(false, true)))
	value := inner.FindElement("//SignatureValue")
	value.SetText(sideBySide(t, value.Text()))
	if _, err := w.validate(w.c, write(t, inner)); err != nil {
		t.Error("side by side:", detail(err))
	}
	w.mustRefuse(t, w.c, write(t, root), saml.StepSignature, "")
}

// TestRefused is what a provider signs and we do not take.
func TestRefused(t *testing.T) {
	w := made()
	at := func(d time.Duration) string { return w.now.Add(d).Format(time.RFC3339) }
	set := func(path, name, value string) func(*etree.Element) {
		return func(a *etree.Element) {
			el := a
			if path != "" {
				el = a.FindElement(path)
			}
			el.CreateAttr(name, value)
		}
	}
	drop := func(path, name string) func(*etree.Element) {
		return func(a *etree.Element) {
			el := a
			if path != "" {
				el = a.FindElement(path)
			}
			if name == "" {
				el.Parent().RemoveChild(el)
			} else {
				el.RemoveAttr(name)
			}
		}
	}
	text := func(path, value string) func(*etree.Element) {
		return func(a *etree.Element) { a.FindElement(path).SetText(value) }
	}
	twice := func(path string) func(*etree.Element) {
		return func(a *etree.Element) { el := a.FindElement(path); el.Parent().AddChild(el.Copy()) }
	}
	const data, confirmation = "//SubjectConfirmationData", "//SubjectConfirmation"
	for _, test := range []struct {
		name   string
		step   saml.Step
		detail string
		a, r   func(*etree.Element)
	}{
		{"no conditions", saml.StepConditions, "Conditions", drop("//Conditions", ""), nil},
		{"two conditions", saml.StepConditions, "Conditions", twice("//Conditions"), nil},
		{"no audience", saml.StepConditions, "no audience", drop("//AudienceRestriction", ""), nil},
		{"another audience", saml.StepConditions, "not for", text("//Audience", "https://other.example.com"), nil},
		{"two restrictions, one ours", saml.StepConditions, "not for", func(a *etree.Element) {
			twice("//AudienceRestriction")(a)
			a.FindElement("//Audience").SetText("https://other.example.com")
		}, nil},
		{"unknown condition", saml.StepConditions, "unknown condition", func(a *etree.Element) { a.FindElement("//Conditions").CreateElement("saml:Condition") }, nil},
		{"not yet", saml.StepConditions, "not yet", set("//Conditions", "NotBefore", at(3*time.Minute)), nil},
		{"no longer", saml.StepConditions, "held until", set("//Conditions", "NotOnOrAfter", at(-3*time.Minute)), nil},
		{"an end that is none", saml.StepConditions, "held until", set("//Conditions", "NotOnOrAfter", "soon"), nil},
		{"an end without a zone", saml.StepConditions, "held until", set("//Conditions", "NotOnOrAfter", "2100-01-01T00:00:00"), nil},
		{"issued in the future", saml.StepConditions, "in the future", set("", "IssueInstant", at(time.Hour)), nil},
		{"issued long ago", saml.StepConditions, "too long ago", set("", "IssueInstant", at(-time.Hour)), nil},
		{"version 1.1", saml.StepConditions, "version", set("", "Version", "1.1"), nil},
		{"another issuer", saml.StepConditions, "issuer", text("./Issuer", "https://other.example.com"), nil},
		{"no issuer", "", "", drop("./Issuer", ""), nil},
		{"no subject", saml.StepSubject, "Subject", drop("./Subject", ""), nil},
		{"no NameID", saml.StepSubject, "NameID", drop("//NameID", ""), nil},
		{"two NameIDs", saml.StepSubject, "NameID", twice("//NameID"), nil},
		{"empty NameID", saml.StepSubject, "NameID", text("//NameID", " "), nil},
		{"space around the NameID", saml.StepSubject, "NameID", text("//NameID", alice+" "), nil},
		{"NameID with an element", saml.StepSubject, "NameID", func(a *etree.Element) { a.FindElement("//NameID").CreateElement("b").SetText("x") }, nil},
		{"transient", saml.StepSubject, "transient", set("//NameID", "Format", saml.FormatTransient), nil},
		{"a name for another service", saml.StepSubject, "not for", set("//NameID", "SPNameQualifier", "https://other.example.com"), nil},
		{"no confirmation", saml.StepSubject, "confirmation", drop(confirmation, ""), nil},
		{"no confirmation data", saml.StepSubject, "data", drop(data, ""), nil},
		{"holder of key", saml.StepSubject, "bearer", set(confirmation, "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"), nil},
		{"no recipient", saml.StepSubject, "recipient", drop(data, "Recipient"), nil},
		{"another recipient", saml.StepSubject, "recipient", set(data, "Recipient", acs+"/"), nil},
		{"confirmation without end", saml.StepSubject, "held until", drop(data, "NotOnOrAfter"), nil},
		{"confirmation ended", saml.StepSubject, "held until", set(data, "NotOnOrAfter", at(-2*time.Minute)), nil},
		{"confirmation not yet", saml.StepSubject, "not yet", set(data, "NotBefore", at(time.Hour)), nil},
		{"assertion for another request", saml.StepSubject, "answers", set(data, "InResponseTo", "_other"), nil},
		{"assertion for no request", saml.StepSubject, "answers", drop(data, "InResponseTo"), nil},
		{"no statement of authentication", saml.StepStatements, "signed in", drop("//AuthnStatement", ""), nil},
		{"authenticated tomorrow", saml.StepStatements, "AuthnInstant", set("//AuthnStatement", "AuthnInstant", at(24*time.Hour)), nil},
		{"session over", saml.StepStatements, "ended", set("//AuthnStatement", "SessionNotOnOrAfter", at(-time.Hour)), nil},
		{"attribute without name", saml.StepStatements, "name", drop("//Attribute", "Name"), nil},
		{"response for another request", saml.StepResponse, "answers", nil, set("", "InResponseTo", "_other")},
		{"response for no request", saml.StepResponse, "answers", nil, drop("", "InResponseTo")},
		{"another destination", saml.StepResponse, "destination", nil, set("", "Destination", "https://other.example.com/acs")},
		{"signed without destination", saml.StepResponse, "destination", nil, drop("", "Destination")},
		{"response by another issuer", saml.StepResponse, "issuer", nil, text("./Issuer", "https://other.example.com")},
		{"response from the future", saml.StepResponse, "in the future", nil, set("", "IssueInstant", at(time.Hour))},
		{"response without time", saml.StepResponse, "IssueInstant", nil, drop("", "IssueInstant")},
		{"response of version 1.1", saml.StepResponse, "version", nil, set("", "Version", "1.1")},
		{"no status", saml.StepResponse, "status", nil, drop("//Status", "")},
		{"the provider refuses", saml.StepResponse, "AuthnFailed", nil, set("//StatusCode", "Value", "urn:oasis:names:tc:SAML:2.0:status:AuthnFailed")},
		{"two assertions", saml.StepStructure, "more than one", nil, func(r *etree.Element) {
			twice("./Assertion")(r)
			r.FindElement("./Assertion").CreateAttr("ID", "_other")
		}},
		{"no assertion", saml.StepStructure, "no assertion", nil, drop("./Assertion", "")},
		{"an assertion as advice", saml.StepStructure, "within", func(a *etree.Element) {
			a.CreateElement("saml:Advice").CreateElement("saml:Assertion").CreateAttr("ID", "_advice")
		}, nil},
		{"something else in the response", saml.StepStructure, "has the element", nil, func(r *etree.Element) { r.CreateElement("samlp:Artifact") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := w.saying(true, false)
			s.EditAssertion, s.EditResponse = test.a, test.r
			w.mustRefuse(t, w.c, w.response(t, s), test.step, test.detail)
		})
	}
}

func TestUnsigned(t *testing.T) {
	w := made()
	w.mustRefuse(t, w.c, w.response(t, w.saying(false, false)), saml.StepSignature, "neither")
	w.idp = w.stranger
	for _, s := range []samltest.Saying{w.saying(true, false), w.saying(false, true), w.saying(true, true)} {
		w.mustRefuse(t, w.c, w.response(t, s), saml.StepSignature, "by none of")
	}
}

// TestOneOfTwo: every signature that is there verifies, not just one that suffices.
func TestOneOfTwo(t *testing.T) {
	w := made()
	s := w.saying(false, true)
	s.EditResponse = func(r *etree.Element) {
		signed, err := w.stranger.Sign(r, "")
		if err != nil {
			t.Fatal(err)
		}
		r.InsertChildAt(1, signed.ChildElements()[1])
	}
	w.mustRefuse(t, w.c, w.response(t, s), saml.StepSignature, `"Response" is by none of`)
	stranger := w
	stranger.idp = w.stranger
	root := parse(t, stranger.response(t, w.saying(false, true)))
	signed, err := w.idp.Sign(root, "")
	if err != nil {
		t.Fatal(err)
	}
	w.mustRefuse(t, w.c, write(t, signed), saml.StepSignature, `"Assertion" is by none of`)
}

func TestLegacy(t *testing.T) {
	w := made()
	s := w.saying(true, false)
	s.Method = dsig.RSASHA1SignatureMethod
	data := w.response(t, s)
	w.mustRefuse(t, w.c, data, saml.StepSignature, "rsa-sha1")
	w.c.AllowLegacy = true
	if _, err := w.validate(w.c, data); err != nil {
		t.Error(detail(err))
	}
}

func TestUnsolicited(t *testing.T) {
	w := made()
	s := w.saying(true, false)
	s.RequestID = ""
	data := base64.StdEncoding.EncodeToString(w.response(t, s))
	expect := w.expect()
	expect.RequestID = ""
	_, err := saml.Validate(t.Context(), w.c, data, expect, w.now)
	checkRefusal(t, saml.Assertion{}, err, saml.StepResponse, "does not take")
	w.c.AllowUnsolicited = true
	a, err := saml.Validate(t.Context(), w.c, data, expect, w.now)
	if err != nil || !a.Unsolicited {
		t.Errorf("got %v, unsolicited %v", detail(err), a.Unsolicited)
	}
	// An answer to a login that was begun elsewhere is not unsolicited.
	a, err = saml.Validate(t.Context(), w.c, base64.StdEncoding.EncodeToString(w.response(t, w.saying(true, false))), expect, w.now)
	checkRefusal(t, a, err, saml.StepResponse, "answers the request")
	// Nor may an unsolicited one end a login that was begun here.
	a, err = saml.Validate(t.Context(), w.c, data, w.expect(), w.now)
	checkRefusal(t, a, err, saml.StepResponse, "answers the request")
}

// TestSkew: a clock that is off by as much as allowed, and by more.
func TestSkew(t *testing.T) {
	w := made()
	data := base64.StdEncoding.EncodeToString(w.response(t, w.saying(true, true)))
	for _, test := range []struct {
		skew, off time.Duration
		taken     bool
	}{
		{0, -80 * time.Second, true}, {0, -100 * time.Second, false},
		{4 * time.Minute, -3 * time.Minute, true}, {4 * time.Minute, -5 * time.Minute, false},
		{0, 5*time.Minute + 80*time.Second, true}, {0, 5*time.Minute + 100*time.Second, false},
	} {
		w.c.Skew = test.skew
		_, err := saml.Validate(t.Context(), w.c, data, w.expect(), w.now.Add(test.off))
		if (err == nil) != test.taken {
			t.Errorf("skew %s, off by %s: %v", test.skew, test.off, detail(err))
		}
	}
	w.c.Skew = time.Hour
	if _, err := saml.Validate(t.Context(), w.c, data, w.expect(), w.now); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("a skew of an hour: %v", err)
	}
}

// TestReplay: many bring one response, and one is let in.
func TestReplay(t *testing.T) {
	w := made()
	data := base64.StdEncoding.EncodeToString(w.response(t, w.saying(true, true)))
	var used sync.Map
	var lastUntil atomic.Pointer[time.Time]
	expect := w.expect()
	expect.Use = func(_ context.Context, id string, until time.Time) error {
		lastUntil.Store(&until)
		if _, loaded := used.LoadOrStore(id, true); loaded {
			return sallyport.AlreadyExists.Errorf("used")
		}
		return nil
	}
	var taken atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			a, err := saml.Validate(t.Context(), w.c, data, expect, w.now)
			if err == nil {
				taken.Add(1)
				return
			}
			checkRefusal(t, a, err, saml.StepReplay, "used before")
		})
	}
	group.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d were let in", taken.Load())
	}
	// When the note of it may go, the response is refused for its age.
	_, err := saml.Validate(t.Context(), w.c, data, w.expect(), lastUntil.Load().Add(time.Second))
	checkRefusal(t, saml.Assertion{}, err, "", "")

	expect.Use = func(context.Context, string, time.Time) error { return sallyport.Unavailable.Errorf("no database") }
	if a, err := saml.Validate(t.Context(), w.c, data, expect, w.now); !errors.Is(err, sallyport.Unavailable) || a.Subject != "" {
		t.Errorf("without a table: %q, %v", a.Subject, err)
	}
	expect.Use = func(context.Context, string, time.Time) error { panic("boom") }
	var refusal *saml.Refusal
	if a, err := saml.Validate(t.Context(), w.c, data, expect, w.now); !errors.As(err, &refusal) || refusal.Step != saml.StepInternal || a.Subject != "" {
		t.Errorf("a panic gives %q, %v", a.Subject, err)
	}
}

// TestConnection: what would leave something unchecked is an error, whatever is sent.
func TestConnection(t *testing.T) {
	w := made()
	data := base64.StdEncoding.EncodeToString(w.response(t, w.saying(true, true)))
	for name, edit := range map[string]func(*saml.Connection, *saml.Expect){
		"no entity ID":       func(c *saml.Connection, _ *saml.Expect) { c.EntityID = "" },
		"no ACS":             func(c *saml.Connection, _ *saml.Expect) { c.ACS = "" },
		"ACS without host":   func(c *saml.Connection, _ *saml.Expect) { c.ACS = "/acs" },
		"no issuer":          func(c *saml.Connection, _ *saml.Expect) { c.IdP.EntityID = "" },
		"no certificates":    func(c *saml.Connection, _ *saml.Expect) { c.IdP.Certificates = nil },
		"many certificates":  func(c *saml.Connection, _ *saml.Expect) { c.IdP.Certificates = make([]*x509.Certificate, 11) },
		"negative skew":      func(c *saml.Connection, _ *saml.Expect) { c.Skew = -1 },
		"no table of replay": func(_ *saml.Connection, e *saml.Expect) { e.Use = nil },
	} {
		c, expect := w.c, w.expect()
		edit(&c, &expect)
		if a, err := saml.Validate(t.Context(), c, data, expect, w.now); !errors.Is(err, sallyport.Invalid) || a.Subject != "" {
			t.Errorf("%s: %q, %v", name, a.Subject, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	w := made()
	for _, test := range []struct {
		from, to time.Duration // of the certificate, relative to now
		taken    bool
		warning  saml.WarningKind
	}{
		{-time.Hour, 60 * 24 * time.Hour, true, ""},
		{-time.Hour, 10 * 24 * time.Hour, true, saml.CertificateEnding},
		{-48 * time.Hour, -24 * time.Hour, true, saml.CertificateEnded},
		{-48 * 24 * time.Hour, -15 * 24 * time.Hour, false, ""},
		{23 * time.Hour, 60 * 24 * time.Hour, true, ""},
		{25 * time.Hour, 60 * 24 * time.Hour, false, ""},
	} {
		certificate, err := samltest.Certificate(w.idp.Key, w.now.Add(test.from), w.now.Add(test.to))
		if err != nil {
			t.Fatal(err)
		}
		c := w.c
		c.IdP.Certificates = []*x509.Certificate{w.stranger.Certificate, certificate}
		a, err := w.validate(c, w.response(t, w.saying(true, false)))
		var warning saml.WarningKind
		if len(a.Warnings) > 0 {
			warning = a.Warnings[0].Kind
		}
		if (err == nil) != test.taken || warning != test.warning {
			t.Errorf("from %s to %s: %v, warning %q", test.from, test.to, detail(err), warning)
		}
	}
}

// detail is what the audit log gets.
func detail(err error) string {
	var refusal *saml.Refusal
	if errors.As(err, &refusal) {
		return string(refusal.Step) + ": " + refusal.Detail()
	}
	return fmt.Sprint(err)
}

func TestStrangersReadNothing(t *testing.T) {
	w := made()
	s := w.saying(true, false)
	s.EditAssertion = func(a *etree.Element) { a.FindElement("//Audience").SetText("x\n\x1b[31m" + strings.Repeat("y", 1000)) }
	data := w.response(t, s)
	_, err := w.validate(w.c, []byte(strings.ReplaceAll(string(data), "\x1b", "")))
	var refusal *saml.Refusal
	if !errors.As(err, &refusal) || strings.ContainsAny(refusal.Detail(), "\n\x1b") || len(refusal.Detail()) > 500 {
		t.Errorf("the audit log gets %s", detail(err))
	}
}
