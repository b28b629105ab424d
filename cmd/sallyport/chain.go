package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/journal"
)

// chain checks an account's entries as they come. The zero chain with an
// account begins at the first entry; begin sets another place.
type chain struct {
	account  string
	known    *verifiedHead // verified earlier; nil: nothing
	start    int64         // revision before the first entry
	at       sallyport.Head
	entries  int
	compared int64 // revision at which it met known; 0: it did not
}

// begin takes the account and the place from the first entry of a file.
func (c *chain) begin(e *adminv1.AuditEntry, forget bool) error {
	r, err := recordOf(e)
	if err != nil {
		return err
	}
	if !sallyport.AccountID(r.Account).Valid() { // it becomes part of a file's name
		return errors.New("the first entry's record names no account")
	}
	c.account = r.Account
	if !forget {
		if c.known, err = loadVerified(c.account); err != nil {
			return err
		}
	}
	c.start = e.GetHead().GetRevision() - 1
	c.at = sallyport.Head{Revision: c.start}
	copy(c.at.Hash[:], e.GetPreviousHash())
	return nil
}

// add checks the entries that follow.
func (c *chain) add(entries []*adminv1.AuditEntry) error {
	list := make([]journal.Entry, len(entries))
	for i, e := range entries {
		r, err := recordOf(e)
		if err != nil {
			return err
		}
		revision := e.GetHead().GetRevision()
		switch {
		case len(e.GetHead().GetHash()) != len(sallyport.Head{}.Hash):
			return fmt.Errorf("entry %d has no hash", revision)
		case e.GetType() != r.Type || e.GetAsyncOperationId() != r.Operation || !e.GetTime().AsTime().Equal(r.At):
			return fmt.Errorf("entry %d is listed as something else than its record says", revision)
		}
		list[i].Account, list[i].Body = sallyport.AccountID(c.account), e.GetBody()
		list[i].OperationID, list[i].Type, list[i].Target, list[i].At = r.Operation, r.Type, r.Target, r.At
		list[i].Head = sallyport.Head{Epoch: e.GetHead().GetEpoch(), Revision: revision, Hash: [32]byte(e.GetHead().GetHash())}
	}
	at, err := journal.Verify(list, c.at)
	if err != nil {
		return err
	}
	for _, e := range list {
		if c.known == nil || e.Head.Revision != c.known.Revision {
			continue
		}
		if hex.EncodeToString(e.Head.Hash[:]) != c.known.Hash {
			return fmt.Errorf("entry %d is another one than was verified here at %s: the history was rewritten", c.known.Revision, c.known.Verified.UTC().Format(time.RFC3339))
		}
		c.compared = c.known.Revision
	}
	c.at = at
	c.entries += len(list)
	return nil
}

// complete checks, after the last entry of the account, that the end is not
// missing: a chain alone cannot show that.
func (c *chain) complete() error {
	switch {
	case c.entries == 0:
		return errors.New("the service has no entries at all of this account, which has at least the one that made it")
	case c.known != nil && c.at.Revision < c.known.Revision:
		return fmt.Errorf("the journal ends at revision %d, and revision %d was verified here at %s: entries were removed", c.at.Revision, c.known.Revision, c.known.Verified.UTC().Format(time.RFC3339))
	}
	return nil
}

// advise adds what to do to what is wrong with the chain; failed calls say it
// themselves.
func (c *chain) advise(err error) error {
	var call *callError
	if errors.As(err, &call) {
		return err
	}
	return fmt.Errorf("the audit log of account %s does NOT verify: %w. Save it (`sallyport audit list --limit 0 -o json`) and ask the operator whether a backup was restored; `sallyport audit verify --accept-new-history` then forgets what was verified before", c.account, err)
}

func (c *chain) verified(now time.Time) verifiedHead {
	return verifiedHead{Account: c.account, Epoch: c.at.Epoch, Revision: c.at.Revision, Hash: hex.EncodeToString(c.at.Hash[:]), Verified: now.UTC().Truncate(time.Second)}
}

func headOf(h sallyport.Head) *adminv1.Head {
	return &adminv1.Head{Epoch: h.Epoch, Revision: h.Revision, Hash: h.Hash[:]}
}

// verifiedHead is the newest entry of an account that was verified on this
// machine, whoever was logged in.
type verifiedHead struct {
	Account  string    `json:"account"`
	Epoch    int64     `json:"epoch"`
	Revision int64     `json:"revision"`
	Hash     string    `json:"hash"` // hex
	Verified time.Time `json:"verified"`
}

func verifiedPath(account string) (string, error) {
	dir, err := folder()
	return filepath.Join(dir, "verified", account+".json"), err
}

// loadVerified is nil when nothing was verified yet.
func loadVerified(account string) (*verifiedHead, error) {
	path, err := verifiedPath(account)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing was verified
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was verified before: %w", err)
	}
	var h verifiedHead
	if err := json.Unmarshal(text, &h); err != nil || h.Account != account || h.Revision <= 0 {
		return nil, fmt.Errorf("%s is damaged: what was verified before is not known; --accept-new-history begins anew", path)
	}
	return &h, nil
}

func saveVerified(h verifiedHead) error {
	path, err := verifiedPath(h.Account)
	if err != nil {
		return err
	}
	return writePrivate(path, h)
}
