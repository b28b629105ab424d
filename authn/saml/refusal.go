package saml

import (
	"fmt"
	"strconv"

	"github.com/sallyport-iam/sallyport"
)

// Step is where a response was refused.
type Step string

const (
	StepEncoding   Step = "encoding"   // base64 and size
	StepParse      Step = "parse"      // the XML as such
	StepStructure  Step = "structure"  // what is where
	StepSignature  Step = "signature"  // who said it
	StepDecryption Step = "decryption" // whether it can be read
	StepResponse   Step = "response"   // whether it answers us
	StepConditions Step = "conditions" // whether it is for us and now
	StepSubject    Step = "subject"    // whom it is about
	StepStatements Step = "statements" // what it says
	StepReplay     Step = "replay"
	StepInternal   Step = "internal"
)

// Refusal is a response that is not taken. Its text is the same for all of them, since
// whoever posts a response may be anybody; what the audit log gets is in Step and
// Detail.
type Refusal struct {
	Step   Step
	detail string
}

// refused is what strangers read.
const refused = "the sign-in was not accepted: begin again, and if it fails again, ask an administrator of your account, who finds the reason in the audit log"

// Error says nothing that helps to make a better forgery.
func (r *Refusal) Error() string { return refused }

// Detail is the precise reason, for the account's audit log. What it quotes from the
// response is short and escaped.
func (r *Refusal) Detail() string { return r.detail }

// Unwrap gives the error that may be shown, of kind Unauthenticated.
func (r *Refusal) Unwrap() error {
	return &sallyport.Error{Kind: sallyport.Unauthenticated, Msg: refused}
}

func refuse(step Step, format string, args ...any) *Refusal {
	return &Refusal{Step: step, detail: fmt.Sprintf(format, args...)}
}

// quote makes a text of the response safe for a log: short, on one line, in ASCII.
func quote(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strconv.QuoteToASCII(text)
}
