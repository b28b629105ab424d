package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
	"github.com/sallyport-iam/sallyport/notices"
)

// mailFlags say how mails are sent.
type mailFlags struct {
	SMTP             string `name:"smtp" help:"Mail server for notices. Empty: no mails are sent." placeholder:"HOST:PORT"`
	SMTPTLS          string `name:"smtp-tls" help:"How the connection to it is protected: starttls, implicit, or none on loopback." enum:"starttls,implicit,none" default:"starttls"`
	SMTPUsername     string `name:"smtp-username" help:"User name at the mail server. Empty: without authentication." placeholder:"NAME"`
	SMTPPasswordFile string `name:"smtp-password-file" help:"File with the password." placeholder:"FILE"`
	MailFrom         string "help:\"Whom mails are from: an address such as `Example Cloud <cloud@example.com>`.\" placeholder:\"ADDRESS\""
}

// mails are how mails leave, and whom they are from.
type mails struct {
	sender mail.Sender
	from   mail.Address
}

func (f mailFlags) mails() (mails, error) {
	if f.SMTP == "" {
		return mails{}, nil
	}
	from, err := mail.ParseAddress(f.MailFrom)
	if err != nil {
		return mails{}, sallyport.Invalid.Errorf("--mail-from %v", err)
	}
	config := mail.SMTPConfig{Address: f.SMTP, TLS: mail.TLSMode(f.SMTPTLS), Username: f.SMTPUsername}
	if f.SMTPPasswordFile != "" {
		password, err := os.ReadFile(f.SMTPPasswordFile)
		if err != nil {
			return mails{}, fmt.Errorf("reading the mail server's password: %w", err)
		}
		config.Password = credential.Secret(strings.TrimSpace(string(password)))
	}
	sender, err := mail.NewSMTP(config)
	if err != nil {
		return mails{}, sallyport.Invalid.Errorf("--smtp: %v", err)
	}
	return mails{sender, from}, nil
}

// sendMails makes the domain send mails.
func (d *domain) sendMails(c domainConfig) error {
	var err error
	d.mailer, err = mail.New(mail.Config{Pool: d.pool, From: c.mails.from, Sender: c.mails.sender, Logger: c.log, Metrics: c.metrics,
		Name: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, user, principal string) (string, error) {
			return d.directory.NameFor(ctx, q, account, user, principal)
		},
		Email: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) (string, error) {
			r, err := d.directory.Recipient(ctx, q, account, user)
			return r.Email, err
		}})
	if err != nil {
		return err
	}
	d.notices, err = notices.New(notices.Config{Pool: d.pool, Mailer: d.mailer, Recipients: d.directory.Recipients, Expiring: d.expiring, Logger: c.log})
	return err
}

// expiring is what notices tell of.
func (d *domain) expiring(ctx context.Context, q pg.Querier, now time.Time) ([]notices.Expiring, error) {
	list, err := d.clientCAs.Expiring(ctx, q, now)
	if err != nil {
		return nil, err
	}
	expiring := make([]notices.Expiring, len(list))
	for i, e := range list {
		expiring[i] = notices.Expiring{Account: e.Account, Namespace: e.Namespace, Name: e.Name, Kind: notices.Kind(e.Kind),
			Fingerprint: e.Fingerprint, Subject: e.Subject, NotAfter: e.NotAfter, Days: e.Days}
	}
	return expiring, nil
}

// warn is clientca's warning as a mail.
func (d *domain) warn(ctx context.Context, tx *journal.Tx, w clientca.Warning) error {
	return d.notices.Warn(ctx, tx.Transaction(), notices.Taken{Account: w.Account, Namespace: w.Namespace, Name: w.Name, Caller: w.Caller,
		What: w.Reason, Fingerprints: w.Stops, Count: w.Count, Less: w.Less, AtLeast: w.AtLeast})
}
