package mail_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]mail.Address{
		"cloud@example.com":                       {Email: "cloud@example.com"},
		"Example Cloud <cloud@example.com>":       {Name: "Example Cloud", Email: "cloud@example.com"},
		`"Example, Inc." <a.b+c@example.com>`:     {Name: "Example, Inc.", Email: "a.b+c@example.com"},
		"=?utf-8?q?Gr=C3=BC=C3=9Fe?= <a@b.c>":     {Name: "Grüße", Email: "a@b.c"},
		"=?utf-8?q?=E2=80=AEtxet?= <a@b.example>": {Name: "txet", Email: "a@b.example"},
	} {
		if got, err := mail.ParseAddress(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "cloud", "@example.com", "cloud@", "a@b@c", "a@b, c@d", `"a b"@example.com`, `"a>b"@example.com`,
		"a@[127.0.0.1]", "a@b\r\nBcc: c@d", "a\x00@b", "ä@example.com", "a@exämple.com", "<a@b> <c@d>", "a b@c", `a\b@c`, "=?utf-8?q?a=0D=0ABcc:_x@y.z?= <a@b.c>",
		strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("b", 254)} {
		if got, err := mail.ParseAddress(text); err == nil {
			t.Errorf("%q was taken as %+v", text, got)
		}
	}
}

func TestUntrusted(t *testing.T) {
	t.Parallel()
	const j = "\u2060"
	for text, want := range map[string]string{
		"CN=worker 7,O=Example":             "CN=worker 7,O=Example",
		"see http://evil.example.com/x now": "see http:" + j + "/" + j + "/" + j + "evil." + j + "example." + j + "com/" + j + "x now",
		"mailto:a@b.c":                      "mailto:" + j + "a@" + j + "b." + j + "c",
		"two\r\nlines\tand\u2028more":       "two lines and more",
		"a\u202edcb\u200b\u2066e\x00\x7f":   "adcbe",
		"bad \xff\xfe bytes":                "bad bytes",
		"<b>bold</b> & 'so'":                "<b>bold</" + j + "b> & 'so'", // escaped where it is shown
		"  spaces  ":                        "spaces",
		"Ends with a dot.":                  "Ends with a dot.",
		"":                                  "",
	} {
		if got := mail.Untrusted(text, 100); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := mail.Untrusted(strings.Repeat("ü", 300), 100); utf8.RuneCountInString(got) != 100 || !strings.HasSuffix(got, "ü…") {
		t.Errorf("a long text became %q", got)
	}
}

// hostile is content in which every text tries to be more than text.
var hostile = mail.Content{
	Subject:    "Hi\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script>",
	Paragraphs: []string{"<img src=x onerror=alert(1)>\r\n.\r\nMAIL FROM:<x@y.z>", "</p></div></body><style>*{display:none}</style>"},
	Columns:    []string{"A\nB", "{{.Reason}}"},
	Rows:       [][]string{{"one\ntwo: three", "<a href=https://evil.example>x</a>"}},
	After:      []string{"--boundary--\r\nContent-Type: text/html"},
	Commands:   []string{"sallyport x; <b>y</b>\nrm -rf"},
	Reason:     "Because & <i>so</i>.",
}

func TestHostileContent(t *testing.T) {
	t.Parallel()
	server := startSMTP(t, true, false)
	m := newMailer(t, pgtest.Clone(t), newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots}))
	err := pgx.BeginFunc(t.Context(), m.pool, func(tx pgx.Tx) error {
		return m.Enqueue(t.Context(), tx, "acct2", []string{"u_ann"}, hostile)
	})
	if err != nil {
		t.Fatal(err)
	}
	m.run(t)
	eventually(t, "the mail is sent", func() bool { return len(server.got()) == 1 })
	got := server.got()[0]
	if !cmp.Equal(got.to, []string{"u_ann@example.org"}) {
		t.Errorf("recipients: %v", got.to)
	}
	parsed, err := netmail.ReadMessage(strings.NewReader(got.data))
	if err != nil {
		t.Fatal(err)
	}
	for name := range parsed.Header {
		switch name {
		case "From", "To", "Subject", "Date", "Message-Id", "Mime-Version", "Auto-Submitted", "Content-Type":
		default:
			t.Errorf("there is a header %s: %v", name, parsed.Header[name])
		}
	}
	bodies := parts(t, parsed)
	if len(bodies) != 2 {
		t.Fatalf("there are %d parts", len(bodies))
	}
	for _, tag := range []string{"<script", "<img", "<style>", "<a ", "<b>", "<i>", "Bcc: victim@example.org\n"} {
		if strings.Contains(bodies["text/html"], tag) {
			t.Errorf("the HTML has %s:\n%s", tag, bodies["text/html"])
		}
	}
	want := "<img src=x onerror=alert(1)> . MAIL FROM:<x@y.z>\n\n</p></div></body><style>*{display:none}</style>\n\n" +
		"- A B: one two: three\n  {{.Reason}}: <a href=https://evil.example>x</a>\n\n--boundary-- Content-Type: text/html\n\n" +
		"    sallyport x; <b>y</b> rm -rf\n\n-- \nBecause & <i>so</i>.\n"
	if diff := cmp.Diff(want, bodies["text/plain"]); diff != "" {
		t.Errorf("the text (-want +got):\n%s", diff)
	}
}

