package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

const (
	maxDepth = 12
	maxItems = 20_000 // values in a document
)

// claims are the members of a JSON object that somebody else sent.
type claims map[string]any

// decodeJSON reads one JSON object: UTF-8, no key twice, of bounded depth and number
// of values. Two readers can then not take it for two things.
func decodeJSON(data []byte) (claims, error) {
	value, err := decodeAny(data)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	return object, nil
}

// decodeAny is decodeJSON for a value of any kind.
func decodeAny(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errNotJSON
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	items := 0
	value, err := decodeValue(d, 0, &items)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the JSON value")
	}
	return value, nil
}

var errNotJSON = errors.New("it is not JSON")

func decodeValue(d *json.Decoder, depth int, items *int) (any, error) {
	if *items++; *items > maxItems {
		return nil, errors.New("it has too many values")
	}
	t, err := d.Token()
	if err != nil {
		return nil, errNotJSON
	}
	delim, ok := t.(json.Delim)
	switch {
	case !ok:
		return t, nil
	case depth == maxDepth:
		return nil, errors.New("it is too deep")
	case delim == '[':
		return decodeList(d, depth, items)
	}
	return decodeObject(d, depth, items)
}

func decodeList(d *json.Decoder, depth int, items *int) (any, error) {
	list := []any{}
	for d.More() {
		v, err := decodeValue(d, depth+1, items)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, errNotJSON
	}
	return list, nil
}

func decodeObject(d *json.Decoder, depth int, items *int) (any, error) {
	object := map[string]any{}
	for d.More() {
		name, err := d.Token()
		key, ok := name.(string)
		if err != nil || !ok {
			return nil, errNotJSON
		}
		if _, twice := object[key]; twice {
			return nil, errors.New("it has a key twice")
		}
		if object[key], err = decodeValue(d, depth+1, items); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errNotJSON
	}
	return object, nil
}

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
