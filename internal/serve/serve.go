// Package serve is the edge of the service: the gRPC server with its one set
// of interceptors, the same services as HTTP/JSON, health, TLS, and the table
// that turns errors into codes. Every protocol passes through the same checks.
package serve

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
)

// Access says who may call a method at all. What a caller may do with it is
// the domain's business.
type Access int

const (
	// Authenticated methods are for callers with a good credential. It is the
	// zero value, so that an entry which says nothing is not an open door.
	Authenticated Access = iota
	// Public methods need no credential.
	Public
	// OwnAuthentication methods authenticate their callers themselves.
	OwnAuthentication
)

// Config of a Server.
type Config struct {
	// Methods has an entry for each method of each service that is served, by
	// full name ("/package.Service/Method"). Required: a method without one is
	// refused, and GRPC refuses to serve it at all.
	Methods map[string]Access
	// Authenticate turns what a request says of its caller into the caller.
	// Required. It answers Unauthenticated with a text that is safe to show.
	Authenticate func(ctx context.Context, c Credentials, from netip.Addr, requestID string) (sallyport.Caller, error)
	// Ready says whether this copy can serve, which needs the database: its
	// errors other than sallyport.Errors are shown as the database's silence.
	// Nil: always.
	Ready func(ctx context.Context) error
	// Problems says, for everybody to read, what the operator should look at while
	// this copy can serve. Nil: there is nothing.
	Problems func(ctx context.Context) []string
	// Proxies are the networks whose X-Forwarded-For is believed; nil: none.
	Proxies []netip.Prefix
	Limits  Limits                // zero fields: DefaultLimits
	Metrics prometheus.Registerer // nil: none are kept
	Logger  *slog.Logger          // nil: slog.Default()
	Now     func() time.Time      // nil: time.Now
}

// Credentials are what a request has to prove its caller by.
type Credentials struct {
	Authorization string // value of the header of that name; "" without
	// Certificates are the client's of the connection, the leaf first and none of
	// them checked: the handshake has proved only that it holds the leaf's key. A
	// trusted proxy's are not there, since they are not its clients'.
	Certificates []*x509.Certificate
}

// Limits are requests a second, for each copy of the service.
type Limits struct {
	Account        int // all callers of the account together
	User           int
	ServiceAccount int
}

// DefaultLimits are Temporal Cloud's.
func DefaultLimits() Limits { return Limits{Account: 160, User: 40, ServiceAccount: 80} }

// Server holds what all listeners of a process share: limits, counters and the
// table of methods. It is safe for concurrent use.
type Server struct {
	methods      map[string]Access
	authenticate func(ctx context.Context, c Credentials, from netip.Addr, requestID string) (sallyport.Caller, error)
	ready        func(ctx context.Context) error
	problems     func(ctx context.Context) []string
	proxies      []netip.Prefix
	limits       *limiter
	log          *slog.Logger
	now          func() time.Time
	handled      *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
}

// New checks the configuration and makes a Server.
func New(c Config) (*Server, error) {
	if c.Authenticate == nil {
		return nil, errors.New("serve: Config needs Authenticate")
	}
	s := &Server{methods: c.Methods, authenticate: c.Authenticate, ready: c.Ready, problems: c.Problems, proxies: c.Proxies, log: c.Logger, now: c.Now}
	if s.ready == nil {
		s.ready = func(context.Context) error { return nil }
	}
	if s.problems == nil {
		s.problems = func(context.Context) []string { return nil }
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.limits = newLimiter(c.Limits, s.now)
	s.handled = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sallyport_requests_total", Help: "Requests handled, by full method name and gRPC code.",
	}, []string{"method", "code"})
	s.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sallyport_request_seconds", Help: "Time to handle a request.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
	}, []string{"method"})
	if c.Metrics != nil {
		for _, metric := range []prometheus.Collector{s.handled, s.seconds} {
			if err := c.Metrics.Register(metric); err != nil {
				return nil, fmt.Errorf("registering metrics: %w", err)
			}
		}
	}
	return s, nil
}

type contextKey int

const (
	callerKey contextKey = iota
	requestKey
	reachedKey // *atomic.Bool: whether a request over HTTP came to a method
)

// request is what the edge knows of a request before its caller is known.
type request struct {
	id           string
	from         netip.Addr
	certificates []*x509.Certificate
}

// Caller is the authenticated caller of the request; ok is false for methods
// that are not Authenticated.
func Caller(ctx context.Context) (caller sallyport.Caller, ok bool) {
	caller, ok = ctx.Value(callerKey).(sallyport.Caller)
	return caller, ok
}

// RequestID names the request in logs, in the journal and in error texts.
func RequestID(ctx context.Context) string {
	r, _ := ctx.Value(requestKey).(request)
	return r.id
}

// From is the client's address: the peer's, or what a trusted proxy says of it.
func From(ctx context.Context) netip.Addr {
	r, _ := ctx.Value(requestKey).(request)
	return r.from
}
