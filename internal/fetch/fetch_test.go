package fetch_test

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true, "2a00:1450::1": true, "198.20.0.1": true, "172.32.0.1": true, "100.128.0.1": true,
		"0.0.0.0": false, "10.1.2.3": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.0.0.8": false, "192.0.2.1": false, "192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false,
		"198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:8.8.8.8": true, "::127.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false,
		"2002:7f00:1::": false, "2001::1": false, "2001:db8::1": false, "3fff::1": false, "fe80::1%eth0": false, "100::1": false, "5f00::1": false,
	} {
		if got := fetch.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	if fetch.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// Whatever a private address is written as, it is not connected to.
func TestPrivateAddresses(t *testing.T) {
	reached := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTPS_PROXY", server.URL) // and no proxy is asked to
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "2130706433", "0x7f.1", "017700000001",
		"127.1", "[::]", "[64:ff9b::7f00:1]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1"} {
		for _, scheme := range []string{"https", "http"} {
			_, err := fetch.New(fetch.Config{Timeout: 2 * time.Second}).Get(t.Context(), scheme+"://"+host+":"+port+"/")
			if !errors.Is(err, sallyport.Unavailable) {
				t.Errorf("%s://%s: got %v", scheme, host, err)
			}
		}
	}
	if reached {
		t.Error("it was reached")
	}
}

func TestGet(t *testing.T) {
	server := httptest.NewTLSServer(answers())
	t.Cleanup(server.Close)
	plain := httptest.NewServer(answers())
	t.Cleanup(plain.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := fetch.New(fetch.Config{Allowed: loopback, Roots: roots, Timeout: time.Second, MaxBytes: 1000})
	for _, base := range []string{server.URL, plain.URL} {
		body, err := client.Get(t.Context(), base+"/good")
		if err != nil || string(body) != "good" {
			t.Errorf("%s: got %q, %v", base, body, err)
		}
	}
	for path, says := range map[string]string{
		"/large": "larger than 1000 bytes", "/endless": "", "/slow": "too long", "/slow-headers": "too long", "/redirect": "redirects", "/error": "status 500",
		"/headers": "cannot be reached", "/zipped": "", "/cut": "cannot be reached",
	} {
		start := time.Now()
		_, err := client.Get(t.Context(), server.URL+path)
		if says != "" && (!errors.Is(err, sallyport.Unavailable) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: got %v; want %q", path, err, says)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: took %s", path, took)
		}
	}
	if _, err := client.Get(t.Context(), server.URL+"/endless"); err == nil {
		t.Error("an endless document came to an end")
	}
	if body, err := client.Get(t.Context(), server.URL+"/zipped"); err == nil && len(body) > 1000 {
		t.Errorf("a document of %d bytes", len(body))
	}
	if body, err := client.Get(t.Context(), server.URL+"/encodings"); err != nil || len(body) != 0 {
		t.Errorf("it asks for the encodings %q, %v", body, err)
	}
	_, err := fetch.New(fetch.Config{Allowed: loopback, Timeout: time.Second}).Get(t.Context(), server.URL+"/good")
	if err == nil || !strings.Contains(err.Error(), "TLS certificate") {
		t.Errorf("an unknown certificate: got %v", err)
	}
	for _, bad := range []string{"", "x", "file:///etc/passwd", "https://", "https://a:b@127.0.0.1/", "gopher://127.0.0.1/", "https://127.0.0.1:x/", "//127.0.0.1/", "https://nothing.invalid/"} {
		if _, err := client.Get(t.Context(), bad); !errors.Is(err, sallyport.Unavailable) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Get(ended, server.URL+"/good"); err == nil {
		t.Error("it went on after the end")
	}
}

// Each redirect is checked like the first address.
func TestRedirects(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(answers())
	t.Cleanup(target.Close)
	var to string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }))
	t.Cleanup(server.Close)
	client := fetch.New(fetch.Config{Allowed: loopback, Redirects: 1, Timeout: time.Second})
	to = target.URL + "/good"
	if body, err := client.Get(t.Context(), server.URL); err != nil || string(body) != "good" {
		t.Errorf("got %q, %v", body, err)
	}
	for address, says := range map[string]string{
		target.URL + "/redirect": "redirects", "https://10.0.0.1/": "does not reach into", "http://10.0.0.1/": "https://", "http://8.8.8.8/": "https://", "file:///etc/passwd": "https://",
	} {
		to = address
		if _, err := client.Get(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v; want %q", address, err, says)
		}
	}
}

func answers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("good")) })
	mux.HandleFunc("/encodings", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Accept-Encoding"))) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1001)) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		for n := 0; n < 100 && r.Context().Err() == nil; n++ {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	mux.HandleFunc("/slow-headers", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 64<<10)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "500")
		_, _ = w.Write([]byte("x"))
	})
	mux.HandleFunc("/zipped", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(make([]byte, 1<<20))
		_ = z.Close()
	})
	return mux
}
