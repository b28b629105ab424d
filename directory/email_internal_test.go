package directory

import (
	"net/mail"
	"strings"
	"testing"
)

// FuzzEmail: what is accepted is one bare ASCII address that others read the same.
func FuzzEmail(f *testing.F) {
	for _, s := range []string{"ann+x@example.com", "Ann <ann@example.com>", `"a b"@example.com`, "a@b@c", "ann@[127.0.0.1]", "a@example.com (x)",
		"\u212Aann@example.com", "a@example.com\r\nBcc: x@example.com", "=?utf-8?q?a?=@example.com", "@", ".a@example.com", "a..b@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if validEmail("email", s) != nil {
			return
		}
		a, err := mail.ParseAddress("<" + s + ">")
		if err != nil || a.Address != s || strings.Count(s, "@") != 1 || len(s) > 254 {
			t.Errorf("accepted %q, which reads as %v, %v", s, a, err)
		}
		for _, r := range s {
			if r <= ' ' || r >= 0x7f {
				t.Errorf("accepted %q with %q in it", s, r)
			}
		}
	})
}
