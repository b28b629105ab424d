package apikeys_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const month = 30 * 24 * time.Hour

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

// wantKind fails the test unless err is of the kind and says the words.
func wantKind(t *testing.T, what string, err error, kind sallyport.Kind, says string) {
	t.Helper()
	if sallyport.KindOf(err) != kind || kind != "" && !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v; want %q with %q", what, err, kind, says)
	}
}

func role(r sallyport.AccountRole) directory.Access { return directory.Access{Role: r} }

func robot(t *testing.T, a *authntest.Tenant) sallyport.Principal {
	t.Helper()
	return a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleRead))
}

func params(a *authntest.Tenant, owner sallyport.Principal) apikeys.CreateParams {
	return apikeys.CreateParams{Owner: owner, DisplayName: "worker", Expires: a.Now().Add(month)}
}

// sameAsJournal fails the test unless the account's replicated keys are what
// the table says.
func sameAsJournal(t *testing.T, a *authntest.Tenant) []object.Object {
	t.Helper()
	batch, err := a.Journal.Snapshot(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	var replicated []object.Object
	for _, o := range batch.Objects {
		if o.Kind == object.KindKey {
			replicated = append(replicated, o)
		}
	}
	rebuilt, err := a.Keys.Objects(t.Context(), a.Journal.Pool(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rebuilt, replicated); diff != "" {
		t.Errorf("the keys' objects differ from the table (-table +journal):\n%s", diff)
	}
	return replicated
}

func TestLifeCycle(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, owner := t.Context(), robot(t, a)
	p := params(a, owner)
	p.Description = "of the\norders service"
	p.Limits = sallyport.Limits{ReadOnly: true, Namespaces: []sallyport.NamespaceID{"ns_b", "ns_a", "ns_b"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("2001:db8::/32")}}
	made, done, err := a.Keys.Create(ctx, a.Owner, op("CreateApiKey"), p)
	if err != nil {
		t.Fatal(err)
	}
	want := apikeys.Key{
		Account: a.ID, ID: made.Key.ID, Owner: owner, DisplayName: "worker", Description: "of the\norders service",
		Limits: sallyport.Limits{ReadOnly: true, Namespaces: []sallyport.NamespaceID{"ns_a", "ns_b"},
			Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		Epoch: made.Key.Epoch, CreatedBy: a.Owner.Principal.ID, Created: done.At, Expires: sallyport.Micros(p.Expires), Revision: done.Head.Revision,
	}
	got, err := a.Keys.Get(ctx, a.Owner, made.Key.ID)
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })
	for _, key := range []apikeys.Key{made.Key, got} {
		if diff := cmp.Diff(want, key, same); diff != "" {
			t.Errorf("key (-want +got):\n%s", diff)
		}
	}
	if done.Target != made.Key.ID {
		t.Errorf("target: got %s, want %s", done.Target, made.Key.ID)
	}
	o, err := object.Decode[object.Key](objectOf(t, a, made.Key.ID))
	_, hash, _ := credential.ParseAPIKey(made.Token.Reveal())
	wantObject := object.Key{Owner: owner.ID, Hash: hash, Status: object.Active, Epoch: got.Epoch, Expires: p.Expires.UnixMicro(),
		ReadOnly: true, Namespaces: []string{"ns_a", "ns_b"}, Sources: []string{"192.0.2.0/24", "2001:db8::/32"}}
	if diff := cmp.Diff(wantObject, o); err != nil || diff != "" {
		t.Errorf("object: %v (-want +got):\n%s", err, diff)
	}

	a.With(t, made)
	update := apikeys.UpdateParams{DisplayName: "worker", Description: p.Description, Disabled: true, Owner: owner, Expires: p.Expires.Truncate(time.Second)}
	disabled, done, err := a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), got.ID, got.Revision, update)
	if err != nil || !disabled.Disabled || disabled.State(a.Now()) != apikeys.Disabled || disabled.Revision != done.Head.Revision || !disabled.Modified.Equal(done.At) {
		t.Fatalf("disabling: got %+v, %v", disabled, err)
	}
	_, err = a.Call(t, made)
	wantKind(t, "calling with a disabled key", err, sallyport.Unauthenticated, "is disabled")
	_, _, err = a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), got.ID, 0, update)
	wantKind(t, "disabling again", err, sallyport.Invalid, "nothing to change")
	update.Disabled = false
	_, _, err = a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), got.ID, got.Revision, update)
	wantKind(t, "a stale update", err, sallyport.Conflict, "changed since")
	if _, _, err := a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), got.ID, disabled.Revision, update); err != nil {
		t.Fatal(err)
	}
	a.With(t, made)
	sameAsJournal(t, a)

	_, err = a.Keys.Delete(ctx, a.Owner, op("DeleteApiKey"), got.ID, disabled.Revision)
	wantKind(t, "a stale delete", err, sallyport.Conflict, "changed since")
	if _, err := a.Keys.Delete(ctx, a.Owner, op("DeleteApiKey"), got.ID, 0); err != nil {
		t.Fatal(err)
	}
	_, err = a.Call(t, made)
	wantKind(t, "calling with a deleted key", err, sallyport.Unauthenticated, "no such API key")
	_, err = a.Keys.Get(ctx, a.Owner, got.ID)
	wantKind(t, "reading a deleted key", err, sallyport.NotFound, "no such API key")
	_, err = a.Keys.Delete(ctx, a.Owner, op("DeleteApiKey"), got.ID, 0)
	wantKind(t, "deleting twice", err, sallyport.NotFound, "no such API key")
	sameAsJournal(t, a)
}

