package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
)

// ownFaults answers InvalidArgument where the transcoder says that it failed
// before any method was reached: it could not make a request of what the
// client sent (an unknown query parameter, bytes that are no UTF-8, no body).
func ownFaults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := notText(r.URL); text != "" {
			writeFault(w, http.StatusBadRequest, fault{codes.InvalidArgument, text})
			return
		}
		replacing := &faultWriter{ResponseWriter: w}
		next.ServeHTTP(replacing, r.WithContext(context.WithValue(r.Context(), reachedKey, &replacing.reached)))
		replacing.end()
	})
}

// fault is an answer as the transcoder writes it; Code is Connect's text or
// gRPC's number.
type fault struct {
	Code    any    `json:"code"`
	Message string `json:"message"`
}

func writeFault(w http.ResponseWriter, status int, f fault) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(f) // fails when the client is gone
}

// notText says where an address holds bytes that are no UTF-8, "" if nowhere.
func notText(u *url.URL) string {
	if !utf8.ValidString(u.Path) {
		return "the path is not valid UTF-8"
	}
	for field, values := range u.Query() {
		if !utf8.ValidString(strings.Join(append(values, field), "")) {
			return fmt.Sprintf("%.80q is not valid UTF-8", field)
		}
	}
	return ""
}

// faultWriter holds back an answer that is to be replaced.
type faultWriter struct {
	http.ResponseWriter
	reached atomic.Bool
	status  int
	held    *bytes.Buffer // nil: nothing is held back
}

// WriteHeader is http.ResponseWriter's.
func (w *faultWriter) WriteHeader(status int) {
	if (status == http.StatusInternalServerError || status == http.StatusServiceUnavailable) && !w.reached.Load() {
		w.status, w.held = status, new(bytes.Buffer)
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (w *faultWriter) Write(p []byte) (int, error) {
	if w.held != nil {
		return w.held.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// Flush is http.Flusher's, which the transcoder requires.
func (w *faultWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok && w.held == nil {
		f.Flush()
	}
}

func (w *faultWriter) end() {
	if w.held == nil {
		return
	}
	var f fault
	if err := json.Unmarshal(w.held.Bytes(), &f); err != nil {
		f.Message = strings.TrimSpace(w.held.String()) // it answers some things in plain text
	}
	status := http.StatusBadRequest
	switch {
	case strings.Contains(f.Message, "request body too large"): // http.MaxBytesReader's
		status, f.Message = http.StatusRequestEntityTooLarge, tooLarge
	case w.status == http.StatusServiceUnavailable: // it is really us
		w.ResponseWriter.WriteHeader(w.status)
		_, _ = w.ResponseWriter.Write(w.held.Bytes()) // fails when the client is gone
		return
	case strings.Contains(f.Message, "received no request message"):
		f.Message = "the request has no body; send a JSON object"
	}
	if _, ok := f.Code.(string); ok { // Connect's
		f.Code = "invalid_argument"
	} else {
		f.Code = codes.InvalidArgument
	}
	w.Header().Del("Content-Length")
	writeFault(w.ResponseWriter, status, f)
}
