package journal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const personKeySize = 32

// personKey gives the person's key in the account; the error wraps
// pgx.ErrNoRows when there is none, or none any more.
func (j *Journal) personKey(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string) ([]byte, error) {
	kept, err := readPersonKey(ctx, q, account, person)
	if err != nil {
		return nil, err
	}
	key := kept
	if j.unseal != nil {
		if key, err = j.unseal(kept, personKeyContext(account, person)); err != nil {
			return nil, &sallyport.Error{Kind: sallyport.Unavailable, Err: err,
				Msg: "a person's key does not open with this operator key; use the one that the database was used with"}
		}
	}
	if len(key) != personKeySize {
		return nil, sallyport.Unavailable.Errorf("the keys of persons in this database are sealed; give the operator key that it was used with")
	}
	return key, nil
}

func (j *Journal) makePersonKey(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string) ([]byte, error) {
	key := make([]byte, personKeySize)
	rand.Read(key)
	kept := key
	if j.seal != nil {
		var err error
		if kept, err = j.seal(key, personKeyContext(account, person)); err != nil {
			return nil, fmt.Errorf("sealing a person's key: %w", err)
		}
	}
	return key, insertPersonKey(ctx, q, account, person, kept)
}

// personKeyContext binds a sealed key to its row, so that the row of another
// person or account cannot be put in its place.
func personKeyContext(account sallyport.AccountID, person string) []byte {
	return []byte("person-key/" + string(account) + "/" + person)
}

func personAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("using a person's key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func personContext(account sallyport.AccountID, person string) []byte {
	return []byte(string(account) + "/" + person)
}
