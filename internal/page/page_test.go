package page_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// pages walks a list of n rows by pages of size.
func pages(t *testing.T, s *page.Signer, n, size int) [][]string {
	t.Helper()
	var all [][]string
	p := sallyport.Page{Size: size}
	for {
		c, err := s.Cursor("acct2", "things", p)
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		for i := range n {
			if id := fmt.Sprintf("t%03d", i); id > c.After && len(rows) < c.Limit {
				rows = append(rows, id)
			}
		}
		rows, p.Token = page.Cut(c, rows, func(id string) string { return id })
		all = append(all, rows)
		if p.Token == "" {
			return all
		}
	}
}

func TestWalk(t *testing.T) {
	s := page.NewSigner([32]byte{1})
	if diff := cmp.Diff([][]string{{"t000", "t001"}, {"t002", "t003"}, {"t004"}}, pages(t, s, 5, 2)); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]string{{"t000", "t001"}, {"t002", "t003"}}, pages(t, s, 4, 2)); diff != "" {
		t.Errorf("an exact last page (-want +got):\n%s", diff)
	}
	if got := pages(t, s, 150, 0); len(got) != 2 || len(got[0]) != 100 {
		t.Errorf("got %d pages of the default size, want 2, the first of 100", len(got))
	}
}

func TestTokens(t *testing.T) {
	s := page.NewSigner([32]byte{1})
	token := func(s *page.Signer, account sallyport.AccountID, list string) string {
		c, err := s.Cursor(account, list, sallyport.Page{Size: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, next := page.Cut(c, []string{"a", "b"}, func(id string) string { return id })
		return next
	}
	good := token(s, "acct2", "things")
	flipped := []byte(good)
	flipped[len(flipped)-1] ^= 1
	for name, bad := range map[string]string{
		"another account's":    token(s, "acct3", "things"),
		"another list's":       token(s, "acct2", "thingsx"),
		"another deployment's": token(page.NewSigner([32]byte{2}), "acct2", "things"),
		"changed":              string(flipped),
		"cut":                  good[:len(good)-4],
		"not base64":           "!!!",
		"too short":            "AAAA",
		"too long":             strings.Repeat("A", 3000),
	} {
		_, err := s.Cursor("acct2", "things", sallyport.Page{Token: bad})
		var e *sallyport.Error
		if !errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != "page_token" {
			t.Errorf("%s: got %v, want Invalid in page_token", name, err)
		}
	}
	if c, err := s.Cursor("acct2", "things", sallyport.Page{Token: good}); err != nil || c.After != "a" {
		t.Errorf("the right token: got %q, %v", c.After, err)
	}
	for _, size := range []int{-1, 1001} {
		if _, err := s.Cursor("acct2", "things", sallyport.Page{Size: size}); !errors.Is(err, sallyport.Invalid) {
			t.Errorf("size %d: got %v, want Invalid", size, err)
		}
	}
}

// TestOpen: copies of the service that start at once have one key.
func TestOpen(t *testing.T) {
	pool := pgtest.Clone(t)
	var wg sync.WaitGroup
	signers := make([]*page.Signer, 8)
	for i := range signers {
		wg.Go(func() {
			var err error
			if signers[i], err = page.Open(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range signers {
		if s == nil || *s != *signers[0] {
			t.Fatal("two copies have two keys")
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := page.NewSigner([32]byte{1}).Cursor("acct2", "l", sallyport.Page{Token: token}); err == nil && token != "" {
			t.Errorf("a forged token was accepted: %q gives %q", token, c.After)
		}
	})
}

// TestLongKeys: a place may be a name of 255 characters, of four bytes each.
func TestLongKeys(t *testing.T) {
	s := page.NewSigner([32]byte{1})
	c, err := s.Cursor("acct2", "things", sallyport.Page{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("𝔤", 255)
	_, next := page.Cut(c, []string{long, "z"}, func(id string) string { return id })
	if c, err = s.Cursor("acct2", "things", sallyport.Page{Size: 1, Token: next}); err != nil || c.After != long {
		t.Errorf("after a long name: %q, %v", c.After, err)
	}
}
