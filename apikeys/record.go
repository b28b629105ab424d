package apikeys

import (
	"context"
	"net/netip"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/journal"
)

// recorded is a key as the audit record has it: neither secret nor hash.
type recorded struct {
	Owner       string                  `json:"owner"`
	DisplayName any                     `json:"display_name"` // a user may have put his own name into his texts: sealed then
	Description any                     `json:"description,omitempty"`
	Disabled    bool                    `json:"disabled,omitempty"`
	Expires     time.Time               `json:"expires"`
	Retires     *time.Time              `json:"retires,omitempty"`
	Successor   string                  `json:"successor,omitempty"`
	ReadOnly    bool                    `json:"read_only,omitempty"`
	Namespaces  []sallyport.NamespaceID `json:"namespaces,omitempty"`
	Sources     []netip.Prefix          `json:"sources,omitempty"`
}

// record adds the change to the entry. A zero key is one that is not there.
func record(ctx context.Context, tx *journal.Tx, before, after Key) error {
	change := journal.Change{Type: "api-key", ID: after.ID}
	for _, side := range []struct {
		key Key
		to  *any
	}{{before, &change.Before}, {after, &change.After}} {
		if side.key.ID == "" {
			continue
		}
		r, err := newRecorded(ctx, tx, side.key)
		if err != nil {
			return err
		}
		change.ID, *side.to = side.key.ID, r
	}
	tx.Record(change)
	return nil
}

func newRecorded(ctx context.Context, tx *journal.Tx, key Key) (recorded, error) {
	r := recorded{
		Owner: key.Owner.ID, Disabled: key.Disabled, Expires: key.Expires, Successor: key.Successor,
		ReadOnly: key.Limits.ReadOnly, Namespaces: key.Limits.Namespaces, Sources: key.Limits.Sources,
	}
	if !key.Retires.IsZero() {
		r.Retires = &key.Retires
	}
	for _, text := range []struct {
		value string
		to    *any
	}{{key.DisplayName, &r.DisplayName}, {key.Description, &r.Description}} {
		switch {
		case text.value == "":
		case key.Owner.Kind == sallyport.User:
			sealed, err := tx.Seal(ctx, key.Owner.ID, text.value)
			if err != nil {
				return r, err
			}
			*text.to = sealed
		default:
			*text.to = text.value
		}
	}
	return r, nil
}
