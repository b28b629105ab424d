package oidc

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
)

const githubPublic = "https://github.com"

// githubMetadata stands in for the document that GitHub does not publish.
func githubMetadata(issuer string) Metadata {
	login := issuer + "/login/oauth"
	return Metadata{
		Issuer:        login, // what its answers name themselves (RFC 9207), when they do
		Authorization: login + "/authorize", Token: login + "/access_token", Methods: []string{string(SecretPost)},
	}
}

// githubAPI is where GitHub, or an Enterprise Server, says who a token is of.
func githubAPI(issuer string) string {
	if issuer == githubPublic {
		return "https://api.github.com"
	}
	return issuer + "/api/v3"
}

// finishGitHub asks GitHub who the code is of. There is no ID token: what holds the
// answer together is that it comes over TLS, for a code that is bound to this browser
// by PKCE.
func (c *Client) finishGitHub(ctx context.Context, p Provider, kept pending, code string) (Login, error) {
	p.Method = SecretPost
	t, err := c.exchange(ctx, p, githubMetadata(p.Issuer), kept, code)
	if err != nil {
		return Login{}, err
	}
	body, err := c.get(ctx, githubAPI(p.Issuer)+"/user", t.access, "application/vnd.github+json")
	if err != nil {
		return Login{}, err
	}
	user, err := decodeJSON(body)
	if err != nil {
		return Login{}, refuse(BadToken, "GitHub's answer on the user: %v", err)
	}
	number, _ := user["id"].(json.Number)
	id, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || id <= 0 {
		return Login{}, refuse(WrongSubject, "GitHub's answer has no number of the user")
	}
	i := Identity{Issuer: p.Issuer, Subject: strconv.FormatInt(id, 10), Name: clean(user.text("name"), maxName), Groups: Groups{Why: "GitHub says nothing of groups"}}
	if i.Name == "" {
		i.Name = clean(user.text("login"), maxName)
	}
	received := map[string]any{"id": number, "login": user.text("login"), "name": user.text("name")}
	if i.Email, err = c.githubEmail(ctx, p, t.access); err != nil {
		return Login{}, err
	}
	if i.EmailVerified = i.Email != ""; i.EmailVerified {
		received["email"] = i.Email
	}
	return Login{Identity: i, Received: received}, nil
}

// githubEmail gives the user's primary address if it is verified, "" otherwise. The
// one in the user's profile is whatever he wrote.
func (c *Client) githubEmail(ctx context.Context, p Provider, access string) (string, error) {
	body, err := c.get(ctx, githubAPI(p.Issuer)+"/user/emails?per_page=100", access, "application/vnd.github+json")
	if err != nil {
		return "", err
	}
	answer, err := strangers().Value(body)
	list, ok := answer.([]any)
	if err != nil || !ok {
		return "", refuse(BadToken, "GitHub's answer on the user's e-mails is not a list")
	}
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if fields["primary"] != true || fields["verified"] != true {
			continue
		}
		address := email(claims(fields).text("email"))
		if strings.HasSuffix(strings.ToLower(address), "@users.noreply.github.com") { // nobody reads it
			return "", nil
		}
		return address, nil
	}
	return "", nil
}
