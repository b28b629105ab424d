package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"hash/crc32"
	"strings"
	"unsafe"

	"github.com/sallyport-iam/sallyport"
)

// An API key is sp_<account>_<id>_<secret><checksum>. The checksum is over all
// before it, so that a typing error is found without asking anybody, and so
// that scanners for leaked secrets can be sure of what they found.
const (
	apiKeyPrefix   = "sp_"
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idLength       = 16 // of a-z2-7
	secretLength   = 43 // of base62: 256 bits
	checksumLength = 6  // CRC-32 (IEEE) in base62
	minAccount     = 5
	maxAccount     = 16
	maxAPIKey      = len(apiKeyPrefix) + maxAccount + 1 + idLength + 1 + secretLength + checksumLength
)

// APIKey is what a well-formed API key says of itself. It proves nothing until
// the hash was compared.
type APIKey struct {
	Account sallyport.AccountID
	ID      string
}

// NewAPIKey makes the token of the account's key id (16 characters of a-z2-7)
// and what is to be kept of it: the SHA-256 of the whole token.
func NewAPIKey(account sallyport.AccountID, id string) (token Secret, hash [32]byte) {
	b := make([]byte, 0, maxAPIKey)
	b = append(b, apiKeyPrefix...)
	b = append(b, account...)
	b = append(b, '_')
	b = append(b, id...)
	b = append(b, '_')
	b = appendRandom(b, secretLength)
	b = appendChecksum(b, checksum(string(b)))
	return Secret(b), sha256.Sum256(b)
}

// ParseAPIKey checks the form and the checksum of a token and gives its hash.
// Its cost is bounded whatever it is given, and it does not allocate for a
// well-formed token. The error is Unauthenticated, says what is wrong with the
// token and holds nothing of it.
func ParseAPIKey(token string) (APIKey, [32]byte, error) {
	if !strings.HasPrefix(token, apiKeyPrefix) {
		return APIKey{}, [32]byte{}, sallyport.Unauthenticated.Errorf("this is not an API key: API keys begin with %s", apiKeyPrefix)
	}
	if len(token) > maxAPIKey {
		return APIKey{}, [32]byte{}, sallyport.Unauthenticated.Errorf("the API key is too long: check that nothing but the key was pasted")
	}
	account, rest, _ := strings.Cut(token[len(apiKeyPrefix):], "_")
	id, tail, _ := strings.Cut(rest, "_")
	if !isAccount(account) || !isID(id) || len(tail) != secretLength+checksumLength || !isBase62(tail) {
		return APIKey{}, [32]byte{}, sallyport.Unauthenticated.Errorf("the API key is malformed: check that the whole key was pasted, and nothing but it")
	}
	body := token[:len(token)-checksumLength]
	var sum [checksumLength]byte
	if string(appendChecksum(sum[:0], checksum(body))) != token[len(body):] {
		return APIKey{}, [32]byte{}, sallyport.Unauthenticated.Errorf("the API key is mistyped: its checksum does not match; copy it again")
	}
	var buf [maxAPIKey]byte
	return APIKey{sallyport.AccountID(account), id}, sha256.Sum256(buf[:copy(buf[:], token)]), nil
}

// appendRandom appends n characters of base62, each as likely as the others.
func appendRandom(b []byte, n int) []byte {
	const even = 256 - 256%len(base62) // bytes from here on would favour the first characters
	var random [64]byte
	for {
		rand.Read(random[:])
		for _, r := range random {
			if n == 0 {
				return b
			}
			if int(r) < even {
				b = append(b, base62[int(r)%len(base62)])
				n--
			}
		}
	}
}

// checksum is the CRC-32 of the string's bytes, which it reads in place.
func checksum(s string) uint32 {
	return crc32.ChecksumIEEE(unsafe.Slice(unsafe.StringData(s), len(s))) //nolint:gosec // read only; a copy would be on the heap
}

func appendChecksum(b []byte, sum uint32) []byte {
	var digits [checksumLength]byte
	for i := range digits {
		digits[len(digits)-1-i] = base62[sum%uint32(len(base62))]
		sum /= uint32(len(base62))
	}
	return append(b, digits[:]...)
}

// Classes of characters.
const (
	inAccount = 1 << iota
	inID
	inSecret
)

// classes says of each byte which classes it is in.
var classes = func() (of [256]byte) {
	for c := range len(of) {
		lower := c >= 'a' && c <= 'z'
		if lower || c >= '2' && c <= '9' {
			of[c] |= inAccount
		}
		if lower || c >= '2' && c <= '7' {
			of[c] |= inID
		}
		if strings.IndexByte(base62, byte(c)) >= 0 {
			of[c] |= inSecret
		}
	}
	return of
}()

// all reports whether all characters are in the class.
func all(s string, class byte) bool {
	for i := range len(s) {
		class &= classes[s[i]]
	}
	return class != 0
}

func isAccount(s string) bool {
	return s == string(sallyport.SystemAccount) || len(s) >= minAccount && len(s) <= maxAccount && all(s, inAccount)
}

func isID(s string) bool { return len(s) == idLength && all(s, inID) }

func isBase62(s string) bool { return all(s, inSecret) }
