package replica

import "github.com/sallyport-iam/sallyport/authz/object"

// Certificates that an account's issuers have made are kept as revoked serials
// are: what revokes one is found by the same packed string as itself.

// issuedData is what every certificate's object holds.
var issuedData = string(object.Encode(object.Certificate{}))

const reasonNotIssued = "the client certificate was not made in all histories of the account; use one from before the restore, or wait"

// packIssued reads an object's id; ok is false for what is not exactly as this
// version would write it.
func packIssued(id string) (r revocation, ok bool) {
	return packRevocation(revocationNames[revokedSerial] + "/" + id)
}

// issuedObject is the inverse of packIssued.
func issuedObject(packed string) object.Object {
	id := revocation{revokedSerial, packed}.id()[len(revocationNames[revokedSerial])+1:]
	return object.Object{Kind: object.KindCertificate, ID: id, Data: []byte(issuedData)}
}

// made reports whether an issuer of the account made the certificate with the
// serial, as far as this history knows. It does not allocate.
func (v *view) made(serial revocation) bool {
	h := v.issued.hash(serial.packed)
	for _, s := range v.issued.bucket(h) {
		if s.hash == h && s.value == serial.packed {
			return true
		}
	}
	return false
}

// insertIssued adds the certificate; one with data that is not understood does
// not count.
func (d *draft) insertIssued(o object.Object) (ok bool) {
	r, known := packIssued(o.ID)
	if !known || string(o.Data) != issuedData {
		return false
	}
	d.issued.set(d.issued.hash(r.packed), func(packed string) bool { return packed == r.packed }, r.packed)
	return true
}

// removeIssued gives the object's data, nil if there is none.
func (d *draft) removeIssued(id string) []byte {
	r, known := packIssued(id)
	if !known {
		return nil
	}
	before := d.issued.count
	d.issued.remove(d.issued.hash(r.packed), func(packed string) bool { return packed == r.packed })
	if d.issued.count == before {
		return nil
	}
	return []byte(issuedData)
}
