package saml

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"

	"github.com/crewjam/saml"
)

// ours is the document of a service provider. (crewjam's own writes validUntil always,
// which some providers take for the end of the connection.)
type ours struct {
	XMLName    xml.Name `xml:"urn:oasis:names:tc:SAML:2.0:metadata EntityDescriptor"`
	EntityID   string   `xml:"entityID,attr"`
	Descriptor saml.SPSSODescriptor
}

// Metadata is the document that an admin gives to the identity provider. All keys are
// published, each for signing and for encryption: the first is the one that signs, so
// that a key's successor is known before it is used and a key can go when no login
// needed it any more (Assertion.DecryptedBy).
func (c Connection) Metadata() ([]byte, error) {
	yes := true
	document := ours{EntityID: c.EntityID}
	d := &document.Descriptor
	d.ProtocolSupportEnumeration = nsProtocol
	d.AuthnRequestsSigned, d.WantAssertionsSigned = &yes, &yes
	for _, key := range c.Keys {
		for _, use := range []string{"signing", "encryption"} {
			descriptor := saml.KeyDescriptor{Use: use}
			descriptor.KeyInfo.X509Data.X509Certificates = []saml.X509Certificate{{Data: base64.StdEncoding.EncodeToString(key.Certificate.Raw)}}
			if use == "encryption" {
				for _, algorithm := range []string{nsXMLEnc11 + "aes256-gcm", nsXMLEnc11 + "aes128-gcm", oaepMGF1P} {
					descriptor.EncryptionMethods = append(descriptor.EncryptionMethods, saml.EncryptionMethod{Algorithm: algorithm})
				}
			}
			d.KeyDescriptors = append(d.KeyDescriptors, descriptor)
		}
	}
	if c.NameIDFormat != "" {
		d.NameIDFormats = []saml.NameIDFormat{saml.NameIDFormat(c.NameIDFormat)}
	}
	d.AssertionConsumerServices = []saml.IndexedEndpoint{{Binding: saml.HTTPPostBinding, Location: c.ACS, Index: 0, IsDefault: &yes}}
	data, err := xml.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the metadata of %s: %w", c.EntityID, err)
	}
	return append([]byte(xml.Header), append(data, '\n')...), nil
}
