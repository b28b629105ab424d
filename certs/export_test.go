package certs

import "crypto"

// Watch lets a test stand between the authority and its issuers' keys.
func (a *Authority) Watch(watch func(crypto.Signer) crypto.Signer) { a.watch = watch }
