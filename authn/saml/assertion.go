package saml

import (
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

const (
	bearer       = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
	maxSubject   = 256 // bytes; what core §8.3.7 allows a persistent identifier
	maxStatement = 100
)

// NameID is how the provider names the person.
type NameID struct {
	Value           string
	Format          string // empty: unspecified
	NameQualifier   string
	SPNameQualifier string
}

// NameID formats that mean something here; of the others only the value counts.
const (
	FormatTransient  = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	FormatPersistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
	FormatEmail      = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
	FormatNone       = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
)

// readAssertion holds an assertion that was verified to what it must say (core §2.3.3,
// profiles §4.1.4.3). until is when it will be refused for its age alone.
func (v *validation) readAssertion(a *etree.Element) (_ Assertion, until time.Time, _ error) {
	out := Assertion{
		ID: attr(a, "ID"), Issuer: v.c.IdP.EntityID, Unsolicited: v.e.RequestID == "", Encrypted: v.encrypted,
		Signed: v.signed, SignedBy: v.signedBy, DecryptedBy: v.decryptedBy,
	}
	if attr(a, "Version") != "2.0" || out.ID == "" {
		return out, until, refuse(StepConditions, "the assertion has no ID or is not of version 2.0")
	}
	if err := v.checkIssuer(StepConditions, all(a, nsAssertion, "Issuer")); err != nil {
		return out, until, err
	}
	if err := v.checkIssued(StepConditions, a); err != nil {
		return out, until, err
	}
	out.IssuedAt, _ = instant(attr(a, "IssueInstant"))
	if err := v.checkConditions(a); err != nil {
		return out, until, err
	}
	if err := v.readSubject(a, &out); err != nil {
		return out, until, err
	}
	if err := v.readAuthn(a, &out); err != nil {
		return out, until, err
	}
	if err := v.readAttributes(a, &out); err != nil {
		return out, until, err
	}
	// By the largest skew: the connection's may be raised before that.
	return out, out.IssuedAt.Add(maxDelay + maxSkew), v.nameSubject(&out)
}

// checkConditions: an assertion is for the audience and the time that it says, and one
// that says neither is one for everybody for ever, that another service got.
func (v *validation) checkConditions(a *etree.Element) error {
	conditions := only(a, nsAssertion, "Conditions")
	if conditions == nil {
		return refuse(StepConditions, "the assertion does not have one element Conditions")
	}
	if err := v.checkWindow(StepConditions, conditions, false); err != nil {
		return err
	}
	restrictions := 0
	for _, c := range conditions.ChildElements() {
		switch {
		case is(c, nsAssertion, "AudienceRestriction"):
			restrictions++
			if err := v.checkAudience(c); err != nil {
				return err
			}
		case is(c, nsAssertion, "OneTimeUse"), is(c, nsAssertion, "ProxyRestriction"):
			// Every assertion is used once and handed to nobody.
		default:
			// What is not understood makes it indeterminate, and so not valid (core §2.5.1).
			return refuse(StepConditions, "the assertion has the unknown condition %s", quote(c.FullTag()))
		}
	}
	if restrictions == 0 {
		return refuse(StepConditions, "the assertion names no audience")
	}
	return nil
}

// checkAudience: every restriction must hold, and one does if any of its audiences is us.
func (v *validation) checkAudience(restriction *etree.Element) error {
	var named []string
	for _, el := range all(restriction, nsAssertion, "Audience") {
		value, ok := text(el)
		if !ok {
			return refuse(StepConditions, "an audience has elements in it")
		}
		named = append(named, value)
	}
	if !slices.Contains(named, v.c.EntityID) {
		return refuse(StepConditions, "the assertion is for %s, not for %s", quote(strings.Join(named, " ")), quote(v.c.EntityID))
	}
	return nil
}

// checkWindow: NotBefore and NotOnOrAfter, each only if it is there, but the second where
// the profile demands it.
func (v *validation) checkWindow(step Step, el *etree.Element, needEnd bool) error {
	begin, end := attr(el, "NotBefore"), attr(el, "NotOnOrAfter")
	if begin != "" {
		at, ok := instant(begin)
		if !ok || at.After(v.now.Add(v.skew)) {
			return refuse(step, "%s holds from %s on, which is not yet: compare the identity provider's clock", quote(el.Tag), quote(begin))
		}
	}
	if end == "" && !needEnd {
		return nil
	}
	at, ok := instant(end)
	if !ok || !v.now.Add(-v.skew).Before(at) {
		return refuse(step, "%s held until %s", quote(el.Tag), quote(end))
	}
	return nil
}

// readSubject takes the NameID and one confirmation that the person who brings the
// assertion is who it is about.
func (v *validation) readSubject(a *etree.Element, out *Assertion) error {
	subject := only(a, nsAssertion, "Subject")
	if subject == nil {
		return refuse(StepSubject, "the assertion does not have one Subject")
	}
	if name := only(subject, nsAssertion, "NameID"); name != nil {
		value, ok := exact(name)
		if !ok || !subjectLike(value) {
			return refuse(StepSubject, "the NameID is empty, longer than %d bytes, has space around it or something else than text in it", maxSubject)
		}
		out.NameID = NameID{
			Value: value, Format: attr(name, "Format"), NameQualifier: attr(name, "NameQualifier"), SPNameQualifier: attr(name, "SPNameQualifier"),
		}
		// A name within another service's names is another person's here.
		if q := out.NameID.SPNameQualifier; q != "" && q != v.c.EntityID {
			return refuse(StepSubject, "the NameID is one for %s, not for %s", quote(q), quote(v.c.EntityID))
		}
	} else if len(all(subject, nsAssertion, "NameID")) > 1 {
		return refuse(StepSubject, "the subject has several NameIDs")
	}
	var last error
	for _, c := range all(subject, nsAssertion, "SubjectConfirmation") {
		if last = v.checkConfirmation(c); last == nil {
			return nil
		}
	}
	if last == nil {
		last = refuse(StepSubject, "the subject has no confirmation")
	}
	return last
}

// checkConfirmation: the bearer is confirmed at our ACS, until a time, for our request.
// holder-of-key and sender-vouches would need a proof that nobody brings here.
func (v *validation) checkConfirmation(c *etree.Element) error {
	if method := attr(c, "Method"); method != bearer {
		return refuse(StepSubject, "the subject is confirmed by %s, not as bearer", quote(method))
	}
	data := only(c, nsAssertion, "SubjectConfirmationData")
	if data == nil {
		return refuse(StepSubject, "the subject's confirmation has no data")
	}
	if recipient := attr(data, "Recipient"); recipient != v.c.ACS {
		return refuse(StepSubject, "the assertion's recipient is %s, not %s", quote(recipient), quote(v.c.ACS))
	}
	if err := v.checkWindow(StepSubject, data, true); err != nil {
		return err
	}
	return v.checkInResponseTo(StepSubject, data)
}

// nameSubject finds the name that is the same at each login.
func (v *validation) nameSubject(out *Assertion) error {
	if v.c.SubjectAttribute == "" {
		switch {
		case out.NameID.Value == "":
			return refuse(StepSubject, "the subject has no NameID: let the identity provider send one, or name the attribute that is the subject")
		case out.NameID.Format == FormatTransient:
			return refuse(StepSubject, "the NameID is transient, another one at each login: let the identity provider send a persistent one, or name the attribute that is the subject")
		}
		out.Subject = out.NameID.Value
		return nil
	}
	value, ok := out.Attributes.One(v.c.SubjectAttribute)
	if !ok || !subjectLike(value) {
		return refuse(StepSubject, "the attribute %s, which is the subject, does not have one value of up to %d bytes without space around it", quote(v.c.SubjectAttribute), maxSubject)
	}
	out.Subject = value
	return nil
}

// subjectLike: space around a name would make it another's where somebody trims it, and
// is not trimmed here either.
func subjectLike(value string) bool {
	return value != "" && len(value) <= maxSubject && strings.TrimSpace(value) == value
}
