package credential_test

import (
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

func TestSPIFFEID(t *testing.T) {
	const id = "spiffe://example.org/account/f45a2/service-account/sa_abcdefghijklmnop"
	if got := credential.SPIFFEID("example.org", "f45a2", "sa_abcdefghijklmnop"); got != id {
		t.Errorf("got %s", got)
	}
	domain, account, serviceAccount, ok := credential.ParseSPIFFEID(id)
	if !ok || domain != "example.org" || account != "f45a2" || serviceAccount != "sa_abcdefghijklmnop" {
		t.Errorf("%q %q %q %v", domain, account, serviceAccount, ok)
	}
	if _, _, serviceAccount, ok := credential.ParseSPIFFEID("spiffe://e/account/f45a2/service-account/A.b-C_9"); !ok || serviceAccount != "A.b-C_9" {
		t.Errorf("%q %v", serviceAccount, ok)
	}
	for _, bad := range []string{
		"", "spiffe://", strings.ToUpper(id), "SPIFFE" + id[6:], id + "/", id + "/x", id + "?a", id + "#a", id + "%41", " " + id, id + "\n",
		"https" + id[6:],
		"spiffe:///account/f45a2/service-account/sa_a",
		"spiffe://user@example.org/account/f45a2/service-account/sa_a",
		"spiffe://example.org:443/account/f45a2/service-account/sa_a",
		"spiffe://Example.org/account/f45a2/service-account/sa_a",
		"spiffe://example.org//account/f45a2/service-account/sa_a",
		"spiffe://example.org/x/account/f45a2/service-account/sa_a",
		"spiffe://example.org/account/F45A2/service-account/sa_a",
		"spiffe://example.org/account/f45a2/x/service-account/sa_a",
		"spiffe://example.org/account/f45a2/service-account/",
		"spiffe://example.org/account/f45a2/service-account/..",
		"spiffe://example.org/account/f45a2/service-account/sa_a/service-account/sa_b",
		"spiffe://example.org/account//service-account/sa_a",
		"spiffe://" + strings.Repeat("a", 256) + "/account/f45a2/service-account/sa_a",
		"spiffe://example.org/account/f45a2/service-account/" + strings.Repeat("a", 65),
	} {
		if _, account, _, ok := credential.ParseSPIFFEID(bad); ok || account != sallyport.AccountID("") {
			t.Errorf("%q is taken", bad)
		}
	}
}
