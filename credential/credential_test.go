package credential_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport/credential"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "hunter2hunter2"
	s := credential.Secret(text)
	holder := struct{ Token credential.Secret }{s}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("message", "secret", s, "in a struct", holder, "pointer", &s, "list", []credential.Secret{s})
	}
	outputs := []string{log.String(), fmt.Sprint(s, &s), fmt.Sprintln(holder), fmt.Errorf("using %v: %s", s, s).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		outputs = append(outputs, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, []credential.Secret{s}))
	}
	for _, v := range []any{s, &s, holder, map[string]credential.Secret{"a key": s}} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, string(data))
	}
	for _, out := range outputs {
		if strings.Contains(out, text) || strings.Contains(out, fmt.Sprintf("%x", text)) {
			t.Errorf("the secret is in %q", out)
		}
	}
	if got := s.Reveal(); got != text {
		t.Errorf("Reveal: got %q", got)
	}
}

func TestBearer(t *testing.T) {
	tests := []struct {
		header, token string
		ok            bool
	}{
		{"Bearer abc", "abc", true},
		{"bearer abc", "abc", true},
		{"BEARER  abc ", "abc", true},
		{"Bearer abc def", "abc def", true},
		{"Bearer ", "", false},
		{"Bearer    ", "", false},
		{"Bearer", "", false},
		{"Bearerabc", "", false},
		{"Basic abc", "", false},
		{"abc", "", false},
		{"", "", false},
	}
	for _, test := range tests {
		token, ok := credential.Bearer(test.header)
		if token != test.token || ok != test.ok {
			t.Errorf("Bearer(%q): got %q, %v; want %q, %v", test.header, token, ok, test.token, test.ok)
		}
	}
}
