package saml

// Scan reads a document as the first step of a response does.
func Scan(data []byte) error {
	_, err := parseResponse(data)
	return err
}
