package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// ownFaults answers InvalidArgument where the transcoder says that it failed
// before any method was reached: it could not make a request of what the
// client sent (an unknown query parameter, bytes that are no UTF-8, no body).
func ownFaults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		replacing := &faultWriter{ResponseWriter: w}
		next.ServeHTTP(replacing, r.WithContext(context.WithValue(r.Context(), reachedKey, &replacing.reached)))
		replacing.end()
	})
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
	var fault struct {
		Code    any    `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(w.held.Bytes(), &fault); err != nil {
		fault.Message = strings.TrimSpace(w.held.String()) // it answers some things in plain text
	}
	status := http.StatusBadRequest
	switch {
	case strings.Contains(fault.Message, "request body too large"): // http.MaxBytesReader's
		status, fault.Message = http.StatusRequestEntityTooLarge, tooLarge
	case w.status == http.StatusServiceUnavailable: // it is really us
		w.ResponseWriter.WriteHeader(w.status)
		_, _ = w.ResponseWriter.Write(w.held.Bytes()) // fails when the client is gone
		return
	case strings.Contains(fault.Message, "received no request message"):
		fault.Message = "the request has no body; send a JSON object"
	}
	if _, ok := fault.Code.(string); ok { // Connect's
		fault.Code = "invalid_argument"
	} else {
		fault.Code = codes.InvalidArgument
	}
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "application/json")
	w.ResponseWriter.WriteHeader(status)
	_ = json.NewEncoder(w.ResponseWriter).Encode(fault) // fails when the client is gone
}
