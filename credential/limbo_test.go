package credential_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

// Why a case of x509-limbo does not bind us.
const (
	serverName   = "it is the name of the server looked for that does not match; clients are not looked for by name"
	serverSAN    = "a rule for names of web servers; client certificates carry any text, tcld's the customer's name, and filters compare it as text"
	webProfile   = "a profile of the web's CAs (CA/Browser Forum) beyond RFC 5280; a namespace's CAs are the customer's"
	crlFeature   = "a CRL is input to the case; revocation is pushed to the authorizer and checked by the caller of Verify"
	depthFeature = "the relying party sets the case's largest depth; here it is fixed for all at 10 certificates"
	issuerDuty   = "a duty of CAs when they issue, which path validation (RFC 5280 §6.1) does not use; `openssl x509 -req` and old openssl.cnf make such certificates, and Temporal Cloud takes them"
	aCA          = "the leaf is a CA itself; Temporal Cloud and we ask CA:false of a client"
	twice        = "a self-issued CA has its subject twice in the chain; Temporal Cloud and we ask that each certificate has its own"
	conflict     = "conflicts with its twin webpki::nc::permitted-dns-match-noncritical, which must pass; the constraint is enforced in both"
	stricter     = "a leading period narrows the constraint to subdomains, as OpenSSL and crypto/x509 read it; it never widens it"
)

// waived are the cases in which Verify rightly gives another result.
var waived = map[string]string{
	"crl::crlnumber-critical":                                   crlFeature,
	"crl::crlnumber-missing":                                    crlFeature,
	"crl::issuer-missing-crlsign":                               crlFeature,
	"crl::revoked-certificate-with-crl":                         crlFeature,
	"pathlen::max-chain-depth-0-exhausted":                      depthFeature,
	"pathlen::max-chain-depth-1-exhausted":                      depthFeature,
	"pathlen::max-chain-depth-1-self-issued":                    twice,
	"pathlen::self-issued-certs-pathlen":                        twice,
	"pathlen::validation-ignores-pathlen-in-leaf":               aCA,
	"rfc5280::aki::cross-signed-root-missing-aki":               issuerDuty,
	"rfc5280::aki::intermediate-missing-aki":                    issuerDuty,
	"rfc5280::aki::leaf-missing-aki":                            issuerDuty,
	"rfc5280::ca-as-leaf":                                       aCA,
	"rfc5280::nc::invalid-dnsname-leading-period":               stricter,
	"rfc5280::nc::permitted-dns-match-noncritical":              conflict,
	"rfc5280::nc::permitted-self-issued":                        twice,
	"rfc5280::root-non-critical-basic-constraints":              issuerDuty,
	"rfc5280::san::ip-in-dns":                                   serverSAN,
	"rfc5280::san::underscore-dns":                              serverSAN,
	"rfc5280::ski::intermediate-missing-ski":                    issuerDuty,
	"rfc5280::ski::root-missing-ski":                            issuerDuty,
	"webpki::aki::root-with-aki-all-fields":                     webProfile,
	"webpki::aki::root-with-aki-authoritycertissuer":            webProfile,
	"webpki::aki::root-with-aki-authoritycertserialnumber":      webProfile,
	"webpki::aki::root-with-aki-missing-keyidentifier":          webProfile,
	"webpki::aki::root-with-aki-ski-mismatch":                   webProfile,
	"webpki::cn::case-mismatch":                                 serverName,
	"webpki::cn::ipv4-hex-mismatch":                             serverName,
	"webpki::cn::ipv4-leading-zeros-mismatch":                   serverName,
	"webpki::cn::ipv6-non-rfc5952-mismatch":                     serverName,
	"webpki::cn::ipv6-uncompressed-mismatch":                    serverName,
	"webpki::cn::ipv6-uppercase-mismatch":                       serverName,
	"webpki::cn::not-in-san":                                    serverName,
	"webpki::cn::punycode-not-in-san":                           serverName,
	"webpki::cn::utf8-vs-punycode-mismatch":                     serverName,
	"webpki::eku::ee-anyeku":                                    webProfile,
	"webpki::eku::ee-critical-eku":                              webProfile,
	"webpki::eku::ee-without-eku":                               webProfile,
	"webpki::eku::root-has-eku":                                 webProfile,
	"webpki::san::mismatch-apex-subdomain-san":                  serverName,
	"webpki::san::mismatch-domain-san":                          serverName,
	"webpki::san::mismatch-subdomain-apex-san":                  serverName,
	"webpki::san::mismatch-subdomain-san":                       serverName,
	"webpki::san::no-san":                                       serverName,
	"webpki::san::public-suffix-multi-label-wildcard-san":       serverSAN,
	"webpki::san::public-suffix-private-namespace-wildcard-san": serverSAN,
	"webpki::san::public-suffix-wildcard-san":                   serverSAN,
	"webpki::san::san-critical-with-nonempty-subject":           webProfile,
	"webpki::san::san-wildcard-only":                            serverSAN,
	"webpki::san::san-wildcard-only-tld":                        serverSAN,
	"webpki::san::wildcard-embedded-leftmost-san":               serverSAN,
	"webpki::san::wildcard-embedded-ulabel-san":                 serverSAN,
	"webpki::san::wildcard-match-across-labels-san":             serverName,
	"webpki::san::wildcard-not-in-leftmost-san":                 serverSAN,
}