func objectOf(t *testing.T, a *authntest.Tenant, id string) []byte {
	t.Helper()
	for _, o := range sameAsJournal(t, a) {
		if o.ID == id {
			return o.Data
		}
	}
	t.Fatalf("there is no object of key %s", id)
	return nil
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, owner := t.Context(), robot(t, a)
	good := a.Key(t, owner, sallyport.Limits{})
	elsewhere := a.Key(t, owner, sallyport.Limits{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	here := a.Key(t, owner, sallyport.Limits{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")}})
	a.With(t, good)
	a.With(t, here)
	if _, err := a.Keys.Authenticate(ctx, pgtest.DB(t), here.Token.Reveal(), netip.MustParseAddr("::ffff:10.1.2.3")); err != nil {
		t.Errorf("an IPv4 address as IPv6: %v", err)
	}
	_, err := a.Call(t, elsewhere)
	wantKind(t, "from another network", err, sallyport.Unauthenticated, "may not be used from the address 192.0.2.1")
	_, err = a.Keys.Authenticate(ctx, pgtest.DB(t), here.Token.Reveal(), netip.Addr{})
	wantKind(t, "from no address", err, sallyport.Unauthenticated, "may not be used from")

	// Whoever does not hold the key must not learn whether it is there.
	wrongSecret, _ := credential.NewAPIKey(a.ID, good.Key.ID)
	unknownID, _ := credential.NewAPIKey(a.ID, sallyport.NewID(""))
	unknownAccount, _ := credential.NewAPIKey("zzzzz", good.Key.ID)
	otherAccount, _ := credential.NewAPIKey(a.Tenant(t).ID, good.Key.ID)
	answers := map[string]bool{}
	for _, token := range []credential.Secret{wrongSecret, unknownID, unknownAccount, otherAccount} {
		_, err := a.Call(t, apikeys.Made{Token: token})
		wantKind(t, "an unknown key", err, sallyport.Unauthenticated, "no such API key")
		answers[err.Error()] = true
	}
	if len(answers) != 1 {
		t.Errorf("unknown keys are told apart: %v", answers)
	}
	// Without a database: a Querier that is not there would be noticed.
	_, err = a.Keys.Authenticate(ctx, nil, good.Token.Reveal()+"x", netip.Addr{})
	wantKind(t, "a mistyped key", err, sallyport.Unauthenticated, "malformed")

	a.Advance(month + time.Hour)
	_, err = a.Call(t, good)
	wantKind(t, "an expired key", err, sallyport.Unauthenticated, "expired at")
	key, err := a.Keys.Get(ctx, a.Operator, good.Key.ID)
	if err != nil || key.State(a.Now()) != apikeys.Expired {
		t.Errorf("state after expiry: got %v, %v", key.State(a.Now()), err)
	}
}

// A disabled service account's keys are refused, and good again when it is enabled.
func TestDisabledServiceAccount(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, sa := t.Context(), a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleDeveloper))
	made := a.Key(t, sa, sallyport.Limits{})
	caller := a.With(t, made)
	set := func(status object.Status) {
		t.Helper()
		if _, _, err := a.Directory.SetServiceAccountStatus(ctx, a.Owner, op("SetServiceAccountStatus"), sa.ID, 0, status); err != nil {
			t.Fatal(err)
		}
	}
	change := func() error {
		_, _, err := a.Keys.Create(ctx, caller, op("CreateApiKey"), params(a, sa))
		return err
	}
	set(object.Disabled)
	_, err := a.Call(t, made)
	wantKind(t, "calling", err, sallyport.Unauthenticated, "is disabled")
	wantKind(t, "a change under way", change(), sallyport.Unauthenticated, "is disabled")
	_, _, err = a.Keys.Create(ctx, a.Owner, op("CreateApiKey"), params(a, sa))
	wantKind(t, "a new key", err, sallyport.Conflict, "disabled")
	set(object.Active)
	_, err = a.Call(t, made)
	wantKind(t, "enabled again", err, "", "")
	wantKind(t, "a change when enabled again", change(), "", "")
	sameAsJournal(t, a)
}

// A certificate makes no key for its own service account: the key would outlive
// the end of its chain of renewals, and its revocation.
func TestKeysOfCertificates(t *testing.T) {
	t.Parallel()
	w := authntest.NewOn(t, pgtest.Clone(t))
	w.CA(t)
	a := w.Tenant(t)
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))
	key := a.Key(t, sa, sallyport.Limits{})
	caller, err := a.CallWith(t, a.Certificate(t, sa))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = a.Keys.Create(t.Context(), caller, op("CreateApiKey"), params(a, sa))
	wantKind(t, "a key for itself", err, sallyport.PermissionDenied, "would outlive it")
	_, _, err = a.Keys.Rotate(t.Context(), caller, op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{})
	wantKind(t, "rotating a key of its own", err, sallyport.PermissionDenied, "would outlive it")
	_, _, err = a.Keys.Create(t.Context(), caller, op("CreateApiKey"), params(a, robot(t, a)))
	wantKind(t, "an admin's key for another", err, "", "")
	_, _, err = a.Keys.Create(t.Context(), a.With(t, key), op("CreateApiKey"), params(a, sa))
	wantKind(t, "by an API key", err, "", "")
}

