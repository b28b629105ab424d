package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

type tokenCommand struct {
	IssuerURL        string   `name:"issuer-url" help:"Where the service gives out tokens." required:"" env:"SALLYPORT_ISSUER_URL" placeholder:"URL"`
	CA               string   `name:"ca" help:"PEM file of the CA to trust, instead of the system's." env:"SALLYPORT_CA" placeholder:"FILE"`
	APIKeyFile       string   `help:"File with the service account's API key." xor:"by" placeholder:"FILE"`
	SubjectTokenFile string   `help:"File with a token of another issuer, which a federation rule of the service account takes; - for stdin." xor:"by" placeholder:"FILE"`
	Account          string   `help:"The account's id. With --subject-token-file." placeholder:"ID"`
	ServiceAccount   string   `help:"The service account (sa_…). With --subject-token-file." placeholder:"ID"`
	Cert             string   `help:"File with a client certificate, to which the token is bound." and:"cert" placeholder:"FILE"`
	Key              string   `help:"File with the certificate's private key." and:"cert" placeholder:"FILE"`
	Scope            []string `help:"Ask for less than the service account has: read, namespace:NAME. Repeat for others." sep:"none" placeholder:"SCOPE"`
	Audience         string   `help:"What the token is for. Empty: this platform." placeholder:"NAME"`
	ExpiresIn        span     `help:"How long it is good for: 1m to 60m. Empty: as the service says, 10m." placeholder:"10m"`
	Out              string   `help:"File for the token (mode 0600), instead of stdout; one that is there is replaced." placeholder:"FILE"`
}

// Run asks for a token. No login is needed.
func (c *tokenCommand) Run(ctx context.Context, s *session) error {
	form, bearer, err := c.request(s)
	if err != nil {
		return err
	}
	file, err := openOut(c.Out)
	if err != nil {
		return err
	}
	defer file.discard()
	client, err := c.client(s.timeout)
	if err != nil {
		return err
	}
	endpoint := strings.TrimRight(c.IssuerURL, "/") + "/oauth/token"
	if c.Cert != "" {
		if endpoint, err = c.boundEndpoint(ctx, client); err != nil {
			return err
		}
	}
	answer, err := askToken(ctx, client, endpoint, form, bearer)
	if err != nil {
		return err
	}
	token := answer["access_token"].(string) //nolint:forcetypeassert // askToken has checked it
	if file != nil {
		delete(answer, "access_token")
	}
	return s.handOver(file, token, func() error {
		if s.json {
			text, err := json.Marshal(answer)
			if err != nil {
				return fmt.Errorf("writing JSON: %w", err)
			}
			return s.indented(text)
		}
		scope, _ := answer["scope"].(string)
		if scope == "" {
			scope = "all that the service account may"
		}
		s.note("good for %v seconds; scope: %s", answer["expires_in"], scope)
		return nil
	})
}

// Grants and token types of RFC 6749 and RFC 8693.
const (
	grantClient   = "client_credentials"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
)

// request is the form to post, and the API key to send with it.
func (c *tokenCommand) request(s *session) (url.Values, credential.Secret, error) {
	form := url.Values{}
	if len(c.Scope) > 0 {
		form.Set("scope", strings.Join(c.Scope, " "))
	}
	if c.Audience != "" {
		form.Set("audience", c.Audience)
	}
	if c.ExpiresIn > 0 {
		form.Set("expires_in", strconv.FormatInt(int64(time.Duration(c.ExpiresIn)/time.Second), 10))
	}
	switch {
	case c.SubjectTokenFile != "" && (c.Account == "" || c.ServiceAccount == ""):
		return nil, "", errors.New("--subject-token-file needs --account and --service-account: whose rules are to take the token")
	case c.SubjectTokenFile != "":
		subject, err := s.secretFile("token", c.SubjectTokenFile)
		if err != nil {
			return nil, "", err
		}
		form.Set("grant_type", grantExchange)
		form.Set("subject_token", subject.Reveal())
		form.Set("subject_token_type", typeJWT)
		form.Set("account", c.Account)
		form.Set("service_account", c.ServiceAccount)
		return form, "", nil
	case c.APIKeyFile != "":
		key, err := readKeyFile(c.APIKeyFile)
		if err != nil {
			return nil, "", err
		}
		_, _, err = credential.ParseAPIKey(key.Reveal())
		form.Set("grant_type", grantClient)
		return form, key, err
	}
	return nil, "", errors.New("say what proves the workload: --subject-token-file with another issuer's token, or --api-key-file")
}

// client trusts the CA and presents the certificate of the flags. It follows no
// redirects: what it sends is a secret.
func (c *tokenCommand) client(timeout time.Duration) (*http.Client, error) {
	u, err := url.Parse(c.IssuerURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("--issuer-url %q is not an address such as https://id.example.com", c.IssuerURL)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("--issuer-url %s would send the secret for everybody on the way to read; begin it with https://", c.IssuerURL)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form (-----BEGIN CERTIFICATE-----)", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Timeout: timeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// boundEndpoint is where tokens are bound to the client's certificate (RFC 8705 §5).
func (c *tokenCommand) boundEndpoint(ctx context.Context, client *http.Client) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.IssuerURL, "/")+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return "", fmt.Errorf("asking for the token endpoint: %w", err)
	}
	answer, err := askJSON(client, r)
	if err != nil {
		return "", err
	}
	aliases, _ := answer["mtls_endpoint_aliases"].(map[string]any)
	endpoint, _ := aliases["token_endpoint"].(string)
	if !strings.HasPrefix(endpoint, "https://") {
		return "", errors.New("the service binds no tokens to certificates: it runs without --mtls-listen")
	}
	return endpoint, nil
}

func askToken(ctx context.Context, client *http.Client, endpoint string, form url.Values, bearer credential.Secret) (map[string]any, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the request for a token cannot be made; is the --issuer-url right?")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer.Reveal())
	}
	answer, err := askJSON(client, r)
	if err != nil {
		return nil, err
	}
	if token, ok := answer["access_token"].(string); !ok || token == "" {
		return nil, fmt.Errorf("%s answered without a token; is it a Sallyport?", endpoint)
	}
	return answer, nil
}

// askJSON gives the JSON object that is the answer, or the service's reason.
func askJSON(client *http.Client, r *http.Request) (map[string]any, error) {
	response, err := client.Do(r)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("%s cannot be reached (%w); is the address right, and does sallyportd run there?", r.URL.Host, err)
	}
	defer response.Body.Close()
	text, err := readSome(response.Body, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", r.URL.Host, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("%s answered %s and nothing that can be read; is it a Sallyport that gives out tokens?", r.URL.Host, response.Status)
	}
	if response.StatusCode != http.StatusOK {
		reason, _ := answer["error_description"].(string)
		if reason == "" {
			reason = response.Status
		}
		return nil, fmt.Errorf("%s (%v)", reason, answer["error"])
	}
	return answer, nil
}

func readSome(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	return text, err
}
