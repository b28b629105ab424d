// Package oidc signs people in with the OpenID Connect providers that accounts
// and the operator configure, and with GitHub, which speaks OAuth only. It is the
// relying party: it asks, and believes nothing that it has not checked.
//
// It keeps nothing but the documents that providers publish. What lies between the
// two halves of a sign-in, Begin and Finish, is a Pending that the caller keeps for
// the browser that began, and gives up with one atomic step before it calls Finish:
// that makes a callback good for once, and for that browser only.
//
// Tokens are checked by go-oidc behind rules of this package: it bounds what is
// fetched and parsed, finds the key, and checks what go-oidc leaves to its users.
package oidc

import (
	"errors"
	"time"

	"github.com/sallyport-iam/sallyport/internal/fetch"
)

const (
	// MaxPending is how long a person may take to sign in at the provider.
	MaxPending = 15 * time.Minute

	skew        = 2 * time.Minute // that a provider's clock may be off
	maxToken    = 32 << 10        // bytes of a signed token
	maxHeader   = 4 << 10         // bytes of its header, in base64
	maxKeyID    = 512
	maxSubject  = 255 // bytes; OpenID Connect Core 1.0 §2
	maxText     = 512 // bytes of ids and names that are not told apart further
	maxURL      = 2048
	maxAudience = 20
)

// Config of a Client.
type Config struct {
	Fetch *fetch.Client    // required: reaches the providers, within its rules
	Now   func() time.Time // nil: time.Now
}

// Client is the relying party of all connections. It is safe for concurrent use.
type Client struct {
	fetch     *fetch.Client
	now       func() time.Time
	documents *documents
}

// New makes a Client.
func New(c Config) (*Client, error) {
	if c.Fetch == nil {
		return nil, errors.New("oidc: Config needs Fetch")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{fetch: c.Fetch, now: c.Now, documents: newDocuments(c.Fetch, c.Now)}, nil
}
