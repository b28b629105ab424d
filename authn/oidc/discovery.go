package oidc

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
)

// Metadata is what a provider publishes about itself (OpenID Connect Discovery 1.0
// §3), as far as it matters here.
type Metadata struct {
	Issuer        string // as announced: Microsoft's for many tenants has {tenantid} in it
	Authorization string
	Token         string
	UserInfo      string   // "": it has none
	Keys          string   // where its key set is
	Algorithms    []string // for ID tokens, those that are also supported here
	Methods       []string // of client authentication
	IssParameter  bool     // it names itself in its answers (RFC 9207)
	Logout        bool     // it can send back-channel logouts
	LogoutSession bool     // and names the session in them
}

// wellKnown is where the discovery document is.
func (p Provider) wellKnown() string {
	return strings.TrimSuffix(p.Issuer, "/") + "/.well-known/openid-configuration"
}

// announces is what the document must give as its issuer: the very issuer that was
// asked, except that Microsoft's many tenants share one.
func (p Provider) announces() string {
	if p.Kind == Microsoft {
		return microsoftAnnounced(p.Issuer)
	}
	return p.Issuer
}

// Discover gives what the provider publishes, no more than minutes old. An error is
// a refusal of the reason Unreachable.
func (c *Client) Discover(ctx context.Context, p Provider) (Metadata, error) {
	if err := p.Check(); err != nil {
		return Metadata{}, err
	}
	if p.Kind == GitHub {
		return githubMetadata(p.Issuer), nil
	}
	d, err := c.documents.get(ctx, p)
	return d.Metadata, err
}

// parseMetadata reads the discovery document of the issuer. The error says what is
// wrong with it.
func parseMetadata(data []byte, announced string) (Metadata, error) {
	document, err := decodeJSON(data)
	if err != nil {
		return Metadata{}, sallyport.Unavailable.Errorf("the discovery document of %s is not good: %v", announced, err)
	}
	m := Metadata{
		Issuer: document.text("issuer"), Authorization: document.text("authorization_endpoint"), Token: document.text("token_endpoint"),
		UserInfo: document.text("userinfo_endpoint"), Keys: document.text("jwks_uri"),
		IssParameter: document["authorization_response_iss_parameter_supported"] == true,
		Logout:       document["backchannel_logout_supported"] == true, LogoutSession: document["backchannel_logout_session_supported"] == true,
	}
	if m.Issuer != announced { // §4.3: or one provider could speak for another
		return Metadata{}, sallyport.Unavailable.Errorf("the discovery document of %s is of another issuer, %s; they must be the same to the last character", announced, show(m.Issuer))
	}
	for name, address := range map[string]string{"authorization_endpoint": m.Authorization, "token_endpoint": m.Token, "jwks_uri": m.Keys, "userinfo_endpoint": m.UserInfo} {
		if address == "" && name == "userinfo_endpoint" {
			continue
		}
		if !endpoint(address, announced) {
			return Metadata{}, sallyport.Unavailable.Errorf("the discovery document of %s has no good %s: it must be a URL, and https if the issuer is", announced, name)
		}
	}
	if m.Algorithms, err = announcedAlgorithms(document, announced); err != nil {
		return Metadata{}, err
	}
	methods, ok := document.texts("code_challenge_methods_supported")
	if ok && !slices.Contains(methods, "S256") {
		return Metadata{}, sallyport.Unavailable.Errorf("%s does not support PKCE with S256, which is required", announced)
	}
	if m.Methods, ok = document.texts("token_endpoint_auth_methods_supported"); !ok {
		m.Methods = []string{string(SecretBasic)} // the document's default
	}
	return m, nil
}

func announcedAlgorithms(document claims, announced string) ([]string, error) {
	const name = "id_token_signing_alg_values_supported"
	list, ok := document.texts(name)
	if !ok && document.has(name) {
		return nil, sallyport.Unavailable.Errorf("the discovery document of %s has no good %s", announced, name)
	}
	if !ok {
		return []string{"RS256"}, nil // what every provider must support
	}
	list = slices.DeleteFunc(list, func(a string) bool { return !slices.Contains(algorithms, a) })
	if len(list) == 0 {
		return nil, sallyport.Unavailable.Errorf("%s signs with none of %s", announced, strings.Join(algorithms, ", "))
	}
	return list, nil
}

// endpoint reports whether the address can be an endpoint of the issuer: not less
// protected than the issuer itself. The browser is sent to one of them, hence no
// other schemes.
func endpoint(address, issuer string) bool {
	u, err := url.Parse(address)
	return err == nil && usable(u) && !strings.Contains(address, "#") && len(address) <= maxURL &&
		(u.Scheme == "https" || strings.HasPrefix(issuer, "http://"))
}

// allowed are the algorithms that an ID token of the provider may be signed with.
func (p Provider) allowed(m Metadata) []string {
	var list []string
	for _, a := range m.Algorithms {
		if p.Algorithms == nil || slices.Contains(p.Algorithms, a) {
			list = append(list, a)
		}
	}
	return list
}
