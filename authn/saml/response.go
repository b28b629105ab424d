package saml

import (
	"github.com/beevik/etree"
)

const statusSuccess = "urn:oasis:names:tc:SAML:2.0:status:Success"

// checkResponse holds the response to what was asked for (core §3.2.2, bindings §3.5.5.2).
// Where the response is not signed, anybody can have written these; they are checked
// all the same, and what counts is checked again in the assertion.
func (v *validation) checkResponse(r *etree.Element, signed bool) error {
	if attr(r, "Version") != "2.0" || attr(r, "ID") == "" {
		return refuse(StepResponse, "the response has no ID or is not of version 2.0")
	}
	if err := v.checkStatus(r); err != nil {
		return err
	}
	// One that was posted to another service is not for us, though it may be signed.
	destination := attr(r, "Destination")
	if destination != v.c.ACS && (destination != "" || signed) {
		return refuse(StepResponse, "the response's destination is %s, not %s", quote(destination), quote(v.c.ACS))
	}
	if list := all(r, nsAssertion, "Issuer"); len(list) > 0 {
		if err := v.checkIssuer(StepResponse, list); err != nil {
			return err
		}
	}
	if err := v.checkIssued(StepResponse, r); err != nil {
		return err
	}
	return v.checkInResponseTo(StepResponse, r)
}

// checkStatus comes before anything else is asked of a response: a provider that refuses
// says so without an assertion and often without a signature.
func (v *validation) checkStatus(r *etree.Element) error {
	status := only(r, nsProtocol, "Status")
	if status == nil {
		return refuse(StepResponse, "the response has no status")
	}
	code := only(status, nsProtocol, "StatusCode")
	if code == nil {
		return refuse(StepResponse, "the response has no status code")
	}
	if value := attr(code, "Value"); value != statusSuccess {
		second, message := "", ""
		if el := only(code, nsProtocol, "StatusCode"); el != nil {
			second = attr(el, "Value")
		}
		if el := only(status, nsProtocol, "StatusMessage"); el != nil {
			message, _ = text(el)
		}
		return refuse(StepResponse, "the identity provider refused: %s %s %s", quote(value), quote(second), quote(message))
	}
	return nil
}

// checkIssuer: another provider's response, signed or not, is not this connection's.
func (v *validation) checkIssuer(step Step, list []*etree.Element) error {
	if len(list) != 1 {
		return refuse(step, "there is not one Issuer but %d", len(list))
	}
	value, ok := text(list[0])
	if !ok || value != v.c.IdP.EntityID {
		return refuse(step, "the issuer is %s, not %s", quote(value), quote(v.c.IdP.EntityID))
	}
	if format := attr(list[0], "Format"); format != "" && format != "urn:oasis:names:tc:SAML:2.0:nameid-format:entity" {
		return refuse(step, "the issuer is of the format %s", quote(format))
	}
	return nil
}

// checkIssued: neither from the future nor kept for later.
func (v *validation) checkIssued(step Step, el *etree.Element) error {
	at, ok := instant(attr(el, "IssueInstant"))
	switch {
	case !ok:
		return refuse(step, "%s has the IssueInstant %s, which is no time in UTC", quote(el.Tag), quote(attr(el, "IssueInstant")))
	case at.After(v.now.Add(v.skew)):
		return refuse(step, "%s was issued at %s, in the future: compare the identity provider's clock", quote(el.Tag), at)
	case at.Before(v.now.Add(-maxDelay - v.skew)):
		return refuse(step, "%s was issued at %s, too long ago", quote(el.Tag), at)
	}
	return nil
}

// checkInResponseTo: the answer to another request was stolen or is brought to another
// browser; an answer to none where one was asked for is somebody else's login
// (crewjam/saml PR 659). It is missing exactly where nothing was asked.
func (v *validation) checkInResponseTo(step Step, el *etree.Element) error {
	if got := attr(el, "InResponseTo"); got != v.e.RequestID {
		return refuse(step, "%s answers the request %s, not %s", quote(el.Tag), quote(got), quote(v.e.RequestID))
	}
	return nil
}
