package token_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

// states are the keys by state, which the replicated objects must agree with.
func (w *world) states(t testing.TB) map[token.KeyState][]string {
	t.Helper()
	keys, err := w.issuer.Keys(t.Context())
	check(t, err)
	states := map[token.KeyState][]string{}
	for _, k := range keys {
		states[k.State] = append(states[k.State], k.ID)
		if k.Problem != "" {
			t.Errorf("the key %s: %s", k.ID, k.Problem)
		}
	}
	w.sameAsJournal(t, sallyport.SystemAccount)
	return states
}

// sameAsJournal fails the test unless what is replicated is what the tables say.
func (w *world) sameAsJournal(t testing.TB, account sallyport.AccountID) []object.Object {
	t.Helper()
	batch, err := w.Journal.Snapshot(t.Context(), account)
	check(t, err)
	rebuilt, err := w.issuer.Objects(t.Context(), w.Journal.Pool(), account)
	check(t, err)
	sorted := func(list []object.Object) []object.Object {
		list = slices.DeleteFunc(slices.Clone(list), func(o object.Object) bool {
			return o.Kind != object.KindTokenKey && o.Kind != object.KindFederationRule
		})
		slices.SortFunc(list, func(a, b object.Object) int { return strings.Compare(a.ID, b.ID) })
		return list
	}
	if diff := cmp.Diff(sorted(rebuilt), sorted(batch.Objects)); diff != "" {
		t.Errorf("the objects differ from the tables (-table +journal):\n%s", diff)
	}
	return rebuilt
}

// Through rotations every token is good as long as it says, and the key set has
// its key; what will sign is published long before.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	before := w.states(t)
	if len(before[token.KeyActive]) != 1 || len(before[token.KeyNext]) != 1 || len(before) != 2 {
		t.Fatalf("got %v", before)
	}
	check(t, w.issuer.KeepKeys(t.Context(), true))
	if diff := cmp.Diff(before, w.states(t)); diff != "" {
		t.Errorf("what was not due was done:\n%s", diff)
	}
	w.Advance(29 * 24 * time.Hour)
	check(t, w.issuer.KeepKeys(t.Context(), false))
	if diff := cmp.Diff(before, w.states(t)); diff != "" {
		t.Errorf("after 29 days:\n%s", diff)
	}
	w.Advance(23*time.Hour + 30*time.Minute)
	old := a.Key(t, made.Key.Owner, sallyport.Limits{})
	last := w.credentials(t, old, "expires_in", "3600")
	w.Advance(31 * time.Minute)
	check(t, w.issuer.KeepKeys(t.Context(), false))
	after := w.states(t)
	if after[token.KeyActive][0] != before[token.KeyNext][0] || !slices.Equal(after[token.KeyRetiring], before[token.KeyActive]) || len(after[token.KeyNext]) != 1 {
		t.Errorf("after 30 days: got %v, before %v", after, before)
	}
	_, err := w.authenticate(t, last.Token)
	check(t, err)
	w.verifiedElsewhere(t, last.Token)
	header, _ := w.verifiedElsewhere(t, w.credentials(t, old).Token)
	if header.KeyID != after[token.KeyActive][0] {
		t.Errorf("it is signed with %s, not the active key", header.KeyID)
	}
	w.Advance(65 * time.Minute)
	check(t, w.issuer.KeepKeys(t.Context(), false))
	if got := w.states(t); len(got[token.KeyRetiring]) != 1 {
		t.Errorf("a retiring key went before every clock is past its last token: %v", got)
	}
	w.Advance(6 * time.Minute)
	check(t, w.issuer.KeepKeys(t.Context(), false))
	if got := w.states(t); len(got[token.KeyRetiring]) != 0 {
		t.Errorf("a key is retiring for ever: %v", got)
	}
	var sealed int
	check(t, w.Journal.Pool().QueryRow(t.Context(), `select count(*) from token_keys where sealed_key is not null`).Scan(&sealed))
	if sealed != 2 {
		t.Errorf("%d private keys are kept, want those of the active and the next one", sealed)
	}
}

