// Package object is what authorizers replicate: small facts about accounts,
// principals, grants, keys, namespaces, certificates and tokens, and their encoding.
// There are no personal names or e-mails in it.
//
// The encoding is JSON with fixed field order: equal values have equal bytes,
// which the digest of a replica relies on. Decoding is strict: an object with
// a field that this version does not know (a restriction added later, say) is
// an error, and whoever decodes it must treat what it gives as absent.
package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sallyport-iam/sallyport"
)

// Kind names a type of object, as it is kept in the journal.
type Kind string

const (
	KindAccount    Kind = "account"    // Account, id: the account's
	KindPrincipal  Kind = "principal"  // Principal, id: the user's or service account's
	KindGroup      Kind = "group"      // Group, id: the group's
	KindMembership Kind = "membership" // Membership, id: MembershipID
	KindGrant      Kind = "grant"      // Grant, id: GrantID
	KindKey        Kind = "key"        // Key, id: the key's
	KindNamespace  Kind = "namespace"  // Namespace, id: the NamespaceID
	KindClientCAs  Kind = "client-cas" // ClientCAs, id: the NamespaceID
	KindIssuer     Kind = "issuer"     // Issuer, id: the credential.IssuerID of its key
	KindRevocation Kind = "revocation" // Revocation, id: one of the Revoked… functions
	KindTokenKey   Kind = "token-key"  // TokenKey, id: the kid; in account 00000 only
	// KindFederationRule is a FederationRule, id: the rule's.
	KindFederationRule Kind = "federation-rule"
	// KindCertificate is of a Certificate, id: CertificateID.
	KindCertificate Kind = "certificate"
)

// Object is one replicated fact. A deleted one has no Data.
type Object struct {
	Kind    Kind
	ID      string
	Deleted bool
	Data    []byte
}

// Status of an account, a principal or a key. The zero value gives nothing.
type Status string

const (
	Active    Status = "active"
	Disabled  Status = "disabled"
	Suspended Status = "suspended"
)

// Account is the state of an account. Only an active one reaches the data plane.
type Account struct {
	Status Status `json:"status"`
}

// Principal is a user's or service account's standing.
type Principal struct {
	Kind   sallyport.PrincipalKind `json:"kind"`
	Status Status                  `json:"status"`
	// Epoch is the credential epoch: credentials made under another one are dead.
	Epoch int64 `json:"epoch"`
}

// Group exists as long as its object does; removing it ends what it gave.
type Group struct{}

// Membership puts a user into a group.
type Membership struct {
	Group string `json:"group"`
	User  string `json:"user"`
}

// MembershipID is the id of the membership's object.
func MembershipID(group, user string) string { return group + "/" + user }

// Grant gives the subject (a principal's or group's id) a role.
type Grant struct {
	Subject string          `json:"subject"`
	Scope   sallyport.Scope `json:"scope"`
	Target  string          `json:"target"`
	Role    string          `json:"role"`
}

// GrantID is the id of the grant's object.
func GrantID(subject string, scope sallyport.Scope, target string) string {
	return subject + "/" + string(scope) + "/" + target
}

// Key is an API key. Times are microseconds since 1970 UTC.
type Key struct {
	Owner   string   `json:"owner"`
	Hash    [32]byte `json:"-"`
	Status  Status   `json:"status"`
	Epoch   int64    `json:"epoch"`   // of the owner when the key was made
	Expires int64    `json:"expires"` // never zero
	Retires int64    `json:"retires,omitempty"`
	// ReadOnly, Namespaces and Sources narrow the key below its owner.
	ReadOnly   bool     `json:"read_only,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"` // NamespaceIDs
	Sources    []string `json:"sources,omitempty"`    // CIDR prefixes
}

// MarshalJSON writes the hash as base64.
func (k Key) MarshalJSON() ([]byte, error) {
	type plain Key
	return json.Marshal(struct {
		plain
		HashBytes []byte `json:"hash"`
	}{plain(k), k.Hash[:]})
}

// UnmarshalJSON is strict: unknown fields and hashes of another length are errors.
func (k *Key) UnmarshalJSON(data []byte) error {
	type plain Key
	var w struct {
		plain
		HashBytes []byte `json:"hash"`
	}
	if err := strict(data, &w); err != nil {
		return err
	}
	if len(w.HashBytes) != sha256.Size {
		return errors.New("key hash is not 32 bytes")
	}
	*k = Key(w.plain)
	copy(k.Hash[:], w.HashBytes)
	return nil
}

// NamespaceAuth says which credentials a namespace accepts.
type NamespaceAuth struct {
	APIKey bool `json:"api_key"`
	MTLS   bool `json:"mtls"`
}

