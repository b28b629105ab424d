package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// reader reads one thing by its id; NotFound when there is none.
type reader[T any] func(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (T, error)

// commit carries out one change of the caller's account and gives what it
// made. A repetition of an operation gives the thing as it is now, or its zero
// value when it has gone since.
func commit[T any](ctx context.Context, d *Directory, caller sallyport.Caller, op journal.Operation, read reader[T], change func(*journal.Tx) (T, error)) (T, journal.Committed, error) {
	var made T
	done, err := d.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		var err error
		made, err = change(tx)
		return err
	})
	if err == nil && done.Replayed {
		made, err = read(ctx, d.pool, done.Account, done.Target)
		if errors.Is(err, sallyport.NotFound) {
			err = nil
		}
	}
	if err != nil {
		var none T
		return none, done, err
	}
	return made, done, nil
}

// run is commit for what has no answer but that it is done.
func (d *Directory) run(ctx context.Context, caller sallyport.Caller, op journal.Operation, change func(*journal.Tx) error) (journal.Committed, error) {
	return d.journal.Commit(ctx, caller, caller.Account, op, change)
}

// atLimit answers Conflict when there are already limit of what: it is not
// Exhausted, which clients wait out.
func atLimit(count, limit int, what string) error {
	if count < limit {
		return nil
	}
	return sallyport.Conflict.Errorf("the account has %d %s, which is its limit; delete some or ask the operator for more", count, what)
}

// validText checks a name or description that a client sent.
func validText(field, s string, min, max int) error {
	switch n := utf8.RuneCountInString(s); {
	case !utf8.ValidString(s):
		return sallyport.InvalidField(field, "is not valid UTF-8")
	case n < min && min == 1:
		return sallyport.InvalidField(field, "is required")
	case n < min || n > max:
		return sallyport.InvalidField(field, "must have %d to %d characters", min, max)
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && (max < longText || r != '\n' && r != '\t') }):
		return sallyport.InvalidField(field, "must not contain control characters")
	case max < longText && strings.TrimSpace(s) != s:
		return sallyport.InvalidField(field, "must not begin or end with a space")
	}
	return nil
}

// longText is the longest description; only such texts may have several lines.
const longText = 1024

func notThere(what, id string) error {
	return sallyport.NotFound.Errorf("there is no %s %q in this account", what, clip(id))
}

func reading(what string, err error) error { return fmt.Errorf("reading %s: %w", what, err) }
