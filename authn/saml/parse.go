package saml

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/beevik/etree"
)

// limits bound what is built from a document before anybody is known to have signed it.
type limits struct {
	bytes      int
	depth      int // crewjam/saml takes 4 s for 40 000 levels in 285 KB
	elements   int
	attributes int // of one element, namespaces among them
	name       int // bytes of an element's or an attribute's name
}

var (
	responseLimits = limits{bytes: 256 << 10, depth: 24, elements: 5000, attributes: 24, name: 128}
	metadataLimits = limits{bytes: 1 << 20, depth: 32, elements: 20000, attributes: 48, name: 128}
)

// decodeBase64 reads the form's field, which may be broken into lines (RFC 2045).
func decodeBase64(raw string) ([]byte, error) {
	// Line ends are at most a twentieth of what tools write.
	if most := base64.StdEncoding.EncodedLen(responseLimits.bytes) * 21 / 20; len(raw) > most {
		return nil, refuse(StepEncoding, "the response is larger than %d bytes", responseLimits.bytes)
	}
	data, err := base64.StdEncoding.DecodeString(stripSpace(raw))
	if err != nil {
		return nil, refuse(StepEncoding, "the response is not base64")
	}
	if len(data) > responseLimits.bytes {
		return nil, refuse(StepEncoding, "the response is larger than %d bytes", responseLimits.bytes)
	}
	return data, nil
}

func stripSpace(text string) string {
	if !strings.ContainsAny(text, space) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(space, r) {
			return -1
		}
		return r
	}, text)
}

// parseResponse reads a response or a decrypted assertion. Both are refused for
// comments, instructions, document types and CDATA anywhere: no identity provider
// writes them, and each has made two readers of one document read different names
// (comments cut the NameID at CVE-2017-11427 and its sisters; a DOCTYPE brings entities).
func parseResponse(data []byte) (*etree.Element, error) {
	body := data
	if bytes.HasPrefix(body, []byte("<?xml ")) {
		end := bytes.Index(body, []byte("?>"))
		if end < 0 {
			return nil, refuse(StepParse, "the XML declaration has no end")
		}
		body = body[end:]
	}
	// In well-formed XML these can be nothing else: < is escaped in texts and values.
	if bytes.Contains(body, []byte("<!")) {
		return nil, refuse(StepParse, "it has a DOCTYPE, a comment or a CDATA section")
	}
	if bytes.Contains(body, []byte("<?")) {
		return nil, refuse(StepParse, "it has a processing instruction")
	}
	if err := scan(data, responseLimits, false); err != nil {
		return nil, refuse(StepParse, "%v", err)
	}
	root, err := tree(data)
	if err != nil {
		return nil, refuse(StepParse, "%v", err)
	}
	return root, nil
}

// tree builds the elements of a document that was scanned.
func tree(data []byte) (*etree.Element, error) {
	document := etree.NewDocument()
	document.ReadSettings.PreserveDuplicateAttrs = true
	if err := document.ReadFromBytes(data); err != nil {
		return nil, fmt.Errorf("it is not well-formed: %s", quote(err.Error()))
	}
	root := document.Root()
	if root == nil {
		return nil, errors.New("it has no element")
	}
	return root, nil
}
