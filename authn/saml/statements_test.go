package saml_test

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/authn/saml"
)

func TestSubjectAttribute(t *testing.T) {
	w := made()
	w.c.SubjectAttribute = "email"
	s := w.saying(true, false)
	s.Format = saml.FormatTransient
	if a, err := w.validate(w.c, w.response(t, s)); err != nil || a.Subject != alice {
		t.Errorf("got %q and %v", a.Subject, detail(err))
	}
	s.EditAssertion = func(a *etree.Element) {
		value := a.FindElement("//Attribute[@Name='email']/AttributeValue").Copy()
		value.SetText(victim)
		a.FindElement("//Attribute[@Name='email']").InsertChildAt(0, value)
	}
	w.mustRefuse(t, w.c, w.response(t, s), saml.StepSubject, "one value")
}

func TestAttributes(t *testing.T) {
	w := made()
	read := func(edit func(statement *etree.Element)) saml.Attributes {
		s := w.saying(true, false)
		s.Groups = nil
		s.EditAssertion = func(a *etree.Element) { edit(a.FindElement("//AttributeStatement")) }
		a, err := w.validate(w.c, w.response(t, s))
		if err != nil {
			t.Fatal(detail(err))
		}
		return a.Attributes
	}
	add := func(statement *etree.Element, name string, values ...string) *etree.Element {
		el := statement.CreateElement("saml:Attribute")
		el.CreateAttr("Name", name)
		el.CreateAttr("FriendlyName", "groups")
		for _, v := range values {
			el.CreateElement("saml:AttributeValue").SetText(v)
		}
		return el
	}
	for _, test := range []struct {
		name   string
		edit   func(*etree.Element)
		want   []string
		stated bool
	}{
		{"missing is no statement", func(*etree.Element) {}, nil, false},
		{"no attributes at all", func(s *etree.Element) { s.Parent().RemoveChild(s) }, nil, false},
		{"only by a friendly name", func(s *etree.Element) { add(s, "other", "admins") }, nil, false},
		{"stated to be none", func(s *etree.Element) { add(s, "groups") }, []string{}, true},
		{"an empty value is none", func(s *etree.Element) { add(s, "groups", "") }, []string{}, true},
		{"several", func(s *etree.Element) { add(s, "groups", "a", " b", " \n", "", "c") }, []string{"a", " b", "c"}, true},
		{"one attribute for each", func(s *etree.Element) { add(s, "groups", "a"); add(s, "groups", "b") }, []string{"a", "b"}, true},
		{"a value of elements", func(s *etree.Element) {
			add(s, "groups", "a").CreateElement("saml:AttributeValue").CreateElement("saml:NameID").SetText("b")
		}, []string{"a"}, true},
		{"too many to send", func(s *etree.Element) {
			add(s, "groups", "a")
			add(s, "http://schemas.microsoft.com/claims/groups.link", "https://graph.windows.net/…")
		}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, stated := read(test.edit).Groups("groups")
			if diff := cmp.Diff(test.want, got); diff != "" || stated != test.stated {
				t.Errorf("stated %v, want %v; %s", stated, test.stated, diff)
			}
		})
	}
	attributes := read(func(s *etree.Element) { add(s, "two", "a", "b") })
	if value, ok := attributes.One("email"); value != alice || !ok {
		t.Errorf("One(email) is %q, %v", value, ok)
	}
	for _, name := range []string{"two", "none"} {
		if value, ok := attributes.One(name); ok {
			t.Errorf("One(%s) is %q", name, value)
		}
	}
}

func TestFreshProof(t *testing.T) {
	w := made()
	s := w.saying(true, false)
	s.EditAssertion = func(a *etree.Element) {
		a.FindElement("//AuthnStatement").CreateAttr("AuthnInstant", w.now.Add(-time.Hour).Format(time.RFC3339))
	}
	data := base64.StdEncoding.EncodeToString(w.response(t, s))
	expect := w.expect()
	if _, err := saml.Validate(t.Context(), w.c, data, expect, w.now); err != nil {
		t.Error(detail(err))
	}
	expect.MaxAge = 5 * time.Minute
	a, err := saml.Validate(t.Context(), w.c, data, expect, w.now)
	checkRefusal(t, a, err, saml.StepStatements, "fresh")
}