type limboCase struct {
	ID            string     `json:"id"`
	Kind          string     `json:"validation_kind"` // CLIENT or SERVER: the extended key usage asked for
	Trusted       []string   `json:"trusted_certs"`
	Intermediates []string   `json:"untrusted_intermediates"`
	Peer          string     `json:"peer_certificate"`
	Time          *time.Time `json:"validation_time"`
	Expected      string     `json:"expected_result"`
}

// TestLimbo is the gate: every case of x509-limbo gives what it must, or is waived.
func TestLimbo(t *testing.T) {
	cases := limbo(t)
	seen := make(map[string]bool, len(cases))
	for _, c := range cases {
		seen[c.ID] = true
		problem := c.run()
		agrees := (problem == "") == (c.Expected == "SUCCESS")
		if reason := waived[c.ID]; reason == "" && !agrees {
			t.Errorf("%s: must give %s, but the problem is %q", c.ID, c.Expected, problem)
		} else if reason != "" && agrees {
			t.Errorf("%s is waived (%s), but gives %s as it must: take it off the list", c.ID, reason, c.Expected)
		}
	}
	for id := range waived {
		if !seen[id] {
			t.Errorf("%s is waived, but there is no such case", id)
		}
	}
	t.Logf("%d cases, %d of them waived", len(cases), len(waived))
}

// run gives the problem. A certificate that crypto/x509 cannot read reaches no
// server: one as leaf ends the handshake, one as anchor was never uploaded.
func (c limboCase) run() string {
	peer := parseOne(c.Peer)
	if peer == nil {
		return "unreadable"
	}
	chain := []*x509.Certificate{peer}
	for _, text := range c.Intermediates {
		if cert := parseOne(text); cert != nil {
			chain = append(chain, cert)
		}
	}
	var cas []*x509.Certificate
	for _, text := range c.Trusted {
		if cert := parseOne(text); cert != nil {
			cas = append(cas, cert)
		}
	}
	at := now
	if c.Time != nil {
		at = *c.Time
	}
	presented, anchors := credential.NewPresented(chain), credential.NewAnchors(cas)
	if c.Kind == "SERVER" {
		presented = credential.NewPresentedServer(chain)
	}
	return presented.Verify(anchors, credential.CustomerCA, at).Problem
}

func parseOne(text string) *x509.Certificate {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// limbo reads the cases, which are not part of the repository.
func limbo(t testing.TB) []limboCase {
	t.Helper()
	directory := os.Getenv("SALLYPORT_TESTDATA")
	required := directory != "" || os.Getenv("CI") != ""
	if directory == "" {
		directory = filepath.Join("..", "..", "shared", "testdata")
	}
	data, err := os.ReadFile(filepath.Join(directory, "x509", "limbo.json"))
	if err != nil && !required {
		t.Skipf("x509-limbo is not here (set SALLYPORT_TESTDATA to where x509/limbo.json is): %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []limboCase `json:"testcases"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 200 {
		t.Fatalf("x509-limbo has %d cases; there must be about 208", len(file.Cases))
	}
	return file.Cases
}
