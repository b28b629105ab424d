package saml_test

import (
	"crypto/rand"
	"reflect"
	"testing"
	"time"

	"github.com/crewjam/saml"
	"github.com/crewjam/saml/xmlenc"
)

// TestGlobals: crewjam/saml keeps its clock, its tolerance and its randomness in
// variables of the package. Nobody who uses ours changes them for everybody.
func TestGlobals(t *testing.T) {
	made()
	if saml.MaxIssueDelay != 90*time.Second || saml.MaxClockSkew != 3*time.Minute || saml.Clock != nil {
		t.Errorf("MaxIssueDelay %s, MaxClockSkew %s, Clock %v", saml.MaxIssueDelay, saml.MaxClockSkew, saml.Clock)
	}
	if off := time.Since(saml.TimeNow()); off < 0 || off > time.Minute {
		t.Errorf("TimeNow is off by %s", off)
	}
	if !reflect.DeepEqual(saml.RandReader, rand.Reader) || !reflect.DeepEqual(xmlenc.RandReader, rand.Reader) {
		t.Error("RandReader is another one")
	}
}