func TestOwnerEnds(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx := t.Context()
	user := a.User(t, role(sallyport.RoleDeveloper))
	made := a.Key(t, user, sallyport.Limits{})
	a.Key(t, user, sallyport.Limits{})
	if _, _, err := a.Directory.SetUserStatus(ctx, a.Owner, op("SetUserStatus"), user.ID, 0, object.Disabled); err != nil {
		t.Fatal(err)
	}
	_, err := a.Call(t, made)
	wantKind(t, "calling with a key of a disabled user", err, sallyport.Unauthenticated, "is disabled")
	_, _, err = a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), params(a, user))
	wantKind(t, "a key for a disabled user", err, sallyport.Conflict, "disabled")
	_, _, err = a.Keys.Rotate(ctx, a.Operator, op("RotateApiKey"), made.Key.ID, apikeys.RotateParams{})
	wantKind(t, "rotating a key of a disabled user", err, sallyport.Conflict, "disabled")
	if _, _, err := a.Directory.SetUserStatus(ctx, a.Owner, op("SetUserStatus"), user.ID, 0, object.Active); err != nil {
		t.Fatal(err)
	}
	_, err = a.Call(t, made)
	wantKind(t, "calling with a key from before the user was disabled", err, sallyport.Unauthenticated, "ended together with all")
	wantState(t, a, made.Key.ID, apikeys.Ended)
	_, _, err = a.Keys.Rotate(ctx, a.Operator, op("RotateApiKey"), made.Key.ID, apikeys.RotateParams{})
	wantKind(t, "rotating an ended key", err, sallyport.Conflict, "ended")
	a.With(t, a.Key(t, user, sallyport.Limits{}))
	if _, err := a.Directory.DeleteUser(ctx, a.Owner, op("DeleteUser"), user.ID, 0); err != nil {
		t.Fatal(err)
	}
	_, err = a.Call(t, made)
	wantKind(t, "calling with a key of a deleted user", err, sallyport.Unauthenticated, "no such API key")
	_, _, err = a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), params(a, user))
	wantKind(t, "a key for a deleted user", err, sallyport.NotFound, "no such user")
	for _, o := range sameAsJournal(t, a) {
		if o.ID == made.Key.ID {
			t.Error("the deleted user's key is still replicated")
		}
	}

	sa := robot(t, a)
	made = a.Key(t, sa, sallyport.Limits{})
	if _, err := a.Directory.DeleteServiceAccount(ctx, a.Owner, op("DeleteServiceAccount"), sa.ID, 0); err != nil {
		t.Fatal(err)
	}
	_, err = a.Call(t, made)
	wantKind(t, "calling with a key of a deleted service account", err, sallyport.Unauthenticated, "no such API key")
	_, err = a.Keys.Get(ctx, a.Owner, made.Key.ID)
	wantKind(t, "reading a key of a deleted service account", err, sallyport.NotFound, "")
}