// Emergency: one entry, and what the key signed is dead; what comes next is good.
func TestEmergencyRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	stolen := w.credentials(t, made)
	caller, err := w.authenticate(t, stolen.Token)
	check(t, err)
	before := w.states(t)
	kid := before[token.KeyActive][0]
	if _, _, err := w.issuer.RevokeKey(t.Context(), a.Owner, kid); !errors.Is(err, sallyport.PermissionDenied) {
		t.Errorf("by an owner: got %v", err)
	}
	key, done, err := w.issuer.RevokeKey(t.Context(), operator, kid)
	check(t, err)
	if key.State != token.KeyRevoked || done.Account != sallyport.SystemAccount || done.Target != kid {
		t.Errorf("got %+v, %+v", key, done)
	}
	_, err = w.authenticate(t, stolen.Token)
	wantKind(t, "a token of it", err, sallyport.Unauthenticated, "revoked")
	_, err = w.issuer.Reauthenticate(t.Context(), w.Journal.Pool(), caller)
	wantKind(t, "its caller", err, sallyport.Unauthenticated, "revoked")
	after := w.states(t)
	if after[token.KeyActive][0] != before[token.KeyNext][0] || len(after[token.KeyNext]) != 1 || !slices.Equal(after[token.KeyRevoked], []string{kid}) {
		t.Errorf("got %v, before %v", after, before)
	}
	fresh := w.credentials(t, made)
	_, err = w.authenticate(t, fresh.Token)
	check(t, err)
	w.Advance(2 * time.Second)
	var set jose.JSONWebKeySet
	check(t, json.Unmarshal(w.get(t, "/.well-known/jwks.json"), &set))
	if len(set.Key(kid)) != 0 {
		t.Error("the revoked key is published")
	}
	_, _, err = w.issuer.RevokeKey(t.Context(), operator, kid)
	wantKind(t, "again", err, sallyport.Conflict, "was revoked at")
	_, _, err = w.issuer.RevokeKey(t.Context(), operator, "nothing")
	wantKind(t, "no key", err, sallyport.NotFound, "token-key list")
	// The next one, and one that is retiring, can be revoked too.
	_, _, err = w.issuer.RevokeKey(t.Context(), operator, after[token.KeyNext][0])
	check(t, err)
	rotated, _, err := w.issuer.RotateKey(t.Context(), operator)
	check(t, err)
	_, err = w.authenticate(t, fresh.Token)
	check(t, err)
	_, _, err = w.issuer.RevokeKey(t.Context(), operator, after[token.KeyActive][0])
	check(t, err)
	_, err = w.authenticate(t, fresh.Token)
	wantKind(t, "a token of a retiring key", err, sallyport.Unauthenticated, "revoked")
	if got := w.states(t); got[token.KeyActive][0] != rotated.ID || len(got[token.KeyNext]) != 1 || len(got[token.KeyRevoked]) != 3 {
		t.Errorf("got %v", got)
	}
	w.Advance(31 * 24 * time.Hour)
	check(t, w.issuer.KeepKeys(t.Context(), false))
	if got := w.states(t); len(got[token.KeyRevoked]) != 0 {
		t.Errorf("a month later: got %v", got)
	}
}

// Other audiences take a new key; tokens of the one before are good until they expire.
func TestReconfigured(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	old := w.credentials(t, made, "audience", "other-name")
	before := w.states(t)
	c := w.config
	c.Audiences = []string{"https://new.example.com", platform}
	w.issuer = newIssuer(t, c)
	w.handler = w.issuer.Handler()
	check(t, w.issuer.KeepKeys(t.Context(), false))
	if diff := cmp.Diff(before, w.states(t)); diff != "" {
		t.Errorf("not asked to:\n%s", diff)
	}
	check(t, w.issuer.KeepKeys(t.Context(), true))
	if after := w.states(t); after[token.KeyActive][0] != before[token.KeyNext][0] {
		t.Errorf("got %v", after)
	}
	_, err := w.authenticate(t, old.Token)
	check(t, err)
	_, claims := w.verifiedElsewhere(t, w.credentials(t, made).Token)
	if diff := cmp.Diff([]any{"https://new.example.com"}, claims["aud"]); diff != "" {
		t.Errorf("aud (-want +got):\n%s", diff)
	}
	if got := w.credentials(t, made, "audience", "other-name"); got.Error != "invalid_target" {
		t.Errorf("the old audience: got %+v", got)
	}
}

