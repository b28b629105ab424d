// Package strictjson reads JSON that strangers send, so that no two readers can
// take it for two things: UTF-8, one value, no key twice, of bounded depth and
// number of values. Numbers stay texts (json.Number).
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// Limits of what is read; zero fields let nothing through.
type Limits struct {
	Depth  int // of objects and lists within each other
	Values int
}

// Object reads one JSON object.
func (l Limits) Object(data []byte) (map[string]any, error) {
	value, err := l.Value(data)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	return object, nil
}

// Value reads one JSON value of any kind.
func (l Limits) Value(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errNotJSON
	}
	r := reader{json.NewDecoder(bytes.NewReader(data)), l}
	r.d.UseNumber()
	value, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the JSON value")
	}
	return value, nil
}

var errNotJSON = errors.New("it is not JSON")

type reader struct {
	d    *json.Decoder
	left Limits // Values counts down
}

func (r *reader) value(depth int) (any, error) {
	if r.left.Values--; r.left.Values < 0 {
		return nil, errors.New("it has too many values")
	}
	t, err := r.d.Token()
	if err != nil {
		return nil, errNotJSON
	}
	delim, ok := t.(json.Delim)
	switch {
	case !ok:
		return t, nil
	case depth == r.left.Depth:
		return nil, errors.New("it is too deep")
	case delim == '[':
		return r.list(depth + 1)
	}
	return r.object(depth + 1)
}

func (r *reader) list(depth int) (any, error) {
	list := []any{}
	for r.d.More() {
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := r.d.Token(); err != nil {
		return nil, errNotJSON
	}
	return list, nil
}

func (r *reader) object(depth int) (any, error) {
	object := map[string]any{}
	for r.d.More() {
		name, err := r.d.Token()
		key, ok := name.(string)
		if err != nil || !ok {
			return nil, errNotJSON
		}
		if _, twice := object[key]; twice {
			return nil, errors.New("it has a key twice")
		}
		if object[key], err = r.value(depth); err != nil {
			return nil, err
		}
	}
	if _, err := r.d.Token(); err != nil {
		return nil, errNotJSON
	}
	return object, nil
}
