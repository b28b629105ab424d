package mail_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// received is a mail as a server got it.
type received struct {
	from string
	to   []string
	data string
}

// smtpServer is a real mail server on loopback that keeps what it gets.
type smtpServer struct {
	address string
	roots   *x509.CertPool // for its certificate

	mu       sync.Mutex
	mails    []received
	sessions int
	// What it does instead of taking a mail; nil: nothing.
	onMail, onRcpt, onData func() error
	password               string // asked for if it is not empty; the user is "sallyport"
}

func (s *smtpServer) got() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}

func (s *smtpServer) refuse(set func(*smtpServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(s)
}

// startSMTP starts a server: plain, with STARTTLS, or with TLS from the start.
func startSMTP(t testing.TB, offerTLS, implicit bool) *smtpServer {
	t.Helper()
	s := &smtpServer{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sessions++
		return &session{s: s, open: s.password == ""}, nil
	}))
	server.Domain, server.ReadTimeout, server.WriteTimeout = "mail.example.com", 10*time.Second, 10*time.Second
	server.ErrorLog = discard{}
	if offerTLS || implicit {
		certificate, roots := serverCertificate(t)
		s.roots = roots
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		if implicit {
			l = tls.NewListener(l, config)
		} else {
			server.TLSConfig = config
		}
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

func serverCertificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

type session struct {
	s    *smtpServer
	open bool
	mail received
}

func (c *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if username != "sallyport" || password != c.s.password {
			return smtp.ErrAuthFailed
		}
		c.open = true
		return nil
	}), nil
}

func (c *session) hook(which func(*smtpServer) func() error) error {
	c.s.mu.Lock()
	hook := which(c.s)
	c.s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	if !c.open {
		return smtp.ErrAuthRequired
	}
	c.mail = received{from: from}
	return c.hook(func(s *smtpServer) func() error { return s.onMail })
}

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.mail.to = append(c.mail.to, to)
	return c.hook(func(s *smtpServer) func() error { return s.onRcpt })
}

func (c *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.mail.data = string(data)
	if err := c.hook(func(s *smtpServer) func() error { return s.onData }); err != nil {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.mails = append(c.s.mails, c.mail)
	return nil
}

func (*session) Reset()        {}
func (*session) Logout() error { return nil }
