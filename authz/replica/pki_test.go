package replica_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

// authority is a CA of the tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// chain is what a client has.
type chain struct {
	certs []*x509.Certificate // leaf first
	key   *ecdsa.PrivateKey
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

// newCA makes a CA under another one, or a root of nil.
func newCA(t testing.TB, name string, above *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{Organization: []string{name}}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature}
	if change != nil {
		change(template)
	}
	a := &authority{t: t, key: key}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	a.cert = sign(t, template, parent, &key.PublicKey, signer)
	return a
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf makes a client certificate as tcld does, with neither key usages.
func (a *authority) leaf(name string, change func(*x509.Certificate)) *chain {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(a.t), Subject: pkix.Name{CommonName: name, Organization: []string{"Leaves"}},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(100 * time.Hour), DNSNames: []string{name + ".example.com"}}
	if change != nil {
		change(template)
	}
	return &chain{[]*x509.Certificate{sign(a.t, template, a.cert, &key.PublicKey, a.key)}, key}
}

// managed makes a certificate with the profile of managed ones.
func (a *authority) managed(account sallyport.AccountID, serviceAccount string, change func(*x509.Certificate)) *chain {
	a.t.Helper()
	c := a.leaf(serviceAccount, func(c *x509.Certificate) {
		uri, err := url.Parse(credential.SPIFFEID("example.org", account, serviceAccount))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Subject, c.DNSNames, c.URIs = pkix.Name{CommonName: serviceAccount, Organization: []string{string(account)}}, nil, []*url.URL{uri}
		c.KeyUsage, c.ExtKeyUsage, c.BasicConstraintsValid = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, true
		if change != nil {
			change(c)
		}
	})
	c.certs = append(c.certs, a.cert)
	return c
}

// certificate is what a server or client presents.
func (c *chain) certificate() tls.Certificate {
	t := tls.Certificate{PrivateKey: c.key}
	for _, cert := range c.certs {
		t.Certificate = append(t.Certificate, cert.Raw)
	}
	return t
}

// on is the credential of a call over a connection to the server name.
func (c *chain) on(r *replica.Replica, serverName string) replica.Credential {
	return r.Credential("", &tls.ConnectionState{PeerCertificates: c.certs, ServerName: serverName}, netip.Addr{})
}

func (c *chain) fingerprint() string { return credential.Fingerprint(c.certs[0]) }

// mtls makes a namespace that takes certificates and API keys.
func (p *policy) mtls(id, name string) {
	put(p, object.KindNamespace, id, object.Namespace{Name: name, Project: "p_1", Cell: "c1", RetentionDays: 3, Auth: object.NamespaceAuth{APIKey: true, MTLS: true}})
}

// trust gives a namespace its client CAs.
func (p *policy) trust(id string, filters []object.CertificateFilter, cas ...*authority) {
	v := object.ClientCAs{Filters: filters}
	for _, ca := range cas {
		v.Certificates = append(v.Certificates, ca.cert.Raw)
	}
	put(p, object.KindClientCAs, id, v)
}

// issuer makes a CA one of the account's own.
func (p *policy) issuer(ca *authority) {
	put(p, object.KindIssuer, credential.IssuerID(ca.cert), object.Issuer{Certificate: ca.cert.Raw, TrustDomain: "example.org"})
}

func (p *policy) revoke(id string) { put(p, object.KindRevocation, id, object.Revocation{}) }

func (p *policy) remove(kind object.Kind, id string) { delete(p.objects, string(kind)+" "+id) }
