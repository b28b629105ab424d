package oidc_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

type wycheproofGroup struct {
	Comment string          `json:"comment"`
	Public  json.RawMessage `json:"public"`
	Private json.RawMessage `json:"private"`
	Tests   []struct {
		ID      int             `json:"tcId"`
		Comment string          `json:"comment"`
		JWS     json.RawMessage `json:"jws"`
		Result  string          `json:"result"`
	} `json:"tests"`
}

// wycheproof reads vectors, which are not part of the repository.
func wycheproof(t *testing.T, name string) []wycheproofGroup {
	t.Helper()
	directory := os.Getenv("SALLYPORT_TESTDATA")
	required := directory != "" || os.Getenv("CI") != ""
	if directory == "" {
		directory = filepath.Join("..", "..", "..", "shared", "testdata")
	}
	data, err := os.ReadFile(filepath.Join(directory, "jose", name))
	if err != nil && !required {
		t.Skipf("Wycheproof's vectors are not here (set SALLYPORT_TESTDATA to where jose/%s is): %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []wycheproofGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups
}

// published makes a key set of a group's key: what a provider would publish.
func (g wycheproofGroup) published(t *testing.T) []byte {
	t.Helper()
	key := g.Public
	if key == nil {
		key = g.Private
	}
	var fields map[string]any
	if err := json.Unmarshal(key, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["keys"] != nil {
		return key
	}
	if fields["kty"] != "oct" {
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(fields, name)
		}
	}
	return must(json.Marshal(map[string]any{"keys": []any{fields}}))
}

func TestWycheproof(t *testing.T) {
	t.Parallel()
	// Accepted although the vectors say otherwise, by the comment, with the reason.
	waived := map[string]string{
		"rejectsKeyWithRocaVulnerability": "whether a provider's key is weak is the provider's matter: whoever can sign in its name is it",
	}
	for name, least := range map[string]int{"json_web_signature_test.json": 14, "json_web_key_test.json": 1} {
		accepted := 0
		for _, group := range wycheproof(t, name) {
			keys := group.published(t)
			for _, test := range group.Tests {
				var raw string
				if json.Unmarshal(test.JWS, &raw) != nil {
					raw = string(test.JWS) // the JSON serialization
				}
				payload, err := oidc.Open(keys, raw)
				switch {
				case err == nil && test.Result == "valid":
					accepted++
				case err == nil && waived[test.Comment] == "":
					t.Errorf("%s %d (%s, %s): accepted %q", name, test.ID, group.Comment, test.Comment, payload)
				// An empty payload is no JWT; a key set with a secret key is refused whole.
				case err != nil && test.Result == "valid" && supported(raw) && test.Comment != "emptyPayload" && !strings.Contains(string(keys), `"oct"`):
					t.Errorf("%s %d (%s, %s): refused: %v", name, test.ID, group.Comment, test.Comment, err)
				}
			}
		}
		if accepted < least {
			t.Errorf("%s: %d valid ones were accepted, want %d", name, accepted, least)
		}
	}
}

// supported reports whether the JWS is signed with an algorithm that is taken here.
func supported(raw string) bool {
	first, _, _ := strings.Cut(raw, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	data, err := base64.RawURLEncoding.DecodeString(first)
	return err == nil && json.Unmarshal(data, &header) == nil && oidc.Supported(header.Algorithm)
}
