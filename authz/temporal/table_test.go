package temporal_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/sallyport-iam/sallyport/authz/temporal/internal/methods"
)

// The table that is checked in is the one of the server of this module: no
// method of a new server version slips through, and none is left over.
func TestMethodTableIsTheServers(t *testing.T) {
	want, err := methods.Source()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../temporal_methods.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("authz/temporal_methods.go is not what the server's metadata gives: run go generate ./... in authz/temporal")
	}
}
