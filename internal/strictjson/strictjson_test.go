package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/internal/strictjson"
)

func TestObject(t *testing.T) {
	t.Parallel()
	limits := strictjson.Limits{Depth: 3, Values: 10}
	got, err := limits.Object([]byte(`{"a": [1, {"b": null}], "c": "d"} `))
	want := map[string]any{"a": []any{json.Number("1"), map[string]any{"b": nil}}, "c": "d"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for text, says := range map[string]string{
		"":                   "not JSON",
		"{":                  "not JSON",
		`{"a" 1}`:            "not JSON",
		`{"a":1,}`:           "not JSON",
		"[1":                 "not JSON",
		"{\"a\":\"\xff\"}":   "not JSON",
		"[]":                 "not a JSON object",
		"1":                  "not a JSON object",
		"{}{}":               "after the JSON value",
		"{} x":               "after the JSON value",
		`{"a":1,"a":1}`:      "twice",
		`{"a":1,"\u0061":1}`: "twice",
		`{"a":[[[]]]}`:       "too deep",
		`{"a":[` + strings.Repeat("1,", 9) + `1]}`: "too many",
	} {
		if got, err := limits.Object([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || got != nil {
			t.Errorf("%q: %v, %v; want %q", text, got, err, says)
		}
	}
}

func FuzzValue(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"b":"c"}],"d":null,"e":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := (strictjson.Limits{Depth: 5, Values: 100}).Value(data); err == nil && !json.Valid(data) {
			t.Errorf("%q was taken", data)
		}
	})
}
