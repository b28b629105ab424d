package mail_test

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/internal/mail"
)

var message = mail.Message{ID: "1.2@example.com", From: mail.Address{Name: "Example Cloud", Email: "cloud@example.com"},
	To: mail.Address{Email: "ann@example.org"}, Subject: "Grüße", Text: "Hello,\n\n.a line with a dot\n", HTML: "<p>Hello</p>"}

func newSMTP(t testing.TB, c mail.SMTPConfig) *mail.SMTP {
	t.Helper()
	s, err := mail.NewSMTP(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSend(t *testing.T) {
	t.Parallel()
	starttls, implicit, plain := startSMTP(t, true, false), startSMTP(t, false, true), startSMTP(t, false, false)
	locked, lockedImplicit := startSMTP(t, true, false), startSMTP(t, false, true)
	for _, s := range []*smtpServer{locked, lockedImplicit} {
		s.refuse(func(s *smtpServer) { s.password = "secret" })
	}
	for _, test := range []struct {
		name   string
		server *smtpServer
		config mail.SMTPConfig
	}{
		{"starttls", starttls, mail.SMTPConfig{}},
		{"implicit TLS", implicit, mail.SMTPConfig{TLS: mail.ImplicitTLS}},
		{"relay on loopback", plain, mail.SMTPConfig{TLS: mail.NoTLS}},
		{"password over starttls", locked, mail.SMTPConfig{Username: "sallyport", Password: "secret"}},
		{"password over implicit TLS", lockedImplicit, mail.SMTPConfig{TLS: mail.ImplicitTLS, Username: "sallyport", Password: "secret"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.config.Address, test.config.RootCAs = test.server.address, test.server.roots
			if err := newSMTP(t, test.config).Send(t.Context(), message); err != nil {
				t.Fatal(err)
			}
			mails := test.server.got()
			if len(mails) != 1 || mails[0].from != "cloud@example.com" || !cmp.Equal(mails[0].to, []string{"ann@example.org"}) {
				t.Fatalf("the server got %+v", mails)
			}
			checkMessage(t, mails[0].data)
		})
	}
}

func checkMessage(t *testing.T, data string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != message.Subject {
		t.Errorf("the subject is %q (%v)", subject, err)
	}
	for name, want := range map[string]string{"From": `"Example Cloud" <cloud@example.com>`, "To": "<ann@example.org>",
		"Message-Id": "<1.2@example.com>", "Auto-Submitted": "auto-generated"} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if date, err := m.Header.Date(); err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("Date: %v, %v", date, err)
	}
	if got := parts(t, m); !cmp.Equal(got, map[string]string{"text/plain": message.Text, "text/html": message.HTML}) {
		t.Errorf("parts: %q", got)
	}
}

// parts are the message's alternative bodies by media type.
func parts(t testing.TB, m *netmail.Message) map[string]string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("Content-Type %q, %v", kind, err)
	}
	got := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, params, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil || !strings.EqualFold(params["charset"], "utf-8") || part.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
			t.Errorf("a part with %v", part.Header)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		got[kind] = strings.ReplaceAll(string(body), "\r\n", "\n")
	}
}

func TestSendRefused(t *testing.T) {
	t.Parallel()
	reply := func(code int, enhanced smtp.EnhancedCode) func() error {
		return func() error { // servers repeat the address in their text
			return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "<ann@example.org> is not wanted"}
		}
	}
	for _, test := range []struct {
		name string
		set  func(*smtpServer)
		mail.SMTPConfig
		forGood bool
		words   string
	}{
		{name: "no such user", set: func(s *smtpServer) { s.onRcpt = reply(550, smtp.EnhancedCode{5, 1, 1}) }, forGood: true, words: "550 5.1.1 to the recipient"},
		{name: "mailbox busy", set: func(s *smtpServer) { s.onRcpt = reply(450, smtp.EnhancedCode{4, 2, 1}) }, words: "450 4.2.1 to the recipient"},
		{name: "content refused", set: func(s *smtpServer) { s.onData = reply(554, smtp.EnhancedCode{5, 6, 0}) }, forGood: true, words: "554 5.6.0 to the message"},
		{name: "disk full", set: func(s *smtpServer) { s.onData = reply(452, smtp.EnhancedCode{4, 3, 1}) }, words: "452 4.3.1"},
		{name: "our own address refused", set: func(s *smtpServer) { s.onMail = reply(550, smtp.EnhancedCode{5, 7, 1}) }, words: "550 5.7.1 to the sender"},
		{name: "wrong password", set: func(s *smtpServer) { s.password = "other" }, SMTPConfig: mail.SMTPConfig{Username: "sallyport", Password: "secret"}, words: "535"},
		{name: "password forgotten", set: func(s *smtpServer) { s.password = "other" }, words: "502"},
		{name: "slow", set: func(s *smtpServer) { s.onRcpt = func() error { time.Sleep(3 * time.Second); return nil } },
			SMTPConfig: mail.SMTPConfig{Timeout: time.Second}, words: "the connection broke"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := startSMTP(t, true, false)
			server.refuse(test.set)
			test.Address, test.RootCAs = server.address, server.roots
			err := newSMTP(t, test.SMTPConfig).Send(t.Context(), message)
			if err == nil || errors.Is(err, mail.ErrRefused) != test.forGood || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v, want it for good: %v, with %q", err, test.forGood, test.words)
			}
			if err != nil && (strings.Contains(err.Error(), "ann") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("the error tells too much: %v", err)
			}
			if n := len(server.got()); n != 0 {
				t.Errorf("the server took %d mails", n)
			}
		})
	}
}

