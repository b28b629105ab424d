package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type auditCommands struct {
	List   auditList   `cmd:"" help:"List the entries, oldest first. With -o json an entry is a line, which audit verify --file reads."`
	Verify auditVerify `cmd:"" help:"Check that no entry was altered, removed or inserted."`
}

const auditPage = 1000

// auditEntries calls each with the entries after a revision, page by page;
// limit 0 means all.
func (c *client) auditEntries(ctx context.Context, after int64, limit int, each func([]*adminv1.AuditEntry) error) error {
	for got := 0; limit == 0 || got < limit; {
		size := auditPage
		if limit > 0 {
			size = min(size, limit-got)
		}
		page, err := c.admin.ListAuditEntries(ctx, &adminv1.ListAuditEntriesRequest{AfterRevision: after, PageSize: int32(size)})
		if err != nil {
			return err
		}
		entries := page.GetEntries()
		if len(entries) == 0 {
			return nil
		}
		last := entries[len(entries)-1].GetHead().GetRevision()
		if last <= after {
			return fmt.Errorf("the service answered with revision %d when it was asked for what comes after %d", last, after)
		}
		if err := each(entries); err != nil {
			return err
		}
		after, got = last, got+len(entries)
	}
	return nil
}

type auditList struct {
	After int64 `help:"Only entries with a greater revision." default:"0" placeholder:"REVISION"`
	Limit uint  `help:"At most so many; 0: all." default:"100"`
}

// auditRecord is what a list shows of an entry's record. The record is what is
// hashed, so it is read and not what stands beside it.
type auditRecord struct {
	Account   string    `json:"account"`
	At        time.Time `json:"at"`
	Operation string    `json:"operation"`
	Type      string    `json:"type"`
	Target    string    `json:"target"`
	Caller    struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"caller"`
}

func recordOf(e *adminv1.AuditEntry) (auditRecord, error) {
	var r auditRecord
	if err := json.Unmarshal(e.GetBody(), &r); err != nil {
		return r, fmt.Errorf("reading the record of entry %d: %w", e.GetHead().GetRevision(), err)
	}
	return r, nil
}

// Run lists entries.
func (c *auditList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	count, last := uint(0), int64(0)
	var rows [][]string
	if err := client.auditEntries(ctx, c.After, int(c.Limit), func(entries []*adminv1.AuditEntry) error {
		count, last = count+uint(len(entries)), entries[len(entries)-1].GetHead().GetRevision()
		if s.json {
			return s.entryLines(entries)
		}
		for _, e := range entries {
			r, err := recordOf(e)
			if err != nil {
				return err
			}
			rows = append(rows, []string{fmt.Sprint(e.GetHead().GetRevision()), r.At.UTC().Format(time.RFC3339), r.Type,
				r.Target, r.Caller.Kind + " " + r.Caller.ID, r.Operation})
		}
		return nil
	}); err != nil {
		return err
	}
	if !s.json {
		if err := s.table("no entries", []string{"REVISION", "TIME", "TYPE", "TARGET", "CALLER", "OPERATION"}, rows); err != nil {
			return err
		}
	}
	if count > 0 && count == c.Limit {
		s.note("there may be more: --after %d goes on", last)
	}
	return nil
}

func (s *session) entryLines(entries []*adminv1.AuditEntry) error {
	for _, e := range entries {
		line, err := marshal(e)
		if err != nil {
			return err
		}
		if _, err := s.stdout.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

type auditVerify struct {
	File             string `help:"Check the entries in a file (from audit list -o json) instead of the service's." placeholder:"FILE"`
	AcceptNewHistory bool   `help:"Forget what was verified before. For after a restored backup, when you know that entries were lost."`
}

// Run checks the chain here, with nothing but the bytes, and against the
// newest entry that was verified on this machine before.
func (c *auditVerify) Run(ctx context.Context, s *session) error {
	if c.File != "" {
		return c.verifyFile(s)
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	chain := &chain{account: string(client.account)}
	if !c.AcceptNewHistory {
		if chain.known, err = loadVerified(chain.account); err != nil {
			return err
		}
	}
	if err := client.auditEntries(ctx, 0, 0, chain.add); err != nil {
		return chain.advise(err)
	}
	if err := chain.complete(); err != nil {
		return chain.advise(err)
	}
	if err := saveVerified(chain.verified(s.now())); err != nil {
		return err
	}
	return s.verified(chain)
}

// verifyFile checks saved entries. They may begin and end anywhere, so nothing
// is remembered of them.
func (c *auditVerify) verifyFile(s *session) error {
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("reading the entries: %w", err)
	}
	defer f.Close()
	chain := &chain{}
	lines := json.NewDecoder(f)
	for {
		var line json.RawMessage
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("%s is not what `sallyport audit list -o json` writes: %w", c.File, err)
		}
		var e adminv1.AuditEntry
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%s is not what `sallyport audit list -o json` writes: %w", c.File, err)
		}
		if chain.entries == 0 {
			if err := chain.begin(&e, c.AcceptNewHistory); err != nil {
				return err
			}
		}
		if err := chain.add([]*adminv1.AuditEntry{&e}); err != nil {
			return chain.advise(err)
		}
	}
	if chain.entries == 0 {
		return fmt.Errorf("%s has no entries", c.File)
	}
	return s.verified(chain)
}

// verified tells what was checked.
func (s *session) verified(c *chain) error {
	if s.json {
		head, err := marshal(headOf(c.at))
		if err != nil {
			return err
		}
		text, err := json.Marshal(struct {
			Account     string          `json:"account"`
			Entries     int             `json:"entries"`
			AfterEntry  int64           `json:"afterRevision,string"`
			Head        json.RawMessage `json:"head"`
			KnownBefore int64           `json:"verifiedBeforeRevision,string"`
		}{c.account, c.entries, c.start, head, c.compared})
		if err != nil {
			return fmt.Errorf("writing JSON: %w", err)
		}
		return s.indented(text)
	}
	text := fmt.Sprintf("account %s: %d entries verified, up to revision %d (epoch %d, hash %x)", c.account, c.entries, c.at.Revision, c.at.Epoch, c.at.Hash)
	if c.start > 0 {
		text += fmt.Sprintf("; they begin after revision %d, and what is before was not checked", c.start)
	}
	if c.compared > 0 {
		text += fmt.Sprintf("; revision %d is as it was verified at %s", c.compared, c.known.Verified.UTC().Format(time.RFC3339))
	}
	_, err := fmt.Fprintln(s.stdout, text)
	return err
}