func TestReplay(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, owner := t.Context(), robot(t, a)
	create := journal.Operation{ID: "op-1", Type: "CreateApiKey", Request: []byte("worker")}
	made, first, err := a.Keys.Create(ctx, a.Owner, create, params(a, owner))
	if err != nil {
		t.Fatal(err)
	}
	again, done, err := a.Keys.Create(ctx, a.Owner, create, params(a, owner))
	wantKind(t, "a repeated Create", err, sallyport.AlreadyExists, "delete it and create a new one")
	if !strings.Contains(err.Error(), made.Key.ID) || done.Head != first.Head || !done.Replayed || again.Token != "" {
		t.Errorf("a repeated Create: got %+v, %v", done, err)
	}
	_, _, err = a.Keys.Create(ctx, a.Owner, journal.Operation{ID: "op-1", Type: "CreateApiKey", Request: []byte("another")}, params(a, owner))
	wantKind(t, "another request with the same id", err, sallyport.Invalid, "async_operation_id")

	update := journal.Operation{ID: "op-2", Type: "UpdateApiKey"}
	p := apikeys.UpdateParams{DisplayName: "renamed"}
	if _, _, err := a.Keys.Update(ctx, a.Owner, update, made.Key.ID, 0, p); err != nil {
		t.Fatal(err)
	}
	key, done, err := a.Keys.Update(ctx, a.Owner, update, made.Key.ID, 0, p)
	if err != nil || !done.Replayed || key.DisplayName != "renamed" {
		t.Errorf("a repeated Update: got %+v, %+v, %v", key, done, err)
	}
	remove := journal.Operation{ID: "op-3", Type: "DeleteApiKey"}
	for _, replayed := range []bool{false, true} {
		done, err := a.Keys.Delete(ctx, a.Owner, remove, made.Key.ID, 0)
		if err != nil || done.Replayed != replayed || done.Target != made.Key.ID {
			t.Errorf("Delete: got %+v, %v; want replayed %v", done, err, replayed)
		}
	}
	if _, done, err := a.Keys.Update(ctx, a.Owner, update, made.Key.ID, 0, p); err != nil || !done.Replayed {
		t.Errorf("a repeated Update of a key that is gone: got %+v, %v", done, err)
	}
}

