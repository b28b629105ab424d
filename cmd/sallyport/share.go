package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// share is a part of a length of time: a fraction, or a length of its own.
type share struct {
	of    float64 // 0: fixed
	fixed time.Duration
}

// UnmarshalText reads 1/3 or 8h. Nothing above a half is possible: what is
// renewed in the first half of its life would be renewed for ever.
func (s *share) UnmarshalText(text []byte) error {
	if over, under, ok := strings.Cut(string(text), "/"); ok {
		a, errA := strconv.ParseUint(over, 10, 16)
		b, errB := strconv.ParseUint(under, 10, 16)
		if errA != nil || errB != nil || a == 0 || b == 0 || 2*a > b {
			return fmt.Errorf("%q is not a fraction such as 1/3, at most 1/2", text)
		}
		*s = share{of: float64(a) / float64(b)}
		return nil
	}
	d, err := parseSpan(string(text))
	if err != nil || d == 0 {
		return fmt.Errorf("%q is neither a fraction such as 1/3 nor a length of time such as 8h", text)
	}
	*s = share{fixed: d}
	return nil
}

// part is the share of a whole: never more than a half.
func (s share) part(whole time.Duration) time.Duration {
	if s.of > 0 {
		return time.Duration(s.of * float64(whole))
	}
	return min(s.fixed, whole/2)
}
