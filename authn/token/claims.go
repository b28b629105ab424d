package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport/internal/strictjson"
)

const (
	maxShown  = 300 // bytes of a claim, as it is shown
	withheld  = "(left out)"
	ambiguous = "the name could be two claims of this token"
)

// strangers are the limits of a stranger's token and key set.
func strangers() strictjson.Limits { return strictjson.Limits{Depth: 10, Values: 2000} }

// find gives all that the path could mean in the object: itself as a key, or a
// part of it as the key of an object, and the rest in there.
func find(object map[string]any, path string) []any {
	var found []any
	if v, ok := object[path]; ok {
		found = append(found, v)
	}
	for at, r := range path {
		if r != '.' {
			continue
		}
		if inner, ok := object[path[:at]].(map[string]any); ok {
			found = append(found, find(inner, path[at+1:])...)
		}
	}
	return found
}

// test says what the condition makes of the claims.
func (c Condition) test(claims map[string]any) ConditionTest {
	result := ConditionTest{Condition: c}
	switch found := find(claims, c.Claim); len(found) {
	case 0:
		result.Problem = "the token has no such claim"
	case 1:
		result.Received = show(found[0])
		if result.Matches = c.matches(found[0]); !result.Matches {
			result.Problem = "the claim is not " + c.String()
		}
	default:
		result.Problem = ambiguous
	}
	return result
}

func (c Condition) matches(value any) bool {
	if list, ok := value.([]any); ok {
		return slices.ContainsFunc(list, c.matchesOne)
	}
	return c.matchesOne(value)
}

// matchesOne compares strictly by type. Numbers are compared as they are written.
func (c Condition) matchesOne(value any) bool {
	switch v := value.(type) {
	case string:
		if slices.ContainsFunc(c.Prefixes, func(p string) bool { return strings.HasPrefix(v, p) }) {
			return true
		}
		return slices.ContainsFunc(c.Equals, func(want any) bool { s, ok := want.(string); return ok && s == v })
	case json.Number:
		return slices.ContainsFunc(c.Equals, func(want any) bool { n, ok := want.(json.Number); return ok && n == v })
	case bool:
		return slices.ContainsFunc(c.Equals, func(want any) bool { b, ok := want.(bool); return ok && b == v })
	}
	return false
}

// String says what the claim must be.
func (c Condition) String() string {
	var ways []string
	for _, v := range c.Equals {
		ways = append(ways, show(v))
	}
	for _, p := range c.Prefixes {
		ways = append(ways, "something that begins with "+show(p))
	}
	if len(ways) > 5 {
		ways = append(ways[:5], fmt.Sprintf("one of %d more", len(ways)-5))
	}
	return strings.Join(ways, " or ")
}

// show writes a value as JSON, cut.
func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	if len(text) > maxShown {
		return strings.ToValidUTF8(string(text[:maxShown]), "") + "…"
	}
	return string(text)
}

// redact gives the claims as they are shown: what identifies this one token is
// left out, and long texts are cut.
func redact(claims map[string]any) map[string]any {
	shown := map[string]any{}
	for name, v := range claims {
		switch name {
		case "jti", "nonce", "at_hash", "c_hash", "sid":
			shown[name] = withheld
		default:
			shown[name] = shorten(v)
		}
	}
	return shown
}

func shorten(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) > maxShown {
			return strings.ToValidUTF8(v[:maxShown], "") + "…"
		}
	case []any:
		list := make([]any, len(v))
		for n, e := range v {
			list[n] = shorten(e)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, e := range v {
			object[name] = shorten(e)
		}
		return object
	}
	return v
}
