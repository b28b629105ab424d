package saml_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sallyport-iam/sallyport/authn/saml"
)

// A login: the request goes out with a reference to what is kept of it, and the response
// comes back to the ACS, in a form post that has no cookie.
func Example() {
	var (
		connection saml.Connection // as it is kept, with the provider's metadata and our keys
		posted     string          // the form's SAMLResponse
		used       func(ctx context.Context, assertionID string, until time.Time) error
	)
	begin := func() (saml.Request, error) {
		return saml.NewRequest(connection, saml.Asking{RelayState: "login-4711"}, time.Now())
	}
	end := func(ctx context.Context, requestID string) (saml.Assertion, error) {
		assertion, err := saml.Validate(ctx, connection, posted, saml.Expect{RequestID: requestID, Use: used}, time.Now())
		var refusal *saml.Refusal
		if errors.As(err, &refusal) {
			slog.Info("login refused", "step", refusal.Step, "why", refusal.Detail()) // the audit log
		}
		return assertion, err // strangers may read the error
	}
	if _, err := begin(); err != nil {
		fmt.Println(err)
	}
	if _, err := end(context.Background(), "_4711"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// the connection has no key of ours to sign a request with
	// the connection has no entity ID or no ACS URL of ours
}
