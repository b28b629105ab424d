// Package fetch gets small documents from addresses that tenants gave: discovery
// documents and key sets. Whatever a tenant names, the service does not reach into
// private networks for him, waits for him only so long and reads only so much.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// Config of a Client. Its zero value is good for public addresses.
type Config struct {
	// Allowed are networks that the operator lists although they are private. Only
	// there plain HTTP is allowed. Nil: none.
	Allowed   []netip.Prefix
	MaxBytes  int64          // of a document; zero: 256 KiB
	Timeout   time.Duration  // for all of a Get; zero: 5 seconds
	Redirects int            // that are followed, each with the same checks; zero: none
	Roots     *x509.CertPool // nil: the system's
}

// Client gets documents. It is safe for concurrent use.
type Client struct {
	allowed  []netip.Prefix
	maxBytes int64
	timeout  time.Duration
	http     *http.Client
}

// New makes a Client.
func New(c Config) *Client {
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 10
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	client := &Client{allowed: c.Allowed, maxBytes: c.MaxBytes, timeout: c.Timeout}
	client.http = &http.Client{
		Transport: schemes{
			secure: transport(c.Roots, client.refusePrivate),
			plain:  transport(c.Roots, client.refuseUnlisted),
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > c.Redirects {
				return errRedirect
			}
			return nil
		},
	}
	return client
}

var errRedirect = errors.New("it redirects")

// transport dials anew for each request, so that each address is checked, and
// takes no proxy from the environment, which would resolve names by itself.
func transport(roots *x509.CertPool, control func(network, address string, c syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: -1, Control: control}
	return &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 32 << 10, ForceAttemptHTTP2: false,
		TLSHandshakeTimeout: 3 * time.Second, ResponseHeaderTimeout: 5 * time.Second,
	}
}

// schemes picks the transport by the scheme of each request, redirected ones too.
type schemes struct{ secure, plain *http.Transport }

// RoundTrip makes one request.
func (s schemes) RoundTrip(r *http.Request) (*http.Response, error) {
	switch r.URL.Scheme {
	case "https":
		return s.secure.RoundTrip(r)
	case "http":
		return s.plain.RoundTrip(r)
	}
	return nil, refused("the address must begin with https://")
}

// refusal is a reason that whoever gave the address may read.
type refusal string

func (r refusal) Error() string { return string(r) }

func refused(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// refusePrivate runs after the name was resolved and before each connection, so
// that a name that changes what it resolves to gains nothing.
func (c *Client) refusePrivate(_, address string, _ syscall.RawConn) error {
	addr, err := addressOf(address)
	if err != nil {
		return err
	}
	if !c.listed(addr) && !Public(addr) {
		return refused("it is in a network that this service does not reach into; the operator can list it with --allow-network")
	}
	return nil
}

// refuseUnlisted is refusePrivate for plain HTTP, which nobody on the way must
// be able to answer.
func (c *Client) refuseUnlisted(_, address string, _ syscall.RawConn) error {
	addr, err := addressOf(address)
	if err != nil {
		return err
	}
	if !c.listed(addr) {
		return refused("the address must begin with https://")
	}
	return nil
}

func addressOf(address string) (netip.Addr, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil || at.Addr().Zone() != "" {
		return netip.Addr{}, refused("its address is not one that this service connects to")
	}
	return at.Addr().Unmap(), nil
}

func (c *Client) listed(addr netip.Addr) bool {
	return slices.ContainsFunc(c.allowed, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Get gives the document at the URL. The error is Unavailable and says to whoever
// gave the URL why, but nothing of what was answered.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, sallyport.Unavailable.Errorf("the address to fetch from is not a URL that begins with https://")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, sallyport.Unavailable.Errorf("the address to fetch from is not a URL that begins with https://")
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "sallyport")
	response, err := c.http.Do(r)
	if err != nil {
		return nil, unavailable(u, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, sallyport.Unavailable.Errorf("%s answers with the status %d instead of a document", u.Host, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, c.maxBytes+1))
	if err != nil {
		return nil, unavailable(u, err)
	}
	if int64(len(body)) > c.maxBytes {
		return nil, sallyport.Unavailable.Errorf("the document of %s is larger than %d bytes", u.Host, c.maxBytes)
	}
	return body, nil
}

func unavailable(u *url.URL, err error) error {
	why := "it cannot be reached"
	var (
		refusal refusal
		unknown *tls.CertificateVerificationError
		name    *net.DNSError
	)
	switch {
	case errors.As(err, &refusal):
		why = refusal.Error()
	case errors.Is(err, errRedirect):
		why = "it redirects, which is not followed"
	case errors.Is(err, context.DeadlineExceeded):
		why = "it takes too long"
	case errors.As(err, &unknown):
		why = "its TLS certificate is not good"
	case errors.As(err, &name):
		why = "its name does not resolve"
	}
	return &sallyport.Error{Kind: sallyport.Unavailable, Msg: fmt.Sprintf("fetching from %s: %s", u.Host, why), Err: err}
}
