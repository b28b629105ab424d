package serve_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/internal/serve"
)

// echo answers with the method that it was asked about.
func echo() service {
	return service{explain: func(_ context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
		return &adminv1.ExplainResponse{Reason: r.GetMethod()}, nil
	}}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, errors.New("not bytes")
	}
	return *b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	if b, ok := v.(*[]byte); ok {
		*b = data
	}
	return nil
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	_, conn := start(t, newServer(t, serve.Config{}), echo(), nil, nil)
	for name, sent := range map[string][]byte{
		"no UTF-8":    {0x1a, 1, 0xff}, // method
		"no protobuf": {0x1a, 200},
	} {
		var got []byte
		err := conn.Invoke(as(t, "u_1"), explain, &sent, &got, grpc.ForceCodec(rawCodec{}))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), "cannot be decoded: ") {
			t.Errorf("%s: got %v, want InvalidArgument", name, err)
		}
	}
}

// TestTextOfStreams: their messages are checked as others are.
func TestTextOfStreams(t *testing.T) {
	t.Parallel()
	_, conn := start(t, newServer(t, serve.Config{}), echo(), nil, nil)
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "\x00"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a stream with a control character: %v, want InvalidArgument", err)
	}
}

// TestGzip is not parallel: it measures memory.
func TestGzip(t *testing.T) {
	client, conn := start(t, newServer(t, serve.Config{}), echo(), nil, nil)
	resp, err := client.Explain(as(t, "u_1"), &adminv1.ExplainRequest{Method: "/m"}, grpc.UseCompressor("gzip"))
	if err != nil || resp.GetReason() != "/m" {
		t.Errorf("a compressed request: %v, %v", resp, err)
	}
	// 256 MB that are 256 KB on the wire: refused before they are in memory.
	bomb := bytes.Repeat([]byte("m"), 256<<20)
	var before, after runtime.MemStats
	var got []byte
	runtime.ReadMemStats(&before)
	err = conn.Invoke(as(t, "u_1"), explain, &bomb, &got, grpc.ForceCodec(rawCodec{}), grpc.UseCompressor("gzip"))
	runtime.ReadMemStats(&after)
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a bomb: got %v, want ResourceExhausted", err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("a bomb took %d MB of memory", grown>>20)
	}
}

func TestGzipOverHTTP(t *testing.T) {
	t.Parallel()
	s := newServer(t, serve.Config{})
	server, err := s.GRPC(nil, func(r grpc.ServiceRegistrar) { adminv1.RegisterAdminServiceServer(r, echo()) })
	if err != nil {
		t.Fatal(err)
	}
	handler, err := s.Handler(server, &annotations.HttpRule{
		Selector: "sallyport.admin.v1.AdminService.Explain", Pattern: &annotations.HttpRule_Post{Post: "/sallyport/v1/explain"}, Body: "*"})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	for _, tt := range []struct {
		name     string
		body     []byte
		status   int
		contains string
	}{
		{"compressed", pack(t, `{"method":"/m"}`), 200, `"/m"`},
		{"torn", pack(t, `{"method":"/m"}`)[:20], 400, `"code":3`},
		{"not compressed", []byte(`{"method":"/m"}`), 400, "not gzip"},
		{"a bomb", pack(t, strings.Repeat(" ", 64<<20)+`{"method":"/m"}`), 413, "larger than 2 MB"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL+"/sallyport/v1/explain", bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set("Authorization", "Bearer u_1")
		resp, err := web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.contains) {
			t.Errorf("%s: got %d %s, want %d with %q", tt.name, resp.StatusCode, body, tt.status, tt.contains)
		}
	}
}

func pack(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
