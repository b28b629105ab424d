package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
)

// Outbox is a Sender that keeps mails in the database instead of sending them,
// and shows them on pages. It is for development on one machine: whoever
// reaches the pages reads all mails.
type Outbox struct {
	pool  *pgxpool.Pool
	now   func() time.Time
	pages *template.Template
}

const keptMails = 500

// NewOutbox makes an Outbox on the database.
func NewOutbox(pool *pgxpool.Pool) (*Outbox, error) {
	pages, err := template.ParseFS(templates, "templates/list.html", "templates/message.html")
	if err != nil {
		return nil, fmt.Errorf("reading the pages of mails: %w", err)
	}
	return &Outbox{pool: pool, now: time.Now, pages: pages}, nil
}

// Send keeps the message; a second copy changes nothing.
func (o *Outbox) Send(ctx context.Context, m Message) error {
	return keepMail(ctx, o.pool, m, sallyport.Micros(o.now()), keptMails)
}

// Kept is a message that was not sent but kept.
type Kept struct {
	ID int64
	At time.Time // UTC
	Message
}

// Mails are the messages that are kept, newest first, without their bodies.
func (o *Outbox) Mails(ctx context.Context) ([]Kept, error) { return keptMailList(ctx, o.pool) }

// Mail is one message. It answers NotFound.
func (o *Outbox) Mail(ctx context.Context, id int64) (Kept, error) { return keptMail(ctx, o.pool, id) }

// Handler serves GET /mails, /mails/{id} and /mails/{id}/html. It answers
// requests for a loopback name only, so that no page of the web can read mails
// by pointing its own name here.
func (o *Outbox) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mails", o.page(o.list))
	mux.HandleFunc("GET /mails/{id}", o.page(o.message))
	mux.HandleFunc("GET /mails/{id}/html", o.page(o.html))
	mux.HandleFunc("GET /mails/style.css", o.page(o.style))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "mails are shown on this machine only", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

const (
	pagePolicy = "default-src 'none'; style-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// mailPolicy is for what a mail says: its own inline styles and nothing else.
	mailPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
)

type rendered struct {
	contentType string
	policy      string
	body        []byte
}

// page writes what a handler made, or its error, with the headers that all have.
func (o *Outbox) page(make func(*http.Request) (rendered, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		made, err := make(r)
		switch {
		case errors.Is(err, sallyport.NotFound):
			http.Error(w, "there is no such mail; it may be gone, since the newest 500 are kept", http.StatusNotFound)
			return
		case err != nil:
			http.Error(w, "the mails cannot be read now; try again", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", made.contentType)
		w.Header().Set("Content-Security-Policy", made.policy)
		_, _ = w.Write(made.body) // a reader that is gone
	}
}

func (o *Outbox) render(name string, data any) (rendered, error) {
	var b bytes.Buffer
	err := o.pages.ExecuteTemplate(&b, name, data)
	return rendered{"text/html; charset=utf-8", pagePolicy, b.Bytes()}, err
}

func (o *Outbox) list(r *http.Request) (rendered, error) {
	mails, err := o.Mails(r.Context())
	if err != nil {
		return rendered{}, err
	}
	return o.render("list.html", struct{ Mails []Kept }{mails})
}

func (o *Outbox) message(r *http.Request) (rendered, error) {
	m, err := o.one(r)
	if err != nil {
		return rendered{}, err
	}
	return o.render("message.html", m)
}

func (o *Outbox) html(r *http.Request) (rendered, error) {
	m, err := o.one(r)
	return rendered{"text/html; charset=utf-8", mailPolicy, []byte(m.HTML)}, err
}

func (o *Outbox) style(*http.Request) (rendered, error) {
	css, err := templates.ReadFile("templates/style.css")
	return rendered{"text/css; charset=utf-8", pagePolicy, css}, err
}

func (o *Outbox) one(r *http.Request) (Kept, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return Kept{}, sallyport.NotFound.Errorf("there is no such mail")
	}
	return o.Mail(r.Context(), id)
}
