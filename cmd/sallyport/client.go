package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/cloud-sdk/cloudclient"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/credential"
)

// client speaks to the service with the profile's key or certificate. Its
// errors are for people, and have the gRPC status within.
type client struct {
	cloudservice.CloudServiceClient
	admin   adminv1.AdminServiceClient
	account sallyport.AccountID
	keyID   string           // of the API key that it sends; "" with a certificate
	pair    *tls.Certificate // that it presents; nil with an API key
	profile profile
	ended   []interface{ Close() error }
}

// connect uses the login that the command line names.
func (s *session) connect() (*client, error) {
	p, err := loadProfile(s.profile)
	if err != nil {
		return nil, err
	}
	return dial(p, s.timeout)
}

// maxAnswer bounds what the service may answer: pages have about a megabyte,
// and a single entry of the audit log may have more.
const maxAnswer = 32 << 20

// dial makes a client. It does not wait for a connection: the first call does.
// CloudService goes through Temporal's own client; it lends its connection to
// nobody, so AdminService has a second one, which is opened when it is used.
func dial(p profile, timeout time.Duration) (*client, error) {
	config, err := p.tls()
	if err != nil {
		return nil, err
	}
	calls := grpc.WithChainUnaryInterceptor(p.explaining(timeout), retrying)
	answers := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer))
	if p.Certificate != "" {
		return dialWithCertificate(p, config, calls, answers)
	}
	key, _, err := credential.ParseAPIKey(p.Key.Reveal())
	if err != nil {
		return nil, err
	}
	cloud, err := cloudclient.New(cloudclient.Options{HostPort: p.Address, APIKey: p.Key.Reveal(), AllowInsecure: p.Plaintext,
		TLSConfig: config, DisableRetry: true, UserAgent: "sallyport", GRPCDialOptions: []grpc.DialOption{calls, answers}})
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", p.Address, err)
	}
	transport := credentials.NewTLS(config)
	if p.Plaintext {
		transport = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(p.Address, grpc.WithTransportCredentials(transport), grpc.WithPerRPCCredentials(bearer(p)),
		grpc.WithUserAgent("sallyport"), calls, answers)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", p.Address, err), cloud.Close())
	}
	return &client{cloud.CloudService(), adminv1.NewAdminServiceClient(conn), key.Account, key.ID, nil, p, []interface{ Close() error }{cloud, conn}}, nil
}

// dialWithCertificate is dial without an Authorization header: where there is
// one, it alone counts. Temporal's own client cannot do without.
func dialWithCertificate(p profile, config *tls.Config, options ...grpc.DialOption) (*client, error) {
	if p.Plaintext {
		return nil, errors.New("a client certificate is part of TLS, and this login is --plaintext; log in with the TLS port")
	}
	pair, account, err := p.pair()
	if err != nil {
		return nil, err
	}
	config.Certificates = []tls.Certificate{pair}
	conn, err := grpc.NewClient(p.Address, append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithUserAgent("sallyport"))...)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", p.Address, err)
	}
	return &client{cloudservice.NewCloudServiceClient(conn), adminv1.NewAdminServiceClient(conn), account, "", &pair, p, []interface{ Close() error }{conn}}, nil
}

// close ends the connections, at the end of the command: nothing is under way.
func (c *client) close() {
	for _, e := range c.ended {
		_ = e.Close() // fails only when it was closed already
	}
}

func (p profile) tls() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(p.Address)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address such as sallyport.example.com:7443", p.Address)
	}
	if p.Plaintext {
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("--plaintext would send the key to %s for everybody on the way to read; it is for 127.0.0.1, ::1 and localhost", host)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(p.CA)) {
			return nil, errors.New("the CA file has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
		}
	}
	return config, nil
}

// bearer sends a profile's key with every call; without TLS on loopback only,
// which profile.tls has seen to.
type bearer profile

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.Key.Reveal()}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.Plaintext }

