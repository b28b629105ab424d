package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // takes compressed requests, up to maxMessage when they are unpacked
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
)

// maxMessage bounds a request's size. The largest honest ones are authorizers'
// lists of what they hold, in pieces of at most 1 MB and some.
const maxMessage = 2 << 20

// GRPC makes a gRPC server with the interceptors, the health service and what
// register adds to it; tlsConfig nil means plaintext. It may be called for
// several listeners. Every registered method must have an entry in
// Config.Methods, and every entry may be used by one server and not another.
func (s *Server) GRPC(tlsConfig *tls.Config, register func(grpc.ServiceRegistrar)) (*grpc.Server, error) {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(64 << 10),
		grpc.MaxConcurrentStreams(1000),
		grpc.ConnectionTimeout(20 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if tlsConfig != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(tlsConfig)))
	}
	server := grpc.NewServer(options...)
	register(decoding{server})
	grpc_health_v1.RegisterHealthServer(server, health{ready: s.ready})
	var missing []string
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			if _, ok := s.access("/" + service + "/" + m.Name); !ok {
				missing = append(missing, "/"+service+"/"+m.Name)
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("methods without an entry that says who may call them: %s", strings.Join(missing, ", "))
	}
	return server, nil
}

func (s *Server) access(method string) (Access, bool) {
	if strings.HasPrefix(method, "/"+grpc_health_v1.Health_ServiceDesc.ServiceName+"/") {
		return Public, true
	}
	a, ok := s.methods[method]
	return a, ok
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := s.now()
	ctx = s.begin(ctx)
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		err = s.end(ctx, info.FullMethod, start, err)
	}()
	if ctx, err = s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if err := checkText(req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := s.now()
	ctx := s.begin(ss.Context())
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		err = s.end(ctx, info.FullMethod, start, err)
	}()
	if ctx, err = s.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	return handler(srv, streamWith{ss, ctx})
}

// streamWith is a stream with another context.
type streamWith struct {
	grpc.ServerStream
	ctx context.Context
}

func (s streamWith) Context() context.Context { return s.ctx }

// RecvMsg checks the text of every message, as unary does of its only one.
func (s streamWith) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return checkText(m)
}

// begin gives the request its id, which the client learns from the headers.
func (s *Server) begin(ctx context.Context) context.Context {
	if reached, ok := ctx.Value(reachedKey).(*atomic.Bool); ok {
		reached.Store(true)
	}
	r := request{id: sallyport.NewID("req_")}
	md, _ := metadata.FromIncomingContext(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		r.from = clientAddress(p.Addr.String(), md.Get("x-forwarded-for"), s.proxies)
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok && !trusted(parseAddress(p.Addr.String()), s.proxies) {
			r.certificates = t.State.PeerCertificates
		}
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-request-id", r.id)) // fails only on a finished call
	return context.WithValue(ctx, requestKey, r)
}

// admit answers whether the method may be called at all: deny by default, then
// the credential, then the limits.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	access, ok := s.access(method)
	if !ok {
		return ctx, sallyport.PermissionDenied.Errorf("the method %s is not open to anybody", method)
	}
	if access != Authenticated {
		return ctx, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	authorization := md.Get("authorization")
	if len(authorization) > 1 {
		return ctx, sallyport.Unauthenticated.Errorf("the request has %d authorization headers; send one", len(authorization))
	}
	r, _ := ctx.Value(requestKey).(request)
	c := Credentials{Certificates: r.certificates}
	if len(authorization) == 1 {
		c.Authorization = authorization[0]
	}
	caller, err := s.authenticate(ctx, c, r.from, r.id)
	if err != nil {
		return ctx, err
	}
	if err := s.limits.allow(caller); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, callerKey, caller), nil
}

func (s *Server) end(ctx context.Context, method string, start time.Time, err error) error {
	err = s.toStatus(ctx, method, err)
	s.handled.WithLabelValues(method, status.Code(err).String()).Inc()
	s.seconds.WithLabelValues(method).Observe(s.now().Sub(start).Seconds())
	return err
}
