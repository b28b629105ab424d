package samltest

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	"github.com/crewjam/saml/samlidp"
	"github.com/russellhaering/goxmldsig"
)

// Provider is a service provider by crewjam/saml alone, to compare with.
type Provider struct {
	EntityID, ACS    string
	Key              *rsa.PrivateKey
	Certificate      *x509.Certificate
	IdPMetadata      []byte
	AllowUnsolicited bool
}

// NameID is what crewjam's ParseXMLResponse makes of a response. A panic is an error.
func (p Provider) NameID(response []byte, requestID string) (name string, err error) {
	defer func() {
		if r := recover(); r != nil {
			name, err = "", fmt.Errorf("panic: %v", r)
		}
	}()
	sp, acs, err := p.serviceProvider()
	if err != nil {
		return "", err
	}
	assertion, err := sp.ParseXMLResponse(response, []string{requestID}, *acs)
	if err != nil {
		var invalid *saml.InvalidResponseError
		if errors.As(err, &invalid) {
			err = invalid.PrivateErr
		}
		return "", err
	}
	return assertion.Subject.NameID.Value, nil
}

func (p Provider) serviceProvider() (*saml.ServiceProvider, *url.URL, error) {
	acs, err := url.Parse(p.ACS)
	if err != nil {
		return nil, nil, err
	}
	var metadata saml.EntityDescriptor
	if err := xml.Unmarshal(p.IdPMetadata, &metadata); err != nil {
		return nil, nil, err
	}
	return &saml.ServiceProvider{
		EntityID: p.EntityID, AcsURL: *acs, Key: p.Key, Certificate: p.Certificate, IDPMetadata: &metadata, AllowIDPInitiated: p.AllowUnsolicited,
	}, acs, nil
}

// Live is crewjam's samlidp behind HTTP.
type Live struct {
	URL      string
	Metadata []byte
	client   *http.Client
}

// StartLive starts it with one user, alice of the password hunter2, and knowing the
// service provider of that metadata.
func StartLive(t *testing.T, idp IdP, spMetadata []byte) *Live {
	t.Helper()
	holder := &struct{ http.Handler }{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { holder.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := samlidp.New(samlidp.Options{
		URL: *base, Key: idp.Key, Certificate: idp.Certificate, Store: &samlidp.MemoryStore{}, Logger: silent{},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler.IDP.SignatureMethod = dsig.RSASHA256SignatureMethod // its own is SHA-1
	holder.Handler = handler
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &Live{URL: server.URL, client: &http.Client{Jar: jar}}
	l.put(t, "/services/sp", spMetadata)
	l.put(t, "/users/alice", []byte(`{"name": "alice", "password": "hunter2", "email": "alice@example.com", "groups": ["admins", "users"]}`))
	response, err := l.client.Get(server.URL + "/metadata")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if l.Metadata, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Live) put(t *testing.T, path string, body []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, l.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := l.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s", path, response.Status)
	}
}

// SignIn follows a request as a browser would, signs alice in and gives the form that is
// posted to the ACS.
func (l *Live) SignIn(t *testing.T, address string, form url.Values) url.Values {
	t.Helper()
	credentials := url.Values{"user": {"alice"}, "password": {"hunter2"}}
	// Its own form loses the request: signing in first is how it answers one.
	response, err := l.client.PostForm(l.URL+"/login", credentials)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return SignIn(t, l.client, address, form, credentials)
}

// SignIn follows forms and redirects until one has a SAMLResponse, filling in the
// credentials where a form has such a field.
func SignIn(t *testing.T, client *http.Client, address string, form, credentials url.Values) url.Values {
	t.Helper()
	for range 8 {
		var response *http.Response
		var err error
		if len(form) > 0 {
			response, err = client.PostForm(address, form)
		} else {
			response, err = client.Get(address)
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v\n%s", address, response.Status, err, body)
		}
		action, fields := pageForm(t, body)
		if fields.Has("SAMLResponse") {
			return fields
		}
		for name, values := range credentials {
			if fields.Has(name) {
				fields[name] = values
			}
		}
		next, err := response.Request.URL.Parse(action)
		if err != nil {
			t.Fatal(err)
		}
		address, form = next.String(), fields
	}
	t.Fatal("no response after eight pages")
	return nil
}

// pageForm reads the first form of a page that is well-formed enough.
func pageForm(t *testing.T, page []byte) (action string, fields url.Values) {
	t.Helper()
	d := etree.NewDocument()
	d.ReadSettings.Permissive = true
	d.ReadSettings.AutoClose = []string{"meta", "link", "input", "img", "br", "hr"}
	d.ReadSettings.Entity = map[string]string{"nbsp": " ", "copy": "©", "raquo": "»"}
	begin, end := bytes.Index(page, []byte("<form")), bytes.Index(page, []byte("</form>"))
	if begin < 0 || end < begin {
		t.Fatalf("no form in\n%s", page)
	}
	text := strings.NewReplacer("async", "", "autofocus", "", "disabled", "", "checked", "").Replace(string(page[begin : end+len("</form>")]))
	if err := d.ReadFromString(text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	fields = url.Values{}
	for _, tag := range []string{"input", "button"} {
		for _, input := range d.FindElements("//" + tag) {
			if name := input.SelectAttrValue("name", ""); name != "" {
				fields.Set(name, input.SelectAttrValue("value", ""))
			}
		}
	}
	return d.Root().SelectAttrValue("action", ""), fields
}

// silent is a logger for what is expected to fail.
type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Print(...any)          {}
func (silent) Println(...any)        {}
func (silent) Fatal(v ...any)        { panic(fmt.Sprint(v...)) }
func (silent) Fatalf(f string, v ...any) {
	panic(fmt.Sprintf(f, v...))
}
func (silent) Fatalln(v ...any)          { panic(fmt.Sprint(v...)) }
func (silent) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (silent) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (silent) Panicln(v ...any)          { panic(fmt.Sprint(v...)) }
