package oidc

import (
	"encoding/json"
	"math"
	"time"

	"github.com/sallyport-iam/sallyport/internal/strictjson"
)

// claims are the members of a JSON object that somebody else sent.
type claims map[string]any

func decodeJSON(data []byte) (claims, error) { return strangers().Object(data) }

// strangers are the limits of what a provider publishes or answers.
func strangers() strictjson.Limits { return strictjson.Limits{Depth: 12, Values: 20_000} }

// text gives a claim that is a text, "" for all else.
func (c claims) text(name string) string {
	text, _ := c[name].(string)
	return text
}

// has reports whether the claim is there and not null.
func (c claims) has(name string) bool { return c[name] != nil }

// time gives a claim that is a NumericDate (RFC 7519 §2). ok is false if there is
// none, or not one of this age of the world.
func (c claims) time(name string) (at time.Time, ok bool) {
	number, isNumber := c[name].(json.Number)
	if !isNumber {
		return time.Time{}, false
	}
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), true
}

// texts gives a claim that is a list of texts; a single text is a list of one. ok is
// false for all else.
func (c claims) texts(name string) (list []string, ok bool) {
	switch v := c[name].(type) {
	case string:
		return []string{v}, true
	case []any:
		for _, entry := range v {
			text, isText := entry.(string)
			if !isText {
				return nil, false
			}
			list = append(list, text)
		}
		return list, true
	}
	return nil, false
}

// yes reports whether the claim says true. Some providers write it as a text or as
// a number.
func (c claims) yes(name string) bool {
	switch v := c[name].(type) {
	case bool:
		return v
	case string:
		return v == "true" || v == "1"
	case json.Number:
		return v == "1"
	}
	return false
}
