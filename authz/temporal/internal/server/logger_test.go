package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

// recorder notes what is logged as an error.
type recorder struct {
	log.Logger
	errors *[]string
}

func (r recorder) Error(msg string, _ ...tag.Tag) { *r.errors = append(*r.errors, msg) }
func (recorder) Debug(string, ...tag.Tag)         {}

func TestRefusalsAreNotErrorsOfTheServer(t *testing.T) {
	var errors []string
	logger := log.With(refusalsLogger{recorder{log.NewNoopLogger(), &errors}}, tag.Name("frontend"))
	logger.Error("Authorization error")
	logger.Error("something else")
	if diff := cmp.Diff([]string{"something else"}, errors); diff != "" {
		t.Errorf("logged as errors (-want +got):\n%s", diff)
	}
}