func TestSendToABrokenServer(t *testing.T) {
	t.Parallel()
	plain, starttls := startSMTP(t, false, false), startSMTP(t, true, false)
	_, strangers := serverCertificate(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, test := range []struct {
		name string
		mail.SMTPConfig
		words string
	}{
		{"no TLS offered", mail.SMTPConfig{Address: plain.address}, "STARTTLS"},
		{"untrusted certificate", mail.SMTPConfig{Address: starttls.address, RootCAs: strangers}, "certificate is not trusted"},
		{"implicit TLS to a server that speaks first", mail.SMTPConfig{Address: plain.address, TLS: mail.ImplicitTLS}, "connecting"},
		{"nobody listens", mail.SMTPConfig{Address: closed.Addr().String()}, "connecting"},
		{"it hangs up", mail.SMTPConfig{Address: rudeServer(t, "")}, "connecting"},
		{"it dies after the message", mail.SMTPConfig{TLS: mail.NoTLS, Address: rudeServer(t, "220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n")}, "connection broke at the message"},
		{"it talks nonsense", mail.SMTPConfig{TLS: mail.NoTLS, Address: rudeServer(t, "HTTP/1.1 400 Bad Request\r\n")}, "connecting"},
		{"it says nothing", mail.SMTPConfig{TLS: mail.NoTLS, Address: silentServer(t), Timeout: time.Second}, "in time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := newSMTP(t, test.SMTPConfig).Send(t.Context(), message)
			if err == nil || errors.Is(err, mail.ErrRefused) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v, want a passing error with %q", err, test.words)
			}
		})
	}
	for name, address := range map[string]string{"greeting": silentServer(t), "recipient": rudeServer(t, "220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "wait")} {
		t.Run("the program ends at the "+name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(300*time.Millisecond, cancel)
			start := time.Now()
			err := newSMTP(t, mail.SMTPConfig{TLS: mail.NoTLS, Address: address}).Send(ctx, message)
			if !errors.Is(err, context.Canceled) || time.Since(start) > 5*time.Second {
				t.Errorf("got %v after %s", err, time.Since(start))
			}
		})
	}
}

// rudeServer says each line after one of the client's, and hangs up; "wait" is
// said by saying nothing for long.
func rudeServer(t testing.TB, lines ...string) string {
	t.Helper()
	return listen(t, func(c net.Conn) {
		for i, line := range lines {
			if i > 0 {
				_, _ = c.Read(make([]byte, 4096))
			}
			if line == "wait" {
				_, _ = io.Copy(io.Discard, c)
				return
			}
			_, _ = c.Write([]byte(line))
		}
		if len(lines) > 1 {
			_, _ = c.Read(make([]byte, 1))
		}
	})
}

func silentServer(t testing.TB) string {
	t.Helper()
	return listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

func listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

func TestSMTPConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]mail.SMTPConfig{
		"no port":                 {Address: "smtp.example.com"},
		"no host":                 {Address: ":587"},
		"port zero":               {Address: "smtp.example.com:0"},
		"a word for a port":       {Address: "smtp.example.com:smtp"},
		"unknown TLS":             {Address: "smtp.example.com:587", TLS: "ssl"},
		"no TLS to elsewhere":     {Address: "smtp.example.com:25", TLS: mail.NoTLS},
		"password without TLS":    {Address: "127.0.0.1:25", TLS: mail.NoTLS, Username: "u", Password: "p"},
		"password without a user": {Address: "smtp.example.com:587", Password: "p"},
		"too patient":             {Address: "smtp.example.com:587", Timeout: time.Minute},
	} {
		if _, err := mail.NewSMTP(c); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}