// retrying asks again when the service was not there for a moment, or, of
// reads, when there were too many of them. It is safe for changes: they carry
// operation ids.
func retrying(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	const attempts = 4
	wait := 200 * time.Millisecond
	name := method[strings.LastIndex(method, "/")+1:]
	reads := strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List")
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, method, req, reply, cc, opts...)
		code := status.Code(err)
		again := code == codes.Unavailable && !untrusted(err) || code == codes.ResourceExhausted && reads
		if !again || attempt == attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// untrusted: the connection fails the same way whenever it is tried.
func untrusted(err error) bool {
	text := status.Convert(err).Message()
	return strings.Contains(text, "authentication handshake failed") && !strings.Contains(text, "EOF") || strings.Contains(text, "server preface")
}

// explaining gives every call its deadline and turns a status into words.
func (p profile) explaining(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		err := invoke(ctx, method, req, reply, cc, opts...)
		if err == nil {
			return nil
		}
		return &callError{p.explain(err), err}
	}
}

// callError is a refused or failed call, in words.
type callError struct {
	text string
	err  error // with a gRPC status
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.err }

func (p profile) explain(err error) string {
	st := status.Convert(err)
	text := st.Message()
	switch st.Code() {
	case codes.Unavailable:
		if len(st.Details()) > 0 { // the service itself says so
			return text
		}
		return p.unreachable(text)
	case codes.DeadlineExceeded:
		return fmt.Sprintf("%s did not answer in time; try again, or with a longer --timeout", p.Address)
	case codes.Canceled:
		return "interrupted; if this was a change, look whether it was made before you repeat it"
	case codes.Unauthenticated:
		if p.Certificate != "" {
			return text + "; `sallyport login` takes another certificate, or a key"
		}
		return text + "; `sallyport login` takes another key"
	case codes.Unimplemented:
		return fmt.Sprintf("%s does not know this request: is it a Sallyport, and of this version? (%s)", p.Address, text)
	}
	return text
}

// unreachable says what is probably wrong when there is no connection.
func (p profile) unreachable(text string) string {
	cause := text
	if i := strings.LastIndex(cause, `desc = "`); i >= 0 {
		cause = strings.TrimSuffix(cause[i+len(`desc = "`):], `"`)
	}
	cause = strings.TrimPrefix(cause, "transport: Error while dialing: ")
	switch {
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return fmt.Sprintf("%s does not speak TLS; is it the right port? (--plaintext is for development on this machine)", p.Address)
	case strings.Contains(text, "x509: "):
		_, reason, _ := strings.Cut(cause, "x509: ")
		return fmt.Sprintf("%s is not trusted: %s; log in with --ca and the PEM file of the CA that signed its certificate", p.Address, reason)
	case p.Plaintext && strings.Contains(text, "server preface"):
		return fmt.Sprintf("%s does not speak gRPC without TLS; log in without --plaintext, or to another port", p.Address)
	}
	return fmt.Sprintf("%s cannot be reached (%s); is the address right, and does sallyportd run there?", p.Address, cause)
}

// settle waits until a change is fulfilled: enforced, or a second old.
func (c *client) settle(ctx context.Context, op *operation.AsyncOperation) error {
	for {
		switch op.GetState() {
		case operation.AsyncOperation_STATE_FULFILLED:
			return nil
		case operation.AsyncOperation_STATE_FAILED, operation.AsyncOperation_STATE_CANCELLED, operation.AsyncOperation_STATE_REJECTED:
			return fmt.Errorf("the change was not made: %s", op.GetFailureReason())
		}
		wait := op.GetCheckDuration().AsDuration()
		if wait <= 0 {
			wait = 200 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted; operation %s goes on", op.GetId())
		case <-time.After(wait):
		}
		resp, err := c.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: op.GetId()})
		if err != nil {
			return err
		}
		op = resp.GetAsyncOperation()
	}
}

// fullName adds the account to a namespace's name when it lacks it.
func (c *client) fullName(namespace string) string {
	if namespace == "" || strings.Contains(namespace, ".") {
		return namespace
	}
	return namespace + "." + string(c.account)
}
