package serve

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxBody bounds an HTTP request's body. JSON is larger than what it encodes.
const maxBody = 2 << 20

// Handler serves the services of a gRPC server (made by GRPC, not listening
// itself) as HTTP/JSON, gRPC-Web and Connect, and beside them /healthz (the
// process lives) and /readyz (it can serve). rules give REST paths to methods
// that have none in their descriptors.
func (s *Server) Handler(server *grpc.Server, rules ...*annotations.HttpRule) (http.Handler, error) {
	transcoder, err := vanguardgrpc.NewTranscoder(server,
		vanguard.WithRules(rules...),
		vanguard.WithCodec(func(r vanguard.TypeResolver) vanguard.Codec {
			return jsonCodec{vanguard.JSONCodec{
				MarshalOptions:   protojson.MarshalOptions{Resolver: r, EmitUnpopulated: true},
				UnmarshalOptions: protojson.UnmarshalOptions{Resolver: r}, // unknown fields are errors: a typo must not widen access
			}}
		}),
		vanguard.WithDefaultServiceOptions(
			vanguard.WithTargetCodecs(vanguard.CodecProto),
			vanguard.WithTargetProtocols(vanguard.ProtocolGRPC),
			vanguard.WithMaxMessageBufferBytes(maxBody),
			vanguard.WithMaxGetURLBytes(8<<10),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("serving gRPC as HTTP: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("/", limitBody(transcoder))
	return fromProxy(s.proxies, mux), nil
}

// limitBody refuses what says that it is too large. What does not say is cut
// off by the transcoder's and the gRPC server's own limits.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBody {
			http.Error(w, fmt.Sprintf("the body is larger than %d bytes", maxBody), http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// jsonCodec says of malformed JSON that it is the client's fault.
type jsonCodec struct{ vanguard.JSONCodec }

func (c jsonCodec) Unmarshal(data []byte, m proto.Message) error {
	return invalid(c.JSONCodec.Unmarshal(data, m))
}

func (c jsonCodec) UnmarshalField(data []byte, m proto.Message, field protoreflect.FieldDescriptor) error {
	return invalid(c.JSONCodec.UnmarshalField(data, m, field))
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return connect.NewError(connect.CodeInvalidArgument, err)
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		http.Error(w, "not ready: "+Message(err, ""), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// NewHTTP is an http.Server with limits on time and sizes; HTTP/1 and HTTP/2,
// the latter also without TLS.
func NewHTTP(handler http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	if log == nil {
		log = slog.Default()
	}
	return &http.Server{
		Handler: handler, Protocols: protocols,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
