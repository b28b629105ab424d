package certs

import (
	"time"

	"github.com/sallyport-iam/sallyport"
)

const flushEvery = 5 * time.Second

// MarkUsed notes that a certificate of the managed CA was used. It never blocks
// and does not touch the database. Run writes it, to the minute, so that a busy
// certificate's row is written once a minute.
func (a *Authority) MarkUsed(account sallyport.AccountID, fingerprint string, at time.Time) {
	a.uses.Mark(account, fingerprint, at)
}
