package mail

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/mail"
	"slices"
	"strings"
	texttemplate "text/template"
	"unicode"
	"unicode/utf8"
)

// Address is a mailbox.
type Address struct {
	Name  string // as shown; may be empty
	Email string
}

// ParseAddress reads an address such as `Example Cloud <cloud@example.com>`.
func ParseAddress(text string) (Address, error) {
	parsed, err := mail.ParseAddress(text)
	if err != nil {
		return Address{}, errors.New("is not an address such as `Example Cloud <cloud@example.com>`")
	}
	a := Address{Name: line(parsed.Name, maxName), Email: parsed.Address}
	return a, a.check()
}

// check accepts addr-spec in ASCII, without quoted strings, comments and
// address literals: nothing that a mail server could read as two addresses or a
// command.
func (a Address) check() error {
	local, domain, _ := strings.Cut(a.Email, "@")
	parsed, err := mail.ParseAddress(a.Email)
	switch {
	case local == "" || domain == "" || len(a.Email) > 254 || len(local) > 64,
		strings.ContainsFunc(a.Email, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>[]\`, r) }),
		err != nil, parsed.Address != a.Email, strings.Contains(domain, "@"):
		return errors.New("is not an e-mail address such as name@example.com")
	}
	return nil
}

func (a Address) domain() string {
	_, domain, _ := strings.Cut(a.Email, "@")
	return domain
}

// Message is a mail as it is sent.
type Message struct {
	ID      string // Message-ID, without the brackets; the same for each attempt
	From    Address
	To      Address
	Subject string
	Text    string
	HTML    string
}

// Content is what a mail says, whoever it goes to. All of it is plain text: the
// layout escapes it, and removes what could break a line of the header. What
// people named themselves goes through Untrusted first.
type Content struct {
	Subject    string     `json:"subject"`
	Paragraphs []string   `json:"paragraphs"`
	Columns    []string   `json:"columns,omitempty"` // headings of Rows
	Rows       [][]string `json:"rows,omitempty"`    // each as long as Columns
	After      []string   `json:"after,omitempty"`   // paragraphs below the rows
	Commands   []string   `json:"commands,omitempty"`
	Reason     string     `json:"reason"` // why the recipient gets it, at the end
	// Principal is an id in Paragraphs beside which its name is shown to those who may
	// see that. The name is looked up when the mail is sent: jobs hold none.
	Principal string `json:"principal,omitempty"`
}

// naming is the content with the principal's name.
func (c Content) naming(name string) Content {
	if name == c.Principal {
		return c
	}
	c.Paragraphs = slices.Clone(c.Paragraphs)
	for i, p := range c.Paragraphs {
		c.Paragraphs[i] = strings.ReplaceAll(p, c.Principal, fmt.Sprintf("%s (%s)", Untrusted(name, maxName), c.Principal))
	}
	return c
}

const (
	maxSubject = 200 // characters
	maxName    = 100
	maxText    = 2000
	lineLength = 76
)

//go:embed templates
var templates embed.FS

func (c Content) message(from, to Address, id string) (Message, error) {
	for _, row := range c.Rows {
		if len(row) != len(c.Columns) {
			return Message{}, errors.New("a row of the mail has another number of cells than it has columns")
		}
	}
	c = c.lines()
	m := Message{ID: id, From: from, To: to, Subject: c.Subject}
	text, err := texttemplate.New("mail.txt").Funcs(texttemplate.FuncMap{"wrap": wrap}).ParseFS(templates, "templates/mail.txt")
	if err != nil {
		return m, fmt.Errorf("reading the mail's layout: %w", err)
	}
	page, err := template.ParseFS(templates, "templates/mail.html")
	if err != nil {
		return m, fmt.Errorf("reading the mail's layout: %w", err)
	}
	var plain, html bytes.Buffer
	if err := text.Execute(&plain, c); err != nil {
		return m, fmt.Errorf("writing the mail's text: %w", err)
	}
	if err := page.Execute(&html, c); err != nil {
		return m, fmt.Errorf("writing the mail's HTML: %w", err)
	}
	m.Text, m.HTML = plain.String(), html.String()
	return m, nil
}

// lines is the content with each of its texts on one line.
func (c Content) lines() Content {
	each := func(texts []string) []string {
		clean := make([]string, len(texts))
		for i, text := range texts {
			clean[i] = line(text, maxText)
		}
		return clean
	}
	rows := make([][]string, len(c.Rows))
	for i, row := range c.Rows {
		rows[i] = each(row)
	}
	return Content{Subject: line(c.Subject, maxSubject), Paragraphs: each(c.Paragraphs), Columns: each(c.Columns), Rows: rows,
		After: each(c.After), Commands: each(c.Commands), Reason: line(c.Reason, maxText)}
}

// Untrusted makes text that somebody chose himself (a name, a certificate's
// subject) fit to be shown to others: one line of at most max characters, no
// characters that reorder or hide others, and nothing that a mail program
// would make a link of.
func Untrusted(text string, limit int) string {
	text = line(text, limit)
	var b strings.Builder
	for i, r := range text {
		b.WriteRune(r)
		next, _ := utf8.DecodeRuneInString(text[i+utf8.RuneLen(r):])
		if strings.ContainsRune(".:/@", r) && (unicode.IsLetter(next) || unicode.IsDigit(next) || next == '/') {
			b.WriteRune(joiner)
		}
	}
	return b.String()
}

// joiner is U+2060 WORD JOINER: invisible, without width, and no part of an
// address.
const joiner = '\u2060'

// line is the text on one line, without control and format characters (those
// that change the direction of writing, for example).
func line(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs) && r != joiner, r == utf8.RuneError:
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit-1]) + "…"
	}
	return text
}

// wrap breaks a paragraph of the text part into lines, at spaces only.
func wrap(text string) string {
	var b strings.Builder
	length := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case length+1+n > lineLength:
			b.WriteByte('\n')
			length = 0
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += n
	}
	return b.String()
}
