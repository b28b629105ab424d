package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/netip"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/sallyport-iam/sallyport/credential"
)

// TLSMode says how the connection to a mail server is protected.
type TLSMode string

const (
	StartTLS    TLSMode = "starttls" // required: a server without it is refused (port 587)
	ImplicitTLS TLSMode = "implicit" // TLS from the first byte (port 465)
	NoTLS       TLSMode = "none"     // to a relay on the same machine only, without a password
)

// SMTPConfig says how mails are handed to a mail server.
type SMTPConfig struct {
	Address  string  // host:port; required
	TLS      TLSMode // empty: StartTLS
	Username string  // empty: without authentication
	Password credential.Secret
	RootCAs  *x509.CertPool // who may vouch for the server; nil: the machine's
	Timeout  time.Duration  // of connecting, and of sending; zero: 20 s, at most 25 s
}

// SMTP hands mails to a mail server, one connection a mail. It is safe for
// concurrent use.
type SMTP struct {
	config SMTPConfig
	host   string
	port   int
}

const maxTimeout = 25 * time.Second // twice this is less than an attempt

// NewSMTP checks the configuration; it does not connect.
func NewSMTP(c SMTPConfig) (*SMTP, error) {
	host, port, err := net.SplitHostPort(c.Address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || host == "" || number == 0 {
		return nil, fmt.Errorf("the mail server's address %q is not a host and port such as smtp.example.com:587", c.Address)
	}
	if c.TLS == "" {
		c.TLS = StartTLS
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	switch {
	case c.TLS != StartTLS && c.TLS != ImplicitTLS && c.TLS != NoTLS:
		return nil, fmt.Errorf("the mail server's TLS is starttls, implicit or none, not %q", c.TLS)
	case c.TLS == NoTLS && !isLoopback(host):
		return nil, errors.New("without TLS only a mail server on this machine's loopback address is used; choose starttls or implicit")
	case c.TLS == NoTLS && c.Username != "":
		return nil, errors.New("a password is not sent without TLS; choose starttls or implicit")
	case c.Username == "" && c.Password != "":
		return nil, errors.New("the mail server's password needs a user name")
	case c.Timeout < 0 || c.Timeout > maxTimeout:
		return nil, fmt.Errorf("the mail server's timeout is at most %s", maxTimeout)
	}
	return &SMTP{config: c, host: host, port: int(number)}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

// Send delivers the message to the server. A server's text is not in its
// errors, since servers repeat addresses in it: only the step, and the codes of
// RFC 5321 and RFC 3463.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	message := newMsg(m)
	var conn net.Conn
	stop := func() bool { return true }
	defer func() {
		stop()
		if conn != nil {
			conn.Close() // the library leaves it open when greeting, TLS or authentication fail
		}
	}()
	client, err := s.client(func(dialing context.Context, network, address string) (net.Conn, error) {
		var err error
		if conn, err = s.dial(dialing, network, address); err != nil {
			return nil, err
		}
		// From here on the library does not look at the context.
		opened := conn
		stop = context.AfterFunc(ctx, func() { opened.Close() })
		return conn, nil
	})
	if err != nil {
		return fmt.Errorf("setting the mail client up: %w", err)
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("connecting to the mail server: %w", ctx.Err())
	}
	if err != nil {
		return connecting(err)
	}
	err = client.SendWithSMTPClient(session, message)
	if message.IsDelivered() {
		_ = session.Quit() // the server has taken the message: nothing after that makes it undone
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("sending a mail: %w", ctx.Err())
	}
	return refusal(err)
}

func (s *SMTP) client(dial mail.DialContextFunc) (*mail.Client, error) {
	options := []mail.Option{mail.WithPort(s.port), mail.WithTimeout(s.config.Timeout), mail.WithDialContextFunc(dial),
		mail.WithTLSConfig(s.tls()), mail.WithoutSMTPUTF8(), mail.WithoutNoop()}
	switch s.config.TLS {
	case StartTLS:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	case ImplicitTLS:
		options = append(options, mail.WithSSL())
	case NoTLS:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if s.config.Username != "" {
		options = append(options, mail.WithUsername(s.config.Username), mail.WithPassword(s.config.Password.Reveal()),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	return mail.NewClient(s.host, options...)
}

func (s *SMTP) tls() *tls.Config {
	return &tls.Config{ServerName: s.host, RootCAs: s.config.RootCAs, MinVersion: tls.VersionTLS12}
}

func (s *SMTP) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.config.TLS == ImplicitTLS {
		d := tls.Dialer{Config: s.tls()}
		return d.DialContext(ctx, network, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// newMsg builds the message. Every value was checked or is encoded by the
// library; none can end its line of the header.
func newMsg(m Message) *mail.Msg {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithCharset(mail.CharsetUTF8), mail.WithEncoding(mail.EncodingQP))
	msg.FromMailAddress(&netmail.Address{Name: line(m.From.Name, maxName), Address: m.From.Email})
	msg.ToMailAddress(&netmail.Address{Name: line(m.To.Name, maxName), Address: m.To.Email})
	msg.Subject(line(m.Subject, maxSubject))
	msg.SetMessageIDWithValue(m.ID)
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no automatic answers, please
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	return msg
}