func TestContentOfTheWrongShapeIsGivenUp(t *testing.T) {
	t.Parallel()
	server := startSMTP(t, true, false)
	m := newMailer(t, pgtest.Clone(t), newSMTP(t, mail.SMTPConfig{Address: server.address, RootCAs: server.roots}))
	err := pgx.BeginFunc(t.Context(), m.pool, func(tx pgx.Tx) error {
		return m.Enqueue(t.Context(), tx, "acct2", []string{"u_ann"}, mail.Content{Columns: []string{"one"}, Rows: [][]string{{"a", "b"}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	m.run(t)
	eventually(t, "it is given up", func() bool { return m.jobs(t)["cancelled"] == 1 })
}

func TestConfig(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	outbox, err := mail.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]mail.Config{
		"no pool":         {},
		"no Email":        {Pool: pool, Sender: outbox, From: from},
		"no sender":       {Pool: pool, Sender: outbox, Email: emailOf},
		"a sender's name": {Pool: pool, Sender: outbox, Email: emailOf, From: mail.Address{Name: "x", Email: "x"}},
	} {
		if _, err := mail.New(c); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestOutbox(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool := pgtest.Clone(t)
	outbox, err := mail.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	m := newMailer(t, pool, outbox)
	m.enqueue(t, "u_ann")
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return m.Enqueue(ctx, tx, "acct2", []string{"u_bob"}, hostile) })
	if err != nil {
		t.Fatal(err)
	}
	m.run(t)
	eventually(t, "both are kept", func() bool { return m.jobs(t)["completed"] == 2 })
	mails, err := outbox.Mails(ctx)
	if err != nil || len(mails) != 2 {
		t.Fatalf("kept: %+v, %v", mails, err)
	}
	for _, kept := range mails { // a second attempt of a job that was killed
		one, err := outbox.Mail(ctx, kept.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := outbox.Send(ctx, one.Message); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := outbox.Mails(ctx); err != nil || len(again) != 2 {
		t.Errorf("after a second copy: %d, %v", len(again), err)
	}
	server := httptest.NewServer(outbox.Handler())
	t.Cleanup(server.Close)
	get := func(path, host string) (int, string, http.Header) {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body), response.Header
	}
	for _, test := range []struct {
		path, host string
		status     int
		words      []string
		never      string
	}{
		{"/mails", "", 200, []string{"u_ann@example.org", "u_bob@example.org", "Hello"}, "<script"},
		{"/mails", "localhost:7480", 200, []string{"Mails"}, "<script"},
		{"/mails", "[::1]:7480", 200, []string{"Mails"}, "<script"},
		{"/mails", "evil.example.com", 403, nil, "u_ann"},
		{"/mails/1", "127.0.0.1.evil.example.com:7480", 403, nil, "u_ann"},
		{"/mails/1", "", 200, []string{"<iframe", "sandbox"}, "<script"},
		{"/mails/2", "", 200, []string{"Message-ID"}, "<img"},
		{"/mails/1/html", "", 200, []string{"<h1"}, "<script"},
		{"/mails/2/html", "", 200, []string{"<h1"}, "<img"},
		{"/mails/style.css", "", 200, []string{"font"}, "<"},
		{"/mails/3", "", 404, nil, "u_ann"},
		{"/mails/x", "", 404, nil, "u_ann"},
		{"/mails/99999999999999999999/html", "", 404, nil, "u_ann"},
	} {
		status, body, header := get(test.path, test.host)
		if status != test.status || strings.Contains(body, test.never) {
			t.Errorf("%s of %q: %d\n%s", test.path, test.host, status, body)
		}
		for _, word := range test.words {
			if !strings.Contains(body, word) {
				t.Errorf("%s lacks %q:\n%s", test.path, word, body)
			}
		}
		if policy := header.Get("Content-Security-Policy"); status == 200 && !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s: policy %q", test.path, policy)
		}
	}
	if _, _, header := get("/mails/1/html", ""); !strings.HasPrefix(header.Get("Content-Security-Policy"), "sandbox;") {
		t.Errorf("a mail's HTML is not in a sandbox: %v", header)
	}
}

func TestTheOutboxIsBounded(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	outbox, err := mail.NewOutbox(pool)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := outbox.Send(t.Context(), mail.Message{ID: string(rune('a' + i)), Subject: "s"}); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // as if 499 had come in between
			if _, err := pool.Exec(t.Context(), `insert into outbox (message_id, at, from_name, from_email, to_name, to_email, subject, text_part, html_part)
				select 'm' || n, now(), '', '', '', '', '', '', '' from generate_series(1, 499) n`); err != nil {
				t.Fatal(err)
			}
		}
	}
	mails, err := outbox.Mails(t.Context())
	if err != nil || len(mails) != 500 || mails[0].Message.ID != "c" || mails[499].Message.ID != "m2" {
		t.Errorf("%d are kept, %v", len(mails), err)
	}
	if _, err := outbox.Mail(context.Background(), 1); sallyport.KindOf(err) != sallyport.NotFound {
		t.Errorf("the oldest: %v", err)
	}
}

func FuzzUntrusted(f *testing.F) {
	for _, text := range []string{"CN=worker,O=Example", "http://evil.example/x", "a\u202eb\r\nc", "\u2060.\u2060a", strings.Repeat("x.", 200), "\xff\xfe"} {
		f.Add(text)
	}
	link := regexp.MustCompile(`(?i)[a-z0-9][.@:][a-z0-9/]|//`)
	f.Fuzz(func(t *testing.T, text string) {
		got := mail.Untrusted(text, 80)
		if !utf8.ValidString(got) || link.MatchString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q became %q", text, got)
		}
		if n := utf8.RuneCountInString(strings.ReplaceAll(got, "\u2060", "")); n > 80 {
			t.Errorf("%q became %d characters", text, n)
		}
	})
}