// TestReplayRaced sends one Create ten times at once: one answer has a token,
// and it is the token of the one key there is.
func TestReplayRaced(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	owner := robot(t, a)
	made := make([]apikeys.Made, 10)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			var err error
			made[i], _, err = a.Keys.Create(t.Context(), a.Owner, journal.Operation{ID: "once", Type: "CreateApiKey"}, params(a, owner))
			if err != nil && !errors.Is(err, sallyport.AlreadyExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var won []apikeys.Made
	for _, m := range made {
		if m.Token != "" {
			won = append(won, m)
		}
	}
	keys, _, err := a.Keys.List(t.Context(), a.Owner, apikeys.Filter{Owner: owner.ID}, sallyport.Page{})
	if err != nil || len(keys) != 1 || len(won) != 1 || won[0].Key.ID != keys[0].ID {
		t.Fatalf("got %d tokens for %d keys, %v; want one of one", len(won), len(keys), err)
	}
	a.With(t, won[0])
}

func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	a, b := w.Tenant(t), w.Tenant(t)
	ctx, id := t.Context(), a.Owner.Credential.ID
	for _, stranger := range []sallyport.Caller{b.Owner, b.Operator} {
		_, err := w.Keys.Get(ctx, stranger, id)
		wantKind(t, "Get", err, sallyport.NotFound, "no such API key")
		_, _, err = w.Keys.Update(ctx, stranger, op("UpdateApiKey"), id, 0, apikeys.UpdateParams{DisplayName: "x"})
		wantKind(t, "Update", err, sallyport.NotFound, "no such API key")
		_, err = w.Keys.Delete(ctx, stranger, op("DeleteApiKey"), id, 0)
		wantKind(t, "Delete", err, sallyport.NotFound, "no such API key")
		_, _, err = w.Keys.Rotate(ctx, stranger, op("RotateApiKey"), id, apikeys.RotateParams{})
		wantKind(t, "Rotate", err, sallyport.NotFound, "no such API key")
		_, _, err = w.Keys.Create(ctx, stranger, op("CreateApiKey"), params(a, a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))))
		wantKind(t, "Create", err, sallyport.NotFound, "no such service account")
		keys, _, err := w.Keys.List(ctx, stranger, apikeys.Filter{Owner: a.Owner.Principal.ID}, sallyport.Page{})
		if err != nil || len(keys) != 0 {
			t.Errorf("List: got %v, %v", keys, err)
		}
	}
	if _, err := w.Keys.Get(ctx, a.Owner, id); err != nil {
		t.Error(err)
	}
}

// TestSecretsAreNowhere looks for the secrets of keys in all that is kept,
// logged and answered.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx := t.Context()
	user := a.User(t, role(sallyport.RoleDeveloper))
	made := []apikeys.Made{a.Key(t, robot(t, a), sallyport.Limits{}), a.Key(t, user, sallyport.Limits{})}
	rotated, _, err := a.Keys.Rotate(ctx, a.With(t, made[1]), op("RotateApiKey"), made[1].Key.ID, apikeys.RotateParams{DisplayName: "Karlheinz's laptop"})
	if err != nil {
		t.Fatal(err)
	}
	made = append(made, rotated)
	var said []string
	for _, m := range made {
		token := m.Token.Reveal()
		for _, wrong := range []string{token[:len(token)-1], token + "x", strings.Replace(token, string(a.ID), "zzzzz", 1), strings.ToLower(token)} {
			_, err := a.Call(t, apikeys.Made{Token: credential.Secret(wrong)})
			said = append(said, err.Error())
		}
	}
	entries, err := a.Journal.Entries(ctx, a.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		said = append(said, string(e.Body))
	}
	said = append(said, a.Log.String())
	for _, table := range []string{"api_keys", "objects", "entries", "denials", "heads"} {
		var text string
		if err := pgtest.DB(t).QueryRow(ctx, "select coalesce(string_agg(x::text, ' '), '') from "+table+" x where account_id = $1", a.ID).Scan(&text); err != nil {
			t.Fatal(err)
		}
		said = append(said, text)
	}
	for _, m := range made {
		token := m.Token.Reveal()
		secret := token[strings.LastIndex(token, "_")+1:]
		for _, text := range said {
			if strings.Contains(text, secret[:43]) {
				t.Errorf("the secret of %s is in %s", m.Key.ID, text)
			}
		}
	}
	for _, e := range entries {
		if strings.Contains(string(e.Body), "Karlheinz") {
			t.Errorf("a user's text is readable in %s", e.Body)
		}
	}
}
