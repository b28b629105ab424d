package oidc

import "context"

// CheckIDToken is the part of Finish that checks an ID token.
func (c *Client) CheckIDToken(ctx context.Context, p Provider, kept Pending, raw, access string) error {
	d, err := c.documents.get(ctx, p)
	if err != nil {
		return err
	}
	_, err = c.checkIDToken(ctx, p, d.Metadata, kept.kept, tokens{id: raw, access: access})
	return err
}
