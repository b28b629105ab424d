package credential_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// known is a fixed key: the format must not change under keys that were given out.
const known = "sp_f45a2_abcdefghijklmn27_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg39t15Q"

func TestAPIKeyRoundTrip(t *testing.T) {
	for _, account := range []sallyport.AccountID{"00000", "f45a2", "abcdefghijklmnop", sallyport.NewAccountID()} {
		id := sallyport.NewID("")
		token, hash := credential.NewAPIKey(account, id)
		key, got, err := credential.ParseAPIKey(token.Reveal())
		if err != nil {
			t.Fatalf("account %s: %v", account, err)
		}
		if want := (credential.APIKey{Account: account, ID: id}); key != want || got != hash || got != sha256.Sum256([]byte(token.Reveal())) {
			t.Errorf("got %v with hash %x, want %v with hash %x", key, got, want, hash)
		}
	}
}

func TestAPIKeyFormatStays(t *testing.T) {
	key, _, err := credential.ParseAPIKey(known)
	if want := (credential.APIKey{Account: "f45a2", ID: "abcdefghijklmn27"}); err != nil || key != want {
		t.Errorf("got %v, %v; want %v", key, err, want)
	}
}

func TestAPIKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		token, _ := credential.NewAPIKey("f45a2", "abcdefghijklmn27")
		seen[token.Reveal()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("of 1000 keys only %d differ", len(seen))
	}
}

// TestOneTypingErrorIsFound changes each character, drops each, and swaps each
// pair of neighbours.
func TestOneTypingErrorIsFound(t *testing.T) {
	mistyped := map[string]bool{}
	for i := range len(known) {
		for _, c := range "0aZ_" {
			mistyped[known[:i]+string(c)+known[i+1:]] = true
		}
		mistyped[known[:i]+known[i+1:]] = true
		if i > 0 {
			mistyped[known[:i-1]+known[i:i+1]+known[i-1:i]+known[i+1:]] = true
		}
	}
	delete(mistyped, known)
	for token := range mistyped {
		if _, _, err := credential.ParseAPIKey(token); !errors.Is(err, sallyport.Unauthenticated) {
			t.Errorf("%s: got %v, want Unauthenticated", token, err)
		}
	}
}

func TestMalformedAPIKeys(t *testing.T) {
	tests := []struct{ name, token, says string }{
		{"nothing", "", "not an API key"},
		{"a JWT", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "not an API key"},
		{"prefix only", "sp_", "malformed"},
		{"cut off", known[:40], "malformed"},
		{"with a line's end", known + "\n", "malformed"},
		{"twice", known + known, "too long"},
		{"a megabyte", "sp_" + strings.Repeat("a", 1<<20), "too long"},
		{"upper-case account", strings.Replace(known, "f45a2", "F45A2", 1), "malformed"},
		{"account of 17", strings.Replace(known, "f45a2", "abcdefghijklmnopq", 1), "too long"},
		{"account of 4", strings.Replace(known, "f45a2", "f45a", 1), "malformed"},
		{"SQL in the id", strings.Replace(known, "abcdefghijklmn27", "' or 1=1 --     ", 1), "malformed"},
		{"another account", strings.Replace(known, "f45a2", "f45a3", 1), "checksum does not match"},
		{"last character", known[:len(known)-1] + "0", "checksum does not match"},
	}
	for _, test := range tests {
		_, hash, err := credential.ParseAPIKey(test.token)
		if !errors.Is(err, sallyport.Unauthenticated) || !strings.Contains(err.Error(), test.says) || hash != [32]byte{} {
			t.Errorf("%s: got %v; want Unauthenticated with %q", test.name, err, test.says)
		}
	}
}

func TestParseAPIKeyDoesNotAllocate(t *testing.T) {
	parse := func() {
		if _, _, err := credential.ParseAPIKey(known); err != nil {
			t.Error(err)
		}
	}
	if n := testing.AllocsPerRun(100, parse); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkParseAPIKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := credential.ParseAPIKey(known); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseAPIKey(f *testing.F) {
	system, _ := credential.NewAPIKey(sallyport.SystemAccount, sallyport.NewID(""))
	for _, seed := range []string{"", "sp_", "sp___", known, known + "x", known[:30], system.Reveal(), "sp_f45a2_\x00\xff_é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		key, hash, err := credential.ParseAPIKey(token)
		if err != nil {
			if !errors.Is(err, sallyport.Unauthenticated) {
				t.Errorf("got %v, want Unauthenticated", err)
			}
			if len(token) > 8 && strings.Contains(err.Error(), token) {
				t.Errorf("the error shows the token: %v", err)
			}
			return
		}
		if !key.Account.Valid() || len(key.ID) != 16 || hash != sha256.Sum256([]byte(token)) {
			t.Errorf("%q was accepted as %v", token, key)
		}
		if !strings.HasPrefix(token, "sp_"+string(key.Account)+"_"+key.ID+"_") {
			t.Errorf("%q was read as %v", token, key)
		}
	})
}
