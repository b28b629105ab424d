package lastuse_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/internal/lastuse"
)

func TestUses(t *testing.T) {
	t.Parallel()
	var wrote []string
	fail := true
	u := lastuse.New("things", slog.New(slog.DiscardHandler), func(_ context.Context, accounts, ids []string, times []time.Time) error {
		if fail {
			return errors.New("the database is away")
		}
		for i := range ids {
			wrote = append(wrote, fmt.Sprintf("%s/%s %s", accounts[i], ids[i], times[i].Format("15:04:05Z07:00")))
		}
		return nil
	})
	at := time.Date(2026, 11, 22, 12, 0, 30, 0, time.FixedZone("", 3600))
	u.Mark("bbbbb", "one", at)
	u.Mark("aaaaa", "two", at)
	u.Mark("aaaaa", "one", at)
	u.Mark("aaaaa", "one", at.Add(-time.Hour)) // news of before change nothing
	u.Flush(t.Context())                       // is not written, and not lost
	u.Mark("aaaaa", "one", at.Add(time.Minute))
	fail = false
	u.Flush(t.Context())
	u.Flush(t.Context()) // there is nothing more
	want := []string{"aaaaa/one 11:01:00Z", "aaaaa/two 11:00:00Z", "bbbbb/one 11:00:00Z"}
	if diff := cmp.Diff(want, wrote); diff != "" {
		t.Error(diff)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	total, most := 0, 0
	u := lastuse.New("things", slog.New(slog.DiscardHandler), func(_ context.Context, _, ids []string, _ []time.Time) error {
		total, most = total+len(ids), max(most, len(ids))
		return nil
	})
	for i := range 100_100 {
		u.Mark("aaaaa", fmt.Sprint(i), time.Now())
	}
	u.Flush(t.Context())
	if total != 100_000 || most != 1000 {
		t.Errorf("%d were kept, %d at once", total, most)
	}
}
