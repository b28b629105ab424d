package credential_test

import (
	"fmt"
	"log"
	"os"
	"time"

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

// A namespace's bundle and filters decide about what a client presents.
func ExamplePresented_Verify() {
	bundle, err := os.ReadFile("testdata/openssl-old-ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	chain, err := os.ReadFile("testdata/openssl-old-leaf.pem")
	if err != nil {
		log.Fatal(err)
	}
	cas, err := credential.ParseClientCAs(bundle)
	if err != nil {
		log.Fatal(err)
	}
	certs, err := credential.ParseChain(chain)
	if err != nil {
		log.Fatal(err)
	}
	anchors := credential.NewAnchors(cas)            // once a bundle
	presented := credential.NewPresented(certs)      // once a connection
	filter := credential.Filter{CommonName: "work*"} // once a namespace
	for _, at := range []time.Time{time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)} {
		verified := presented.Verify(anchors, credential.CustomerCA, at)
		fmt.Println(len(verified.Chains), verified.Problem, filter.Match(presented))
	}
	// Output:
	// 1  true
	// 0 the client certificate expired at 2126-10-29T20:06:02Z; renew it true
}
