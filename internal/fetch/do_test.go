package fetch_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

func TestDo(t *testing.T) {
	t.Parallel()
	var (
		mu      sync.Mutex
		reached []string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		reached = append(reached, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "/large":
			io.WriteString(w, strings.Repeat("x", 2000))
		case "/slow":
			time.Sleep(600 * time.Millisecond)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":"x"}`)
		}
	}))
	t.Cleanup(server.Close)
	listed := fetch.Config{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxBytes: 1000, Timeout: 300 * time.Millisecond, Redirects: 5}
	ask := func(c fetch.Config, address string) (fetch.Answer, error) {
		r, err := http.NewRequest(http.MethodPost, address, strings.NewReader("secret=1"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer token")
		return fetch.New(c).Do(r)
	}
	got, err := ask(listed, server.URL+"/any")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fetch.Answer{Status: 400, Type: "application/json", Body: []byte(`{"error":"x"}`)}, got); diff != "" {
		t.Errorf("the answer (-want +got):\n%s", diff)
	}
	for name, test := range map[string]struct {
		config fetch.Config
		url    string
		why    string
	}{
		"a redirect, though Get would follow it": {listed, server.URL + "/redirect", "it redirects"},
		"a large answer":                         {listed, server.URL + "/large", "larger than 1000 bytes"},
		"a slow answer":                          {listed, server.URL + "/slow", "too long"},
		"an address that is not listed":          {fetch.Config{}, server.URL + "/unlisted", "https://"},
		"another scheme":                         {listed, "ftp" + strings.TrimPrefix(server.URL, "http"), "https://"},
		"a user in the address":                  {listed, strings.Replace(server.URL, "//", "//u:p@", 1), "https://"},
	} {
		_, err := ask(test.config, test.url)
		var known *sallyport.Error
		if !errors.As(err, &known) || known.Kind != sallyport.Unavailable || !strings.Contains(known.Msg, test.why) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has what was sent: %v", name, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, r := range reached {
		if strings.Contains(r, "/elsewhere") || strings.Contains(r, "/unlisted") {
			t.Errorf("was reached: %s", r)
		}
	}
}