// A copy of the service with another operator's key does not touch the keys; when
// that key is lost, revoking them brings new ones.
func TestAnotherOperatorKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	before := w.states(t)
	file := filepath.Join(t.TempDir(), "other")
	check(t, vault.Create(file))
	wrong := newIssuer(t, w.newConfig(t, file))
	w.Advance(31 * 24 * time.Hour)
	if err := wrong.KeepKeys(t.Context(), true); sallyport.KindOf(err) != sallyport.Conflict {
		t.Errorf("it kept keys: %v", err)
	}
	_, _, err := wrong.RotateKey(t.Context(), operator)
	wantKind(t, "a rotation", err, sallyport.Conflict, "does not open")
	if diff := cmp.Diff(before, w.states(t)); diff != "" {
		t.Errorf("the keys changed:\n%s", diff)
	}
	w.issuer, w.handler = wrong, wrong.Handler()
	made = a.Key(t, made.Key.Owner, sallyport.Limits{})
	if got := w.credentials(t, made); got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" {
		t.Errorf("got %+v", got)
	}
	keys, err := wrong.Keys(t.Context())
	check(t, err)
	for _, k := range keys {
		if k.Problem == "" {
			t.Errorf("the key %s has no problem", k.ID)
		}
	}
	for _, kid := range []string{before[token.KeyActive][0], before[token.KeyNext][0]} {
		_, _, err := wrong.RevokeKey(t.Context(), operator, kid)
		check(t, err)
	}
	if got := w.credentials(t, made); got.status != http.StatusOK {
		t.Errorf("with new keys: got %+v", got)
	}
	w.states(t)
}

// Many copies of the service find that the key is due: one rotates.
func TestRacedRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Advance(31 * 24 * time.Hour)
	head, err := w.Journal.Head(t.Context(), sallyport.SystemAccount)
	check(t, err)
	var wg sync.WaitGroup
	for range 8 {
		copied := newIssuer(t, w.config)
		wg.Go(func() {
			if err := copied.KeepKeys(context.WithoutCancel(t.Context()), true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	after, err := w.Journal.Head(t.Context(), sallyport.SystemAccount)
	check(t, err)
	if got := w.states(t); after.Revision != head.Revision+1 || len(got[token.KeyActive]) != 1 || len(got[token.KeyNext]) != 1 || len(got[token.KeyRetiring]) != 1 {
		t.Errorf("%d entries, %v", after.Revision-head.Revision, got)
	}
}

// Run makes the keys by itself.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.config
	c.Journal = newWorldOnEmpty(t).Journal
	i := newIssuer(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		keys, err := i.Keys(t.Context())
		check(t, err)
		if len(keys) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there are no keys")
		}
	}
	cancel()
	check(t, <-done)
}

func newWorldOnEmpty(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	_, err := w.Journal.Pool().Exec(t.Context(), `delete from token_keys`)
	check(t, err)
	return w
}

const (
	crashURL = "SALLYPORT_TEST_TOKEN_URL"
	crashKey = "SALLYPORT_TEST_TOKEN_KEY"
)

// TestCrashRotator is the process that is killed: it rotates and revokes without end.
func TestCrashRotator(t *testing.T) {
	dbURL := os.Getenv(crashURL)
	if dbURL == "" {
		t.Skip("runs as a child of TestKillInRotation only")
	}
	pool, err := pg.Open(t.Context(), dbURL)
	check(t, err)
	w := &world{World: newAuthnWorld(t, pool)}
	c := w.newConfig(t, os.Getenv(crashKey))
	c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	i := newIssuer(t, c)
	os.Stdout.WriteString("ready\n")
	for {
		key, _, err := i.RotateKey(t.Context(), operator)
		check(t, err)
		_, _, err = i.RevokeKey(t.Context(), operator, key.ID)
		check(t, err)
	}
}

// However a rotation is killed: there is one active key, which opens, and one next.
func TestKillInRotation(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	w := &world{World: newAuthnWorld(t, pool)}
	check(t, w.Directory.EnsureSystem(t.Context()))
	keyFile := filepath.Join(t.TempDir(), "key")
	check(t, vault.Create(keyFile))
	w.config = w.newConfig(t, keyFile)
	w.issuer = newIssuer(t, w.config)
	w.handler = w.issuer.Handler()
	check(t, w.issuer.KeepKeys(t.Context(), true))
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	for n := range 6 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashRotator$")
		child.Env = append(os.Environ(), crashURL+"="+pool.Config().ConnString(), crashKey+"="+keyFile)
		out, err := child.StdoutPipe()
		check(t, err)
		check(t, child.Start())
		if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(3+7*n) * time.Millisecond)
		check(t, child.Process.Kill())
		if err := child.Wait(); err == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child was not killed: %v", err)
		}
		got := w.states(t)
		if len(got[token.KeyActive]) != 1 || len(got[token.KeyNext]) != 1 {
			t.Errorf("after kill %d: %v", n, got)
		}
		if got := w.credentials(t, made); got.status != http.StatusOK {
			t.Errorf("after kill %d: got %+v", n, got)
		}
	}
	if _, err := w.Journal.VerifyAccount(t.Context(), sallyport.SystemAccount); err != nil {
		t.Error(err)
	}
}
