// Package page makes and reads the tokens of keyset pages. A token is
// authenticated, so that a client can neither forge a position nor carry one
// from a list, a filter or an account to another.
package page

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const (
	defaultSize = 100
	maxSize     = 1000
	maxToken    = 2048 // the longest key is a name of 255 characters, up to 1400 bytes here
)

// Signer makes and checks tokens with the deployment's key.
type Signer struct{ key [32]byte }

// NewSigner takes the key, which all copies of the service share.
func NewSigner(key [32]byte) *Signer { return &Signer{key} }

// Open reads the deployment's key from the database, where it is made at first use.
func Open(ctx context.Context, q pg.Querier) (*Signer, error) {
	key := make([]byte, 32)
	rand.Read(key)
	key, err := keepKey(ctx, q, key)
	if err != nil {
		return nil, err
	}
	if len(key) != 32 {
		return nil, errors.New("the key of page tokens is not 32 bytes; delete the row of page_keys and start again")
	}
	return NewSigner([32]byte(key)), nil
}

// Cursor is a place in a list: the Limit rows after the key After are asked
// for, one more than the page's size, which tells whether there is a next page.
type Cursor struct {
	After string // "" from the beginning
	Limit int

	signer  *Signer
	account sallyport.AccountID
	list    string
}

// Cursor reads a request for a page of the list. list names the list and its
// filter: a token serves only the one it was made for.
func (s *Signer) Cursor(account sallyport.AccountID, list string, p sallyport.Page) (Cursor, error) {
	c := Cursor{Limit: p.Size + 1, signer: s, account: account, list: list}
	switch {
	case p.Size < 0 || p.Size > maxSize:
		return c, sallyport.InvalidField("page_size", "must be between 1 and %d, or 0 for %d", maxSize, defaultSize)
	case p.Size == 0:
		c.Limit = defaultSize + 1
	}
	if p.Token == "" {
		return c, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Token)
	if len(p.Token) > maxToken || err != nil || len(raw) <= sha256.Size || !hmac.Equal(raw[:sha256.Size], c.mac(string(raw[sha256.Size:]))) {
		return c, sallyport.InvalidField("page_token", "is not one that this list gave; begin again without it")
	}
	c.After = string(raw[sha256.Size:])
	return c, nil
}

// Cut takes the rows that were read with the cursor and gives the page and the
// token of the next one, "" at the end. key is the row's place in the list.
func Cut[T any](c Cursor, rows []T, key func(T) string) ([]T, string) {
	if len(rows) < c.Limit {
		return rows, ""
	}
	rows = rows[:c.Limit-1]
	last := key(rows[len(rows)-1])
	return rows, base64.RawURLEncoding.EncodeToString(append(c.mac(last), last...))
}

func (c Cursor) mac(last string) []byte {
	h := hmac.New(sha256.New, c.signer.key[:])
	for _, part := range []string{string(c.account), c.list, last} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}
