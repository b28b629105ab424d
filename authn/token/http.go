package token

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	maxBody       = 64 << 10
	tokenPath     = "/oauth/token"
	introspection = "/oauth/introspect"
	jwksPath      = "/.well-known/jwks.json"
)

// Handler serves the endpoints: POST /oauth/token and /oauth/introspect, and GET
// /.well-known/openid-configuration, oauth-authorization-server and jwks.json.
func (i *Issuer) Handler() http.Handler { return i.handler(false) }

// MTLSHandler serves the same on the listener whose clients present certificates,
// whichever they like: what they get there is bound to them (RFC 8705).
func (i *Issuer) MTLSHandler() http.Handler { return i.handler(true) }

func (i *Issuer) handler(mtls bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, i.endpoint(mtls, func(ctx context.Context, r request) (any, error) { return i.grant(ctx, r) }))
	mux.HandleFunc("POST "+introspection, i.endpoint(mtls, func(ctx context.Context, r request) (any, error) { return i.introspect(ctx, r) }))
	mux.HandleFunc("GET /.well-known/openid-configuration", i.serveMetadata)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", i.serveMetadata)
	mux.HandleFunc("GET "+jwksPath, i.serveKeys)
	return mux
}

// request is what a client asks of an endpoint. Each parameter came once.
type request struct {
	form   url.Values
	client string // the client's id, "" without
	secret string // its API key, "" without
	bearer string // of the Authorization header
	from   netip.Addr
	certs  []*x509.Certificate // to whose leaf the token is to be bound; nil: none
}

func (r request) get(name string) string { return r.form.Get(name) }

// failure is an error of RFC 6749 §5.2 or RFC 8693 §2.2.2.
type failure struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`

	status int
}

func (f failure) Error() string { return f.Code + ": " + f.Description }

func fail(status int, code, description string) failure {
	return failure{Code: code, Description: plain(description), status: status}
}

// plain leaves the characters that RFC 6749 §5.2 allows in a description.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return ' '
		}
		return r
	}, text)
}

// endpoint answers a form with JSON that nobody keeps.
func (i *Issuer) endpoint(mtls bool, serve func(context.Context, request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Pragma", "no-cache")
		from := i.from(r)
		if !i.limits.source(from) {
			i.refuse(w, r, request{}, fail(http.StatusTooManyRequests, "temporarily_unavailable", "too many requests come from this address; try again in a moment"))
			return
		}
		var answer any
		req, err := i.read(w, r, mtls)
		if err == nil {
			req.from = from
			answer, err = serve(r.Context(), req)
		}
		if err != nil {
			i.refuse(w, r, req, err)
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

func (i *Issuer) refuse(w http.ResponseWriter, r *http.Request, req request, err error) {
	f := i.failureOf(r.Context(), err)
	i.metrics.refused.WithLabelValues(f.Code).Inc()
	switch {
	case f.status == http.StatusUnauthorized && req.bearer != "":
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	case f.status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="sallyport"`)
	case f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, f.status, f)
}

// failureOf turns an error into what a stranger may read; what has no answer is
// logged here, once.
func (i *Issuer) failureOf(ctx context.Context, err error) failure {
	var (
		f     failure
		known *sallyport.Error
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &known) && known.Kind == sallyport.Unauthenticated:
		return fail(http.StatusUnauthorized, "invalid_client", known.Msg)
	case errors.As(err, &known) && known.Kind == sallyport.Invalid:
		return fail(http.StatusBadRequest, "invalid_request", known.Msg)
	case errors.As(err, &known) && known.Kind == sallyport.Conflict:
		return fail(http.StatusBadRequest, "unauthorized_client", known.Msg)
	case errors.As(err, &known) && known.Kind == sallyport.Exhausted:
		return fail(http.StatusTooManyRequests, "temporarily_unavailable", known.Msg)
	}
	if ctx.Err() == nil {
		i.log.ErrorContext(ctx, "answering a token request", "error", err)
	}
	return fail(http.StatusServiceUnavailable, "temporarily_unavailable", "no token can be given out now; try again")
}

// read takes the form and the client's authentication out of a request. What it
// answers with an error, too, says how the client tried to authenticate.
func (i *Issuer) read(w http.ResponseWriter, r *http.Request, mtls bool) (request, error) {
	req := request{}
	if i.url == "" {
		return req, fail(http.StatusBadRequest, "unauthorized_client", errNoTokens.Msg)
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return req, fail(http.StatusBadRequest, "invalid_request", "the body must be a form: Content-Type application/x-www-form-urlencoded")
	}
	if r.URL.RawQuery != "" { // RFC 6749 §2.3.1: secrets in URLs are in logs
		return req, fail(http.StatusBadRequest, "invalid_request", "parameters go into the body, not into the URL")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return req, fail(http.StatusRequestEntityTooLarge, "invalid_request", "the body is larger than 64 KiB, or did not come whole")
	}
	if req.form, err = url.ParseQuery(string(body)); err != nil {
		return req, fail(http.StatusBadRequest, "invalid_request", "the body is not a well-formed form")
	}
	for name, values := range req.form { // RFC 6749 §3.2
		if len(values) > 1 {
			return req, fail(http.StatusBadRequest, "invalid_request", "the parameter "+cut(name)+" is there more than once")
		}
	}
	if err := req.readClient(r.Header.Values("Authorization")); err != nil {
		return req, err
	}
	if mtls {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return req, fail(http.StatusBadRequest, "invalid_request", "here a client certificate is needed, to which the token is bound; present one, or ask at "+i.url+tokenPath)
		}
		req.certs = r.TLS.PeerCertificates
	}
	return req, nil
}

func cut(s string) string { return s[:min(len(s), 64)] }

// readClient takes one way of client authentication: the header or the body
// (RFC 6749 §2.3: never two).
func (r *request) readClient(headers []string) error {
	r.client, r.secret = r.get("client_id"), r.get("client_secret")
	if len(headers) == 0 {
		return nil
	}
	invalid := fail(http.StatusUnauthorized, "invalid_client", "the Authorization header is neither Basic, with a service account's id and its API key, nor Bearer with an API key")
	if len(headers) > 1 {
		return invalid
	}
	if bearer, ok := credential.Bearer(headers[0]); ok {
		r.bearer = bearer
	} else {
		id, secret, ok := basicAuth(headers[0])
		if !ok || secret == "" {
			return invalid
		}
		if r.client != "" && r.client != id {
			return fail(http.StatusBadRequest, "invalid_request", "client_id is not the client of the Authorization header")
		}
		if r.secret == "" {
			r.client, r.secret = id, secret
			return nil
		}
	}
	if r.secret != "" {
		return fail(http.StatusBadRequest, "invalid_request", "the client authenticates in two ways: leave out either client_secret or the Authorization header")
	}
	return nil
}

// basicAuth reads RFC 6749 §2.3.1: id and secret are encoded as in forms.
func basicAuth(header string) (id, secret string, ok bool) {
	r := http.Request{Header: http.Header{"Authorization": {header}}}
	id, secret, ok = r.BasicAuth()
	if !ok {
		return "", "", false
	}
	id, err := url.QueryUnescape(id)
	if err != nil {
		return "", "", false
	}
	secret, err = url.QueryUnescape(secret)
	return id, secret, err == nil
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(answer); err != nil {
		status = http.StatusInternalServerError
		body.Reset()
		body.WriteString("{}\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the client is gone: nothing to be done
}
