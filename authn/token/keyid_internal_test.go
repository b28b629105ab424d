package token

import (
	"strings"
	"testing"
)

// TestKeyIDsAreNoFlags: one in 64 thumbprints begins with a dash.
func TestKeyIDsAreNoFlags(t *testing.T) {
	for range 500 {
		if _, id, err := newKey(); err != nil || strings.HasPrefix(id, "-") {
			t.Fatalf("%q, %v", id, err)
		}
	}
}
