package serve

import (
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-iam/sallyport"
)

// maxBody bounds an HTTP request's body, also when it is unpacked, and maxReply
// an answer: JSON is several times larger than what it encodes.
const (
	maxBody  = 2 << 20
	maxReply = 8 << 20
)

const tooLarge = "the body is larger than 2 MB"

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
			vanguard.WithMaxMessageBufferBytes(maxReply),
			vanguard.WithMaxGetURLBytes(8<<10),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("serving gRPC as HTTP: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("/", ownFaults(unpack(transcoder)))
	return fromProxy(s.proxies, mux), nil
}

// unpack takes bodies as they are or as gzip, up to maxBody. It unpacks them
// itself: the transcoder would allow as much as it does for answers.
func unpack(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBody {
			http.Error(w, tooLarge, http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
			unpacked, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, "the body is not gzip, as its Content-Encoding says", http.StatusBadRequest)
				return
			}
			r.Body = http.MaxBytesReader(w, unpacked, maxBody)
			r.ContentLength = -1
			r.Header.Del("Content-Encoding")
			r.Header.Del("Content-Length")
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
		text := "the database does not answer"
		if sallyport.KindOf(err) != "" {
			text = Message(err, "")
		}
		http.Error(w, "not ready: "+text, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
	for _, problem := range s.problems(ctx) {
		fmt.Fprintln(w, problem)
	}
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
