package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "2w": 14 * day, "1y": 365 * day, "0": 0, "0d": 0, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute,
		"65535y": 36500 * day, "65535d": 36500 * day,
	} {
		var got span
		if err := got.UnmarshalText([]byte(text)); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %v, %v; want %v", text, time.Duration(got), err, want)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "1.5d", "1d12h", "30", "99999999d", "30 d"} {
		var got span
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %v, want an error", text, time.Duration(got))
		}
	}
}

func TestEnding(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"1d":                        now.Add(24 * time.Hour),
		"2027-01-31":                time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T01:00:00+01:00": time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
	} {
		var got ending
		if err := got.UnmarshalText([]byte(text)); err != nil || !got.from(now).Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got.from(now), err, want)
		}
	}
	var e ending
	if err := e.UnmarshalText([]byte("2027-02-30")); err == nil {
		t.Error("the 30th of February is a day")
	}
}

func TestFullMethod(t *testing.T) {
	const start = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"
	for name, want := range map[string]string{
		"StartWorkflowExecution":                 start,
		"WorkflowService/StartWorkflowExecution": start,
		start:                                    start,
		start[1:]:                                start,
		"OperatorService/ListClusters":           "/temporal.api.operatorservice.v1.OperatorService/ListClusters",
		"grpc.health.v1.Health/Check":            "/grpc.health.v1.Health/Check",
	} {
		if got, err := fullMethod(name); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"", "/", "Nobody/Knows", "WorkflowService/", "a b", "WorkflowService.Start"} {
		if got, err := fullMethod(name); err == nil {
			t.Errorf("%q: %q, want an error", name, got)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine("a\x1b[31mb\nc\td\u202ee\x00é"), "a?[31mb c d?e?é"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSummary(t *testing.T) {
	enforced := func(took time.Duration) *adminv1.Enforcement {
		return &adminv1.Enforcement{AuthorizerId: "sa_a", State: adminv1.Enforcement_STATE_ENFORCED, Took: durationpb.New(took)}
	}
	missing := &adminv1.Enforcement{AuthorizerId: "sa_m", State: adminv1.Enforcement_STATE_MISSING}
	lapsed := &adminv1.Enforcement{AuthorizerId: "sa_l", State: adminv1.Enforcement_STATE_LAPSED,
		MayServeUntil: timestamppb.New(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))}
	for _, c := range []struct {
		name    string
		receipt *adminv1.GetReceiptResponse
		want    string
		status  error
	}{
		{"nobody", &adminv1.GetReceiptResponse{}, "committed; no authorizer is registered for this account's cells, so there is nobody to enforce it", nil},
		{"all", &adminv1.GetReceiptResponse{EnforcedEverywhere: true, Authorizers: []*adminv1.Enforcement{enforced(3 * time.Millisecond), enforced(12340 * time.Microsecond)}},
			"enforced on 2/2 authorizers, slowest 12.3 ms", nil},
		{"some", &adminv1.GetReceiptResponse{Authorizers: []*adminv1.Enforcement{enforced(time.Millisecond), missing, lapsed}},
			"enforced on 1/3 authorizers, slowest 1.0 ms; sa_m has not answered yet, sa_l is not connected and may serve the old state until 2026-11-22T12:00:00Z", exitUnproved},
		{"after a restore", &adminv1.GetReceiptResponse{Authorizers: []*adminv1.Enforcement{{AuthorizerId: "sa_d", State: adminv1.Enforcement_STATE_DIVERGED}}},
			"enforced on 0/1 authorizers; sa_d holds another history since a restore and allows what both allow until a new epoch", exitUnproved},
		{"none", &adminv1.GetReceiptResponse{Authorizers: []*adminv1.Enforcement{missing}}, "enforced on 0/1 authorizers; sa_m has not answered yet", exitUnproved},
	} {
		if diff := cmp.Diff(c.want, summary(c.receipt)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		if got := proved(c.receipt); !errors.Is(got, c.status) {
			t.Errorf("%s: status %v, want %v", c.name, got, c.status)
		}
	}
}

// What cannot be provoked from a service that is well.
func TestErrorsOfCalls(t *testing.T) {
	p := profile{Address: "sallyport.example.com:7443"}
	for _, c := range []struct {
		code codes.Code
		text string
		want string
	}{
		{codes.DeadlineExceeded, "context deadline exceeded", "sallyport.example.com:7443 did not answer in time; try again, or with a longer --timeout"},
		{codes.Canceled, "context canceled", "interrupted; if this was a change, look whether it was made before you repeat it"},
		{codes.Unimplemented, "unknown service", "sallyport.example.com:7443 does not know this request: is it a Sallyport, and of this version? (unknown service)"},
		{codes.Internal, "internal error (request id req_a)", "internal error (request id req_a)"},
		{codes.Unavailable, `name resolver error: produced zero addresses`, "sallyport.example.com:7443 cannot be reached (name resolver error: produced zero addresses); is the address right, and does sallyportd run there?"},
		{codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate has expired or is not yet valid"`,
			"sallyport.example.com:7443 is not trusted: certificate has expired or is not yet valid; log in with --ca and the PEM file of the CA that signed its certificate"},
	} {
		if diff := cmp.Diff(c.want, p.explain(status.Error(c.code, c.text))); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", c.code, diff)
		}
	}
}

// Only what can be better the next time is tried again.
func TestRetrying(t *testing.T) {
	const read, change = "/s/GetThing", "/s/CreateThing"
	handshake := `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`
	for _, c := range []struct {
		method string
		err    error
		want   int
	}{
		{read, nil, 1},
		{change, status.Error(codes.Unavailable, "connection refused"), 4},
		{change, status.Error(codes.Unavailable, handshake), 1},
		{read, status.Error(codes.ResourceExhausted, "too many requests"), 4},
		{change, status.Error(codes.ResourceExhausted, "the user had 50 API keys made within 24 hours"), 1},
		{read, status.Error(codes.PermissionDenied, "no"), 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tried := 0
			err := retrying(t.Context(), c.method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				tried++
				return c.err
			})
			if tried != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s, %v: tried %d times and answered %v, want %d", c.method, c.err, tried, err, c.want)
			}
		})
	}
}

// A file is there whole or not at all, and a failure leaves nothing beside it.
func TestPendingFile(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/key"
	f, err := startFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.discard()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v; want nothing", entries, err)
	}
	if f, err = startFile(path); err != nil {
		t.Fatal(err)
	}
	if err := f.finish("text"); err != nil {
		t.Fatal(err)
	}
	f.discard()
	if text, err := os.ReadFile(path); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}

// No output has the key that is logged in with, also when it is wrong.
func TestMistypedKeyIsNotRepeated(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var stdout, stderr strings.Builder
	const key = "sp_abcde_aaaaaaaaaaaaaaaa_secretsecretsecretsecret"
	err := run(t.Context(), []string{"login", "--address", "127.0.0.1:1", "--api-key", "-"}, func(string) string { return "" }, time.Now, io.LimitReader(strings.NewReader(key), 100), &stdout, &stderr)
	if err == nil {
		t.Fatal("no error")
	}
	if all := stdout.String() + stderr.String() + err.Error(); strings.Contains(all, "secret") {
		t.Errorf("the key is in %q", all)
	}
}
