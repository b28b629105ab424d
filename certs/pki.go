package certs

import (
	"context"
	"net/http"
)

// PKI serves GET /pki/… to everybody: CRLs, issuers' certificates and roots.
func (a *Authority) PKI() http.Handler { return http.NotFoundHandler() }

// Problems says what an operator should look at.
func (a *Authority) Problems(ctx context.Context) []string { return nil }
