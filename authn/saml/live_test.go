package saml_test

import (
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/authn/saml"
	"github.com/sallyport-iam/sallyport/authn/saml/samltest"
)

// TestSAMLIdP signs in at crewjam's samlidp, which signs response and assertion and
// encrypts by CBC, with our metadata and by both bindings.
func TestSAMLIdP(t *testing.T) {
	w := made()
	own, err := w.c.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	live := samltest.StartLive(t, w.idp, own)
	c := w.c
	if c.IdP, _, err = saml.ParseMetadata(live.Metadata, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, post := range []bool{false, true} {
		request, err := saml.NewRequest(c, saml.Asking{RelayState: "state-1", Post: post}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		form := live.SignIn(t, request.URL, request.Form)
		if form.Get("RelayState") != "state-1" {
			t.Errorf("the relay state came back as %q", form.Get("RelayState"))
		}
		expect := saml.Expect{RequestID: request.ID, MaxAge: time.Minute, Use: once}
		a, err := saml.Validate(t.Context(), c, form.Get("SAMLResponse"), expect, time.Now())
		// Its NameIDs are transient.
		checkRefusal(t, a, err, saml.StepSubject, "transient")
		named := c
		named.SubjectAttribute = "urn:oid:1.3.6.1.4.1.5923.1.1.1.6" // eduPersonPrincipalName
		a, err = saml.Validate(t.Context(), named, form.Get("SAMLResponse"), expect, time.Now())
		if err != nil || a.Subject != "alice@example.com" || !a.Encrypted || len(a.Signed) != 2 {
			t.Fatalf("got %+v, %s", a, detail(err))
		}
		groups, stated := a.Attributes.Groups("urn:oid:1.3.6.1.4.1.5923.1.1.1.1")
		if diff := cmp.Diff([]string{"admins", "users"}, groups); diff != "" || !stated {
			t.Error(diff)
		}
	}
}

// TestSAMLIdPWrapping: the permutations of what samlidp signs, to a service provider
// that it does not encrypt for.
func TestSAMLIdPWrapping(t *testing.T) {
	w := made()
	c := w.c
	c.Keys = nil
	own, err := c.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	live := samltest.StartLive(t, w.idp, own)
	c.Keys, c.SubjectAttribute = w.c.Keys, "urn:oid:1.3.6.1.4.1.5923.1.1.1.6"
	if c.IdP, _, err = saml.ParseMetadata(live.Metadata, time.Now()); err != nil {
		t.Fatal(err)
	}
	request, err := saml.NewRequest(c, saml.Asking{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	form := live.SignIn(t, request.URL, request.Form)
	data, err := base64.StdEncoding.DecodeString(form.Get("SAMLResponse"))
	if err != nil {
		t.Fatal(err)
	}
	wrapLive(t, c, request.ID, data)
	root := parse(t, data)
	root.RemoveChild(root.SelectElement("Signature"))
	wrapLive(t, c, request.ID, write(t, root))
}

// wrapLive checks that the response is alice's and none of its permutations is anybody's.
func wrapLive(t *testing.T, c saml.Connection, requestID string, data []byte) {
	t.Helper()
	expect := saml.Expect{RequestID: requestID, Use: once}
	if _, err := saml.Validate(t.Context(), c, base64.StdEncoding.EncodeToString(data), expect, time.Now()); err != nil {
		t.Fatal(detail(err))
	}
	for name, wrapped := range wrap(t, data) {
		if !strings.Contains(string(wrapped), victim) {
			t.Errorf("%s is not about the victim", name)
		}
		a, err := saml.Validate(t.Context(), c, base64.StdEncoding.EncodeToString(wrapped), expect, time.Now())
		checkRefusal(t, a, err, "", "")
	}
}

// php is SimpleSAMLphp's and its files' folder.
func php(t *testing.T) (program, root string) {
	t.Helper()
	folder, err := filepath.Abs("../../.cache/simplesamlphp")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "../../scripts/simplesamlphp.sh").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program = filepath.Join(folder, "php")
	if _, err := os.Stat(program); err != nil {
		t.Skip("SKIPPED: SimpleSAMLphp cannot be had on this machine, so that no real identity provider was tried")
	}
	return program, filepath.Join(folder, "root")
}

// TestSimpleSAMLphp signs in at a real provider, in the forms of its answer.
func TestSimpleSAMLphp(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a web server")
	}
	w := made()
	base := startPHP(t, w)
	metadata := get(t, base+"/saml2/idp/metadata.php?output=xml")
	m, warnings, err := saml.ParseMetadata(metadata, time.Now())
	if err != nil || len(warnings) != 1 || warnings[0].Kind != saml.NotEncrypted {
		t.Fatalf("got %v and the warnings %v", err, warnings)
	}
	for _, mode := range modes {
		for _, fresh := range []bool{false, true} {
			t.Run(fmt.Sprint(mode.name, " ", fresh), func(t *testing.T) {
				c := w.c
				c.EntityID, c.ACS, c.IdP = entityID+"/"+mode.name, acs+"/"+mode.name, m
				request, err := saml.NewRequest(c, saml.Asking{RelayState: "state-1", Fresh: fresh}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				jar, err := cookiejar.New(nil)
				if err != nil {
					t.Fatal(err)
				}
				form := samltest.SignIn(t, &http.Client{Jar: jar}, request.URL, request.Form, url.Values{"username": {"alice"}, "password": {"hunter2"}})
				expect := saml.Expect{RequestID: request.ID, MaxAge: time.Minute, Use: once}
				a, err := saml.Validate(t.Context(), c, form.Get("SAMLResponse"), expect, time.Now())
				if mode.refused != "" {
					checkRefusal(t, a, err, "", mode.refused)
					return
				}
				if err != nil {
					t.Fatal(detail(err))
				}
				email, _ := a.Attributes.One("mail")
				groups, _ := a.Attributes.Groups("groups")
				got := []any{a.Subject, a.NameID.Format, email, groups, a.Signed, a.Encrypted, form.Get("RelayState")}
				want := []any{"alice-0001", saml.FormatPersistent, alice, []string{"admins", "users"}, mode.signed, mode.encrypted, "state-1"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				if !mode.encrypted {
					data, err := base64.StdEncoding.DecodeString(form.Get("SAMLResponse"))
					if err != nil {
						t.Fatal(err)
					}
					wrapLive(t, c, request.ID, data)
				}
				other := c
				other.EntityID = entityID
				_, err = saml.Validate(t.Context(), other, form.Get("SAMLResponse"), expect, time.Now())
				checkRefusal(t, saml.Assertion{}, err, saml.StepConditions, "not for")
			})
		}
	}
}

// modes are the forms of its answer. To a public key it encrypts by AES-128-CBC alone.
var modes = []struct {
	name                           string
	response, assertion, encrypted bool
	signed                         []string
	refused                        string
}{
	{"response", true, false, false, []string{"Response"}, ""},
	{"assertion", false, true, false, []string{"Assertion"}, ""},
	{"both", true, true, false, []string{"Response", "Assertion"}, ""},
	{"encrypted", true, true, true, []string{"Response", "Assertion"}, ""},
	{"cover", true, false, true, []string{"Response"}, ""},
	{"cbc", false, true, true, nil, "CBC"},
}

func get(t *testing.T, address string) []byte {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s\n%s", address, response.Status, body)
	}
	return body
}

// startPHP writes a configuration of SimpleSAMLphp with one user and one service
// provider for each mode, and gives its address.
func startPHP(t *testing.T, w world) string {
	t.Helper()
	program, root := php(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	folder := t.TempDir()
	for _, name := range []string{"config", "metadata", "cert", "log", "data", "temp"} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	key, err := (saml.Key{Private: w.idp.Key.(*rsa.PrivateKey), Certificate: w.idp.Certificate}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	private, certificate, _ := strings.Cut(string(key), "-----BEGIN CERTIFICATE-----")
	share := filepath.Join(root, "usr/share/simplesamlphp")
	config := fmt.Sprintf(phpConfig, "http://"+address+"/", folder)
	for name, text := range map[string]string{
		"cert/idp.pem": private, "cert/idp.crt": "-----BEGIN CERTIFICATE-----" + certificate,
		"config/config.php": config, "config/authsources.php": phpSources,
		"metadata/saml20-idp-hosted.php": phpHosted, "metadata/saml20-sp-remote.php": phpServices(w),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := exec.CommandContext(t.Context(), program, "-d", "session.save_path="+folder+"/temp", "-S", address, "-t", filepath.Join(share, "www"))
	server.Env = append(os.Environ(), "SIMPLESAMLPHP_CONFIG_DIR="+folder+"/config")
	log := &strings.Builder{}
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Log(log)
		}
	})
	for range 100 {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
			return "http://" + address
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("PHP does not listen")
	return ""
}

const phpConfig = `<?php
$config = [
  'baseurlpath' => '%[1]s', 'certdir' => '%[2]s/cert/', 'loggingdir' => '%[2]s/log/', 'datadir' => '%[2]s/data/', 'tempdir' => '%[2]s/temp',
  'metadatadir' => '%[2]s/metadata', 'secretsalt' => 'qpzmtvwxrs', 'auth.adminpassword' => 'not-used-at-all', 'technicalcontact_email' => 'x@example.org',
  'timezone' => 'UTC', 'logging.handler' => 'errorlog', 'logging.level' => 4, 'enable.saml20-idp' => true, 'store.type' => 'phpsession',
  'session.cookie.secure' => false, 'session.cookie.samesite' => 'Lax', 'session.phpsession.samesite' => 'Lax', 'session.phpsession.cookiename' => 'SimpleSAML',
  'session.phpsession.savepath' => '%[2]s/temp', 'language.default' => 'en', 'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
  'metadata.sources' => [['type' => 'flatfile', 'directory' => '%[2]s/metadata']], 'authproc.idp' => [], 'admin.checkforupdates' => false,
];
`

const phpSources = `<?php
$config = ['example' => ['exampleauth:UserPass',
  'alice:hunter2' => ['uid' => ['alice-0001'], 'mail' => ['alice@example.com'], 'groups' => ['admins', 'users']]]];
`

const phpHosted = `<?php
$metadata['https://simplesaml.example.com'] = ['host' => '__DEFAULT__', 'privatekey' => 'idp.pem', 'certificate' => 'idp.crt', 'auth' => 'example',
  'signature.algorithm' => 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256', 'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
  'validate.authnrequest' => true,
  'authproc' => [3 => ['class' => 'saml:AttributeNameID', 'attribute' => 'uid', 'Format' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent']]];
`

// phpServices: each checks our requests' signatures.
func phpServices(w world) string {
	encoded := base64.StdEncoding.EncodeToString(w.c.Keys[0].Certificate.Raw)
	text := "<?php\n"
	for _, mode := range modes {
		text += fmt.Sprintf(`$metadata['%s/%s'] = ['AssertionConsumerService' => '%s/%s', 'certData' => '%s', 'saml20.sign.response' => %v, 'saml20.sign.assertion' => %v,
  'assertion.encryption' => %v, 'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent', 'validate.authnrequest' => true];`+"\n",
			entityID, mode.name, acs, mode.name, encoded, mode.response, mode.assertion, mode.encrypted)
	}
	return text
}
