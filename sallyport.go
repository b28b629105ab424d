// Package sallyport is the vocabulary of the Sallyport identity and access
// service: the ids, roles, callers and errors that every other package names.
// It does no I/O and imports the standard library only.
package sallyport

import (
	"crypto/rand"
	"encoding/base32"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// AccountID names a tenant: five or more of a-z2-9, permanent and never reused.
type AccountID string

// SystemAccount holds what belongs to no tenant: authorizers, cells, token
// signing keys. Every authorizer follows it.
const SystemAccount AccountID = "00000"

var accountID = regexp.MustCompile(`^[a-z2-9]{5,16}$`)

// Valid reports whether the id has the form of a tenant's id or is SystemAccount.
func (a AccountID) Valid() bool { return a == SystemAccount || accountID.MatchString(string(a)) }

// NamespaceID is a namespace's inside id, "ns_…". It is never reused, so that a
// name made again does not bring back the grants of the old one.
type NamespaceID string

// Prefixes of the ids that NewID makes.
const (
	UserPrefix           = "u_"
	ServiceAccountPrefix = "sa_"
	GroupPrefix          = "g_"
	ProjectPrefix        = "p_"
	NamespacePrefix      = "ns_"
	OperationPrefix      = "op_"
	CertificatePrefix    = "cert_"
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID returns prefix and 16 random characters of a-z2-7 (80 bits).
func NewID(prefix string) string {
	var b [10]byte
	rand.Read(b[:])
	return prefix + idEncoding.EncodeToString(b[:])
}

// NewAccountID returns a random id of five characters. The caller tries again
// when it is taken.
func NewAccountID() AccountID {
	return AccountID(strings.NewReplacer("l", "8", "o", "9").Replace(NewID("")[:5]))
}

// PrincipalKind says what a credential proves its bearer to be.
type PrincipalKind string

const (
	User           PrincipalKind = "user"
	ServiceAccount PrincipalKind = "service-account"
	// Certificate is a client certificate of a customer's own CA that is mapped to
	// no service account: it has its fingerprint as ID and a permission on one
	// namespace. There is none on the control plane.
	Certificate PrincipalKind = "certificate"
	// Operator is whoever runs sallyportd's commands on the database itself.
	Operator PrincipalKind = "operator"
)

// Principal is a user or a service account of one account. Its ID is unique
// across accounts.
type Principal struct {
	Kind PrincipalKind
	ID   string
}

// Credential says by what a caller proved its principal; never the secret.
type Credential struct {
	Kind string // "api-key", "certificate", "operator"
	ID   string
}

// Limits narrows a credential below its principal. Zero means no narrowing.
type Limits struct {
	ReadOnly   bool
	Namespaces []NamespaceID  // nil: all
	Sources    []netip.Prefix // nil: from anywhere
}

// Head is an account's position in its journal.
type Head struct {
	Epoch    int64    // changes only by an operator's command after a restore
	Revision int64    // one a committed change, without gaps
	Hash     [32]byte // of the entry at Revision; it covers all before it
}

// Caller is a principal with its access, resolved at Head for one request.
type Caller struct {
	Account    AccountID
	Principal  Principal
	Credential Credential
	Access     Access
	Limits     Limits
	Head       Head // the account's head that Access was read at
	From       netip.Addr
	RequestID  string
}

// OperatorCaller is the caller of sallyportd's own commands. name is kept in
// the journal: the operating system's user, for example.
func OperatorCaller(account AccountID, name string) Caller {
	return Caller{Account: account, Principal: Principal{Operator, name}, Credential: Credential{Kind: "operator"}}
}

// Page asks for a page of a list: at most Size items after Token, which is the
// opaque NextToken of the page before. Zero Size means 100; at most 1000.
type Page struct {
	Size  int
	Token string
}

// Micros rounds to what PostgreSQL keeps: UTC, microseconds.
func Micros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
