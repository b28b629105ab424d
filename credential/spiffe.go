package credential

import (
	"strings"

	"github.com/sallyport-iam/sallyport"
)

const (
	spiffeScheme         = "spiffe://"
	spiffeAccount        = "/account/"
	spiffeServiceAccount = "/service-account/"
	maxTrustDomain       = 255
	maxServiceAccount    = 64
)

// SPIFFEID names a service account as managed certificates do:
// spiffe://<trust domain>/account/<account>/service-account/<id>.
func SPIFFEID(trustDomain string, account sallyport.AccountID, serviceAccount string) string {
	return spiffeScheme + trustDomain + spiffeAccount + string(account) + spiffeServiceAccount + serviceAccount
}

// ParseSPIFFEID is the inverse of SPIFFEID. ok is false for everything but its
// exact form: no other case, no escapes, port, user, query, fragment or further
// part. What it says proves nothing by itself.
func ParseSPIFFEID(uri string) (trustDomain string, account sallyport.AccountID, serviceAccount string, ok bool) {
	rest, scheme := strings.CutPrefix(uri, spiffeScheme)
	trustDomain, rest, inAccount := strings.Cut(rest, spiffeAccount)
	id, serviceAccount, complete := strings.Cut(rest, spiffeServiceAccount)
	ok = scheme && inAccount && complete && isAccount(id) &&
		trustDomain != "" && len(trustDomain) <= maxTrustDomain && isSPIFFE(trustDomain, false) &&
		serviceAccount != "" && len(serviceAccount) <= maxServiceAccount && isSPIFFE(serviceAccount, true) &&
		serviceAccount != "." && serviceAccount != ".."
	if !ok {
		return "", "", "", false
	}
	return trustDomain, sallyport.AccountID(id), serviceAccount, true
}

// isSPIFFE reports whether a part has only characters that SPIFFE allows in a
// trust domain, or also the capitals that it allows in a path (SPIFFE ID §2).
func isSPIFFE(part string, capitals bool) bool {
	for i := range len(part) {
		c := part[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		case capitals && c >= 'A' && c <= 'Z':
		default:
			return false
		}
	}
	return true
}
