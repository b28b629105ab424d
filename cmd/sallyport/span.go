package main

import (
	"fmt"
	"strconv"
	"time"
)

// span is a length of time as people write it: 30d, 2w, 1y, 90m, 0.
type span time.Duration

// UnmarshalText reads a span that is not negative.
func (s *span) UnmarshalText(text []byte) error {
	d, err := parseSpan(string(text))
	if err != nil {
		return err
	}
	*s = span(d)
	return nil
}

func parseSpan(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	units := map[byte]time.Duration{'d': day, 'w': 7 * day, 'y': 365 * day}
	d, err := time.ParseDuration(text)
	if err != nil && text != "" {
		if unit, ok := units[text[len(text)-1]]; ok {
			var n uint64
			n, err = strconv.ParseUint(text[:len(text)-1], 10, 16)
			if n > 36500 {
				n = 36500 // more than any life-time; time.Duration ends at 292 years
			}
			d = min(time.Duration(n), 36500*day/unit) * unit
		}
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a length of time such as 30d, 12h or 90m", text)
	}
	return d, nil
}

// ending is when something ends: after a span, or at a moment.
type ending struct {
	after time.Duration
	at    time.Time // zero: after
}

// UnmarshalText reads a span, a day (its beginning, UTC) or an RFC 3339 time.
func (e *ending) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*e = ending{at: at}
			return nil
		}
	}
	after, err := parseSpan(string(text))
	if err != nil {
		return fmt.Errorf("%w, nor a time such as 2027-01-31 or 2027-01-31T12:00:00Z", err)
	}
	*e = ending{after: after}
	return nil
}

// from is the moment, for a span that begins now.
func (e ending) from(now time.Time) time.Time {
	if e.at.IsZero() {
		return now.Add(e.after)
	}
	return e.at
}