// Namespace is a data-plane resource. Name is without the account; the
// namespace is called <name>.<account> outside.
type Namespace struct {
	Name          string        `json:"name"`
	Project       string        `json:"project"`
	Cell          string        `json:"cell"`
	RetentionDays int32         `json:"retention_days"`
	Auth          NamespaceAuth `json:"auth"`
}

// ClientCAs is whose client certificates a namespace takes, beside those of the
// account's Issuers: chains that end at one of the certificates and whose leaf
// matches one of the filters. Without filters every leaf does.
type ClientCAs struct {
	Certificates [][]byte            `json:"certificates"` // DER, in the order of the bundle
	Filters      []CertificateFilter `json:"filters,omitempty"`
}

// CertificateFilter matches leaves, and says what they may do on the namespace:
// what the service account may, what the permission gives, or (with neither) write.
type CertificateFilter struct {
	CommonName             string `json:"common_name,omitempty"`
	Organization           string `json:"organization,omitempty"`
	OrganizationalUnit     string `json:"organizational_unit,omitempty"`
	SubjectAlternativeName string `json:"subject_alternative_name,omitempty"`
	ServiceAccount         string `json:"service_account,omitempty"` // its id; one that is gone gives nothing
	Permission             string `json:"permission,omitempty"`      // "read"
}

// Issuer is a CA certificate of the account's own under the operator's root.
// A certificate that it issued is the service account that its SPIFFE URI names.
type Issuer struct {
	Certificate []byte `json:"certificate"` // DER
	TrustDomain string `json:"trust_domain"`
}

// Revocation ends what its id names, in the account that it is an object of.
type Revocation struct{}

// RevokedCertificate is the id of the revocation of the certificate with the
// fingerprint (credential.Fingerprint).
func RevokedCertificate(fingerprint string) string { return "certificate/" + fingerprint }

// RevokedSerial is the id of the revocation of what the issuer (its
// credential.IssuerID) made under the serial number (credential.SerialText).
func RevokedSerial(issuer, serial string) string { return "serial/" + issuer + "/" + serial }

// RevokedIssuer is the id of the revocation of an issuer: no chain through a
// certificate of its key counts.
func RevokedIssuer(issuer string) string { return "issuer/" + issuer }

// TokenKey is a key that the service signs tokens with. Tokens of a key whose
// object is gone are dead.
type TokenKey struct {
	Key       []byte   `json:"key"` // SubjectPublicKeyInfo, DER
	Issuer    string   `json:"issuer"`
	Audiences []string `json:"audiences"`
}

// FederationRule lets tokens in that were given out by it at this version, for
// this service account. A disabled rule has no object.
type FederationRule struct {
	ServiceAccount string `json:"service_account"` // its id
	Version        int64  `json:"version"`
}

// Certificate says that the managed CA has made the certificate that its id
// names. It matters only where several histories of an account are known: what
// one of them did not make does not count before they are one.
type Certificate struct{}

// CertificateID is the id of the certificate's object: of its issuer (its
// credential.IssuerID) and its serial number (credential.SerialText).
func CertificateID(issuer, serial string) string { return issuer + "/" + serial }

// Value is any of the types that an object's data can hold.
type Value interface {
	Account | Principal | Group | Membership | Grant | Key | Namespace | ClientCAs | Issuer | Revocation | Certificate | TokenKey | FederationRule
}

// Encode gives the object's data.
func Encode[V Value](v V) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // no Value holds anything that cannot be marshalled
	}
	return data
}

// Decode reads an object's data, strictly.
func Decode[V Value](data []byte) (V, error) {
	var v V
	if err := strict(data, &v); err != nil {
		return v, fmt.Errorf("decoding %T: %w", v, err)
	}
	return v, nil
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data after the object")
	}
	return nil
}

// Digest is a set hash over an account's live objects: the sum, modulo 2^256
// and little-endian, of each one's SHA-256. Adding and removing an object are O(1).
type Digest [32]byte

// Toggle adds the object's hash to the digest, or subtracts it.
func (d *Digest) Toggle(kind Kind, id string, data []byte, add bool) {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%d:%s%d:", len(kind), kind, len(id), id, len(data))
	h.Write(data)
	sum := h.Sum(nil)
	var carry int
	for i := range d {
		v := int(d[i])
		if add {
			v += int(sum[i]) + carry
			carry = v >> 8
		} else {
			v -= int(sum[i]) + carry
			carry = 0
			if v < 0 {
				v += 256
				carry = 1
			}
		}
		d[i] = byte(v)
	}
}
