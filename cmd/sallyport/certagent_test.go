package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

func TestShare(t *testing.T) {
	const life = 24 * time.Hour
	for text, want := range map[string]time.Duration{"1/3": 8 * time.Hour, "1/2": 12 * time.Hour, "8h": 8 * time.Hour, "20h": 12 * time.Hour, "30d": 12 * time.Hour} {
		var got share
		if err := got.UnmarshalText([]byte(text)); err != nil || got.part(life) != want {
			t.Errorf("%s: %v, %v; want %v", text, got.part(life), err, want)
		}
	}
	for _, text := range []string{"", "0", "2/3", "1/0", "0/3", "-1/3", "1/1", "x/3", "-8h", "1/3/5"} {
		var got share
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: %v, want an error", text, got)
		}
	}
}

func TestDueAt(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	third := share{of: 1.0 / 3}
	for _, c := range []struct {
		name   string
		life   time.Duration
		before share
		chance float64
		want   time.Duration
	}{
		{"at two thirds", 24 * time.Hour, third, 0, 16 * time.Hour},
		{"at most a twentieth earlier", 20 * time.Hour, third, 1, 20*time.Hour*2/3 - time.Hour},
		{"fixed", 24 * time.Hour, share{fixed: time.Hour}, 0, 23 * time.Hour},
		{"never in the first half", 2 * time.Hour, share{fixed: 24 * time.Hour}, 0, time.Hour},
		{"never at once", time.Minute, third, 0, time.Minute},
	} {
		leaf := &x509.Certificate{NotBefore: now, NotAfter: now.Add(c.life)}
		if got := dueAt(leaf, c.before, now, c.chance).Sub(now).Round(time.Second); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A time before the end that would be made shorter is refused, and one that is
// too short for open connections.
func TestRenewBefore(t *testing.T) {
	for _, c := range []struct {
		lifetime time.Duration
		before   string
		refused  string
	}{
		{10 * time.Minute, "9m40s", "at most 5m0s"}, {10 * time.Minute, "5m1s", "at most 5m0s"}, {10 * time.Minute, "5m", ""}, {10 * time.Minute, "1/2", ""},
		{24 * time.Hour, "12h", ""}, {24 * time.Hour, "1d", "at most 12h0m0s"},
		{24 * time.Hour, "4m59s", "at least 5m0s"}, {24 * time.Hour, "5m", ""}, {24 * time.Hour, "1/300", "at least 5m0s"}, {24 * time.Hour, "1/280", ""},
		{10 * time.Minute, "3m19s", "at least 3m20s"}, {10 * time.Minute, "1/4", "at least 3m20s"}, {10 * time.Minute, "3m20s", ""}, {10 * time.Minute, "1/3", ""}, {11 * time.Minute, "1/3", ""},
	} {
		command := certAgent{Lifetime: span(c.lifetime)}
		if err := command.RenewBefore.UnmarshalText([]byte(c.before)); err != nil {
			t.Fatal(err)
		}
		err := command.check()
		if (c.refused != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("--renew-before %s of %v: %v, want the refusal %q", c.before, c.lifetime, err, c.refused)
		}
	}
}

func TestPauseAfter(t *testing.T) {
	for _, c := range []struct {
		failures int
		left     time.Duration
		most     time.Duration
	}{
		{0, time.Hour, time.Second}, {1, time.Hour, 2 * time.Second}, {8, time.Hour, 256 * time.Second}, {9, time.Hour, longest}, {1000, 24 * time.Hour, longest},
		{9, 8 * time.Minute, 2 * time.Minute}, {9, time.Second, time.Second}, {9, 0, longest}, {9, -time.Hour, longest},
	} {
		if low, high := pauseAfter(c.failures, c.left, 0), pauseAfter(c.failures, c.left, 1); high != c.most || low != c.most/2 {
			t.Errorf("after %d failures with %v left: %v to %v, want %v to %v", c.failures, c.left, low, high, c.most/2, c.most)
		}
	}
}

func TestReadFilters(t *testing.T) {
	want := []string{"CN=worker-*", "O=Example, OU=dev, SAN=*.example.com"}
	for name, text := range map[string]string{
		"tcld":    `{ "filters": [ { "commonName": "worker-*" }, { "organization": "Example", "organizationalUnit": "dev", "subjectAlternativeName": "*.example.com" } ] }`,
		"list":    `[{"commonName":"worker-*"},{"organization":"Example","organizationalUnit":"dev","subjectAlternativeName":"*.example.com"}]`,
		"fields":  `{"filters":[{"common_name":"worker-*"},{"organization":"Example","organizational_unit":"dev","subject_alternative_name":"*.example.com"}]}`,
		"listing": `{"filters":[{"id":"00","commonName":"worker-*","present":true,"lastSeenTime":"2026-11-22T12:00:00Z"},{"organization":"Example","organizationalUnit":"dev","subjectAlternativeName":"*.example.com"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "filters.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readFilters(path)
		var got []string
		for _, f := range list {
			if f.GetId() != "" || f.GetPresent() || f.GetLastSeenTime() != nil {
				t.Errorf("%s: %v has what only a listing tells", name, f)
			}
			got = append(got, filterText(f))
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
	for name, text := range map[string]string{"unknown field": `{"filters":[{"cn":"x"}]}`, "no JSON": "commonName: x", "empty": ""} {
		path := filepath.Join(t.TempDir(), "filters.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := readFilters(path); err == nil {
			t.Errorf("%s: %v, want an error", name, list)
		}
	}
}

func TestWhatToRevoke(t *testing.T) {
	v := anyVersion(t)
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, append(slices.Clone(v.chain), v.secret...), 0o600); err != nil {
		t.Fatal(err)
	}
	items, _, err := inspect(v.chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuer := strings.Repeat("0a", 32)
	for _, c := range []struct {
		command certRevoke
		want    *adminv1.RevokeRequest // nil: refused
	}{
		{certRevoke{ID: "cert_a", Reason: "lost"}, &adminv1.RevokeRequest{CertificateId: "cert_a", Reason: "lost"}},
		{certRevoke{Cert: file}, &adminv1.RevokeRequest{Fingerprint: items[0].Fingerprint}},
		{certRevoke{Fingerprint: "AA:0B:cc"}, &adminv1.RevokeRequest{Fingerprint: "aa0bcc"}},
		{certRevoke{Serial: "0x00A1:b2", Issuer: issuer}, &adminv1.RevokeRequest{Serial: "a1b2", IssuerId: issuer}},
		{certRevoke{IssuerOnly: true, Issuer: strings.ToUpper(issuer)}, &adminv1.RevokeRequest{IssuerId: issuer}},
		{certRevoke{}, nil},
		{certRevoke{Issuer: issuer}, nil},
		{certRevoke{Serial: "a1"}, nil},
		{certRevoke{IssuerOnly: true}, nil},
		{certRevoke{ID: "cert_a", Issuer: issuer}, nil},
		{certRevoke{ID: "cert_a", Fingerprint: "aa"}, nil},
		{certRevoke{IssuerOnly: true, Issuer: file}, nil}, // no CA
		{certRevoke{IssuerOnly: true, Issuer: "nowhere.pem"}, nil},
	} {
		got, _, err := c.command.request()
		if (err == nil) != (c.want != nil) {
			t.Errorf("%+v: %v, %v", c.command, got, err)
			continue
		}
		if err != nil {
			continue
		}
		got.AsyncOperationId = ""
		if diff := cmp.Diff(c.want.String(), got.String()); diff != "" {
			t.Errorf("%+v: (-want +got)\n%s", c.command, diff)
		}
	}
}

// Whoever names a certificate learns what else was revoked with it.
func TestRevokedBeyond(t *testing.T) {
	leaf := &adminv1.Revocation{IssuerId: "0a", Serial: "a1", Fingerprint: "aa", CertificateId: "cert_a"}
	for _, test := range []struct {
		name    string
		request *adminv1.RevokeRequest
		list    []*adminv1.Revocation
		want    string
	}{
		{"one", &adminv1.RevokeRequest{CertificateId: "cert_a"}, []*adminv1.Revocation{leaf}, ""},
		{"one that expired long ago", &adminv1.RevokeRequest{CertificateId: "cert_a"}, nil, ""},
		{"with renewals", &adminv1.RevokeRequest{Fingerprint: "aa"}, []*adminv1.Revocation{leaf, leaf, leaf}, " and 2 more, renewed from it,"},
		{"another's", &adminv1.RevokeRequest{Fingerprint: "aa"}, []*adminv1.Revocation{{Fingerprint: "aa"}}, ""},
		{"another's by serial", &adminv1.RevokeRequest{IssuerId: "0a", Serial: "a1"}, []*adminv1.Revocation{{IssuerId: "0a", Serial: "a1"}}, ""},
		{"an issuer", &adminv1.RevokeRequest{IssuerId: "0a"}, []*adminv1.Revocation{{IssuerId: "0a"}}, ""},
		{"an own CA", &adminv1.RevokeRequest{Fingerprint: "aa"}, []*adminv1.Revocation{{IssuerId: "0a"}}, ", a CA of the account, with all certificates that it issued,"},
		{"an own CA by serial", &adminv1.RevokeRequest{IssuerId: "0b", Serial: "a1"}, []*adminv1.Revocation{{IssuerId: "0a"}}, ", a CA of the account, with all certificates that it issued,"},
	} {
		if got := beyond(test.request, test.list); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// What cannot be read says so; nothing that was read is repeated.
func TestInspectRefuses(t *testing.T) {
	secret, csr, err := newKey("rsa2048")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "a key": secret, "nonsense": []byte("hello"), "torn": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")} {
		if items, _, err := inspect(data, time.Now()); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	items, problems, err := inspect(csr, time.Now())
	if err != nil || len(problems) > 0 || items[0].Kind != "request" || items[0].Key != "RSA 2048" {
		t.Errorf("a request: %+v, %v, %v", items, problems, err)
	}
}

// Which way a certificate is asked for first.
func TestWays(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	holding := func(made time.Time, life time.Duration, renewable time.Duration) *held {
		h := &held{record: &adminv1.Certificate{CreatedTime: timestamppb.New(made), RenewableUntil: timestamppb.New(now.Add(renewable))}}
		h.pair.Leaf = &x509.Certificate{NotBefore: made.Add(-5 * time.Minute), NotAfter: made.Add(life).Truncate(time.Second)}
		return h
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		held *held
		want []bool // whether with the login
	}{
		{"nothing is held", nil, []bool{true}},
		{"it lives", holding(now.Add(-16*time.Hour), day, 80*day), []bool{false, true}},
		{"it was made in the middle of a second", holding(now.Add(-16*time.Hour+700*time.Millisecond), day, 80*day), []bool{false, true}},
		{"it is over", holding(now.Add(-25*time.Hour), day, 80*day), []bool{true}},
		{"it was made for less than is wanted now", holding(now.Add(-time.Hour), 2*time.Hour, 80*day), []bool{true, false}},
		{"it was made for more", holding(now.Add(-16*time.Hour), 30*day, 80*day), []bool{false, true}},
		{"its chain ends before a successor would", holding(now.Add(-16*time.Hour), day, 12*time.Hour), []bool{true, false}},
	} {
		a := &agent{certAgent: certAgent{Lifetime: span(day)}, session: &session{now: func() time.Time { return now }}, held: c.held}
		if diff := cmp.Diff(c.want, a.ways()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// What ends the agent, and what it goes on after.
func TestHopeless(t *testing.T) {
	refusal := func(code codes.Code, text string) error { return &callError{text, status.Error(code, text)} }
	for _, c := range []struct {
		name          string
		err           error
		holding, none bool
	}{
		{"revoked", &revokedError{"certs", refusal(codes.Unauthenticated, "the client certificate was revoked")}, true, true},
		{"the service is away", refusal(codes.Unavailable, "connection refused"), false, false},
		{"it is slow", refusal(codes.DeadlineExceeded, "context deadline exceeded"), false, false},
		{"the service account is disabled", refusal(codes.FailedPrecondition, "the service account is disabled"), false, false},
		{"the service account is deleted", refusal(codes.NotFound, "there is no such service account in this account"), true, true},
		{"what was asked for is impossible", refusal(codes.InvalidArgument, "lifetime: is too short"), true, true},
		{"the login may not", refusal(codes.PermissionDenied, "cloud.certificate.issue needs"), false, true},
		{"the login has ended", refusal(codes.Unauthenticated, "the API key expired"), false, true},
		{"there is no login", errors.New(`there is no login "default"`), false, true},
		{"the disk is full", fmt.Errorf("keeping the certificate: %w", syscall.ENOSPC), false, true},
		{"both ways, the login's first", errors.Join(refusal(codes.Unauthenticated, "the API key expired"), refusal(codes.FailedPrecondition, "disabled")), false, true},
	} {
		for _, h := range []*held{nil, {}} {
			want := c.holding
			if h == nil {
				want = c.none
			}
			if got := (&agent{held: h}).hopeless(c.err); got != want {
				t.Errorf("%s, a certificate is held: %v: %v, want %v", c.name, h != nil, got, want)
			}
		}
	}
}
