package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"

	"github.com/wneessen/go-mail"
)

// connecting says why there is no session with the server. All of it is the
// operator's to mend: it is tried again.
func connecting(err error) error {
	var reply *textproto.Error
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &certificate):
		return errors.New("connecting to the mail server: its certificate is not trusted, or is for another name")
	case errors.As(err, &reply):
		return fmt.Errorf("connecting to the mail server: it answered %d", reply.Code)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return errors.New("connecting to the mail server: it did not answer in time")
	}
	// No address was sent to the server yet: its text cannot repeat one.
	return fmt.Errorf("connecting to the mail server: %w", err)
}

// refusal says why the server did not take a message: for good when it answered
// with a code of 500 and more to the recipient or the message itself.
func refusal(err error) error {
	var sending *mail.SendError
	if !errors.As(err, &sending) {
		return errors.New("sending a mail: the connection broke")
	}
	code := sending.ErrorCode()
	if code == 0 {
		return fmt.Errorf("sending a mail: the connection broke at %s", step(sending.Reason))
	}
	text := fmt.Sprintf("the server answered %d %s to %s", code, sending.EnhancedStatusCode(), step(sending.Reason))
	if code >= 500 && (sending.Reason == mail.ErrSMTPRcptTo || sending.Reason == mail.ErrSMTPDataClose) {
		return fmt.Errorf("%w: %s", ErrRefused, text)
	}
	return errors.New("sending a mail: " + text)
}

func step(r mail.SendErrReason) string {
	switch r {
	case mail.ErrSMTPMailFrom:
		return "the sender (MAIL FROM)"
	case mail.ErrSMTPRcptTo:
		return "the recipient (RCPT TO)"
	case mail.ErrSMTPData, mail.ErrWriteContent, mail.ErrSMTPDataClose:
		return "the message (DATA)"
	}
	return "the session"
}
