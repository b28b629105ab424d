package certs

import (
	"context"
	"crypto"
)

// Watch lets a test stand between the authority and its issuers' keys.
func (a *Authority) Watch(watch func(crypto.Signer) crypto.Signer) { a.watch = watch }

// Count brings the gauges up to date.
func (a *Authority) Count(ctx context.Context) error { return a.count(ctx) }
