package fetch

import (
	"context"
	"io"
	"net/http"

	"github.com/sallyport-iam/sallyport"
)

// Answer is what an endpoint answered, whatever its status.
type Answer struct {
	Status int
	Type   string // the Content-Type header, as it came
	Body   []byte // within the client's bound
}

// Do makes a request of any method, with the rules of Get, but follows no redirect
// at all: what it carries is for that endpoint only. The error is Unavailable and
// says to whoever gave the URL why, but nothing of what was sent or answered.
func (c *Client) Do(r *http.Request) (Answer, error) {
	if r.URL.Host == "" || r.URL.User != nil || r.URL.Scheme != "https" && r.URL.Scheme != "http" {
		return Answer{}, sallyport.Unavailable.Errorf("the address to ask is not a URL that begins with https://")
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.timeout)
	defer cancel()
	r = r.WithContext(ctx)
	if r.Header.Get("Accept") == "" {
		r.Header.Set("Accept", "application/json")
	}
	r.Header.Set("User-Agent", "sallyport")
	once := *c.http
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
	response, err := once.Do(r) //nolint:gosec // each address is judged before it is connected to
	if err != nil {
		return Answer{}, unavailable(r.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.maxBytes+1))
	if err != nil {
		return Answer{}, unavailable(r.URL, err)
	}
	if int64(len(body)) > c.maxBytes {
		return Answer{}, sallyport.Unavailable.Errorf("the answer of %s is larger than %d bytes", r.URL.Host, c.maxBytes)
	}
	return Answer{Status: response.StatusCode, Type: response.Header.Get("Content-Type"), Body: body}, nil
}
