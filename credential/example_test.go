package credential_test

import (
	"fmt"

	"github.com/sallyport-iam/sallyport/credential"
)

// A server reads the key out of the header and looks up what it claims to be.
// The hash, compared with the one that was kept, proves it.
func ExampleParseAPIKey() {
	token, ok := credential.Bearer("Bearer sp_f45a2_abcdefghijklmn27_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg39t15Q")
	if !ok {
		return
	}
	key, hash, err := credential.ParseAPIKey(token)
	fmt.Println(key.Account, key.ID, len(hash), err)

	_, _, err = credential.ParseAPIKey("sp_f45a2_abcdefghijklmn27_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg39t15q")
	fmt.Println(err)
	// Output:
	// f45a2 abcdefghijklmn27 32 <nil>
	// the API key is mistyped: its checksum does not match; copy it again
}
