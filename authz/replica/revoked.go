package replica

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport/authz/object"
)

// Revocations are kept packed, in a table for each form of id: the 32 bytes of a
// fingerprint or of an issuer's id, after which those of a serial's number
// follow. An entry is a string of 48 bytes at most for every serial that is
// allowed to count.
const (
	revokedCertificate = iota
	revokedSerial
	revokedIssuer
	revocationForms
)

var revocationNames = [revocationForms]string{"certificate", "serial", "issuer"}

// maxSerial bounds the hex digits of a serial. Certificates with longer ones
// than 20 octets are refused by themselves.
const maxSerial = 64

// revocationData is what every revocation's object holds.
var revocationData = string(object.Encode(object.Revocation{}))

// A revocation in its packed form.
type revocation struct {
	form   uint8
	packed string
}

// packRevocation reads an object's id; ok is false for what is not exactly as
// this version would write it: no certificate has that name.
func packRevocation(id string) (r revocation, ok bool) {
	form, rest, _ := strings.Cut(id, "/")
	name, serial, _ := strings.Cut(rest, "/")
	i := slices.Index(revocationNames[:], form)
	if i < 0 || len(name) != 2*sha256.Size || len(serial) > maxSerial || (i == revokedSerial) != (serial != "") {
		return r, false
	}
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	packed, err := hex.DecodeString(name + serial)
	if err != nil {
		return r, false
	}
	if r = (revocation{uint8(i), string(packed)}); r.id() != id {
		return revocation{}, false
	}
	return r, true
}

// id is the inverse of packRevocation.
func (r revocation) id() string {
	name := hex.EncodeToString([]byte(r.packed[:sha256.Size]))
	switch r.form {
	case revokedCertificate:
		return object.RevokedCertificate(name)
	case revokedIssuer:
		return object.RevokedIssuer(name)
	}
	serial := hex.EncodeToString([]byte(r.packed[sha256.Size:]))
	if len(serial) > 1 && serial[0] == '0' {
		serial = serial[1:]
	}
	return object.RevokedSerial(name, serial)
}

// revoked looks a revocation up, without allocating.
func (v *view) revoked(r revocation) bool {
	t := &v.revocations[r.form]
	h := t.hash(r.packed)
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value == r.packed {
			return true
		}
	}
	return false
}

// A mark stands, by its address, for the revocations of all views that have it.
type mark struct{ _ byte }

// insertRevocation adds what the object's id names. It counts whatever the
// object's data is, since a restriction that this version does not understand
// must not turn a revocation into none; ok says whether it understands all of it.
func (d *draft) insertRevocation(o object.Object) (ok bool) {
	r, known := packRevocation(o.ID)
	if !known {
		return false
	}
	d.remark()
	t := d.revocations[r.form]
	t.set(t.hash(r.packed), func(packed string) bool { return packed == r.packed }, r.packed)
	return string(o.Data) == revocationData
}

// removeRevocation gives the object's data, nil if there is none.
func (d *draft) removeRevocation(id string) []byte {
	r, known := packRevocation(id)
	if !known {
		return nil
	}
	t := d.revocations[r.form]
	before := t.count
	t.remove(t.hash(r.packed), func(packed string) bool { return packed == r.packed })
	if t.count == before {
		return nil
	}
	d.remark()
	return []byte(revocationData)
}

func (d *draft) remark() {
	if !d.remarked {
		d.revocationMark, d.remarked = &mark{}, true
	}
}

// allRevocations gives every revocation but those with data that this version
// does not understand: these are among the odd objects.
func (v *view) allRevocations(yield func(revocation) bool) {
	for form := range v.revocations {
		for packed := range v.revocations[form].all {
			r := revocation{uint8(form), packed}
			if len(v.odd) > 0 {
				if _, odd := v.odd[oddKey{object.KindRevocation, r.id()}]; odd {
					continue
				}
			}
			if !yield(r) {
				return
			}
		}
	}
}
