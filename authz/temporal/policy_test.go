package temporal_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

// policy is one account of a replica that a test changes by hand.
type policy struct {
	t       testing.TB
	replica *replica.Replica
	account sallyport.AccountID

	mu       sync.Mutex
	epoch    int64
	revision int64
	objects  map[object.Kind]map[string][]byte
}

func openReplica(t testing.TB) *replica.Replica {
	t.Helper()
	r, err := replica.Open(replica.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newPolicy(t testing.TB, r *replica.Replica, account sallyport.AccountID) *policy {
	p := &policy{t: t, replica: r, account: account, epoch: 1, objects: map[object.Kind]map[string][]byte{}}
	put(p, object.KindAccount, string(account), object.Account{Status: object.Active})
	return p
}

func put[V object.Value](p *policy, kind object.Kind, id string, v V) {
	p.t.Helper()
	p.change(func() {
		if p.objects[kind] == nil {
			p.objects[kind] = map[string][]byte{}
		}
		p.objects[kind][id] = object.Encode(v)
	})
}

func (p *policy) remove(kind object.Kind, id string) {
	p.t.Helper()
	p.change(func() { delete(p.objects[kind], id) })
}

// change applies f and gives the replica the account as it is then.
func (p *policy) change(f func()) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.revision++
	b := replica.Batch{Account: p.account, Head: sallyport.Head{Epoch: p.epoch, Revision: p.revision}}
	for kind, objects := range p.objects {
		for id, data := range maps.All(objects) {
			b.Objects = append(b.Objects, object.Object{Kind: kind, ID: id, Data: data})
			b.Digest.Toggle(kind, id, data, true)
		}
	}
	if err := p.replica.Load(b); err != nil {
		p.t.Fatal(err)
	}
}

// namespace makes a namespace and gives its full name.
func (p *policy) namespace(id, name string, retentionDays int32) string {
	p.t.Helper()
	put(p, object.KindNamespace, id, object.Namespace{
		Name: name, Project: "p_default", Cell: "local", RetentionDays: retentionDays, Auth: object.NamespaceAuth{APIKey: true},
	})
	return name + "." + string(p.account)
}

// worker makes a service account with a grant on a namespace.
func (p *policy) worker(id, namespace string, permission sallyport.Permission) {
	p.t.Helper()
	put(p, object.KindPrincipal, id, object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active})
	put(p, object.KindGrant, object.GrantID(id, sallyport.ScopeNamespace, namespace), object.Grant{
		Subject: id, Scope: sallyport.ScopeNamespace, Target: namespace, Role: permission.String(),
	})
}

// owner makes a user who may do everything in the account.
func (p *policy) owner(id string) {
	p.t.Helper()
	put(p, object.KindPrincipal, id, object.Principal{Kind: sallyport.User, Status: object.Active})
	put(p, object.KindGrant, object.GrantID(id, sallyport.ScopeAccount, string(p.account)), object.Grant{
		Subject: id, Scope: sallyport.ScopeAccount, Target: string(p.account), Role: sallyport.RoleOwner.String(),
	})
}

// key makes a key of a principal, as with changes it, and gives the token.
func (p *policy) key(owner string, with func(*object.Key)) string {
	p.t.Helper()
	id := sallyport.NewID("")
	token, hash := credential.NewAPIKey(p.account, id)
	k := object.Key{Owner: owner, Hash: hash, Status: object.Active, Expires: time.Now().Add(time.Hour).UnixMicro()}
	if with != nil {
		with(&k)
	}
	put(p, object.KindKey, id, k)
	return token.Reveal()
}

// end removes the key.
func (p *policy) end(token string) {
	p.t.Helper()
	key, _, err := credential.ParseAPIKey(token)
	if err != nil {
		p.t.Fatal(err)
	}
	p.remove(object.KindKey, key.ID)
}

// mistyped is the token with one character of its secret replaced.
func mistyped(token string) string {
	last := token[strings.LastIndexByte(token, '_')+1:]
	swapped := "b"
	if last[0] == 'b' {
		swapped = "c"
	}
	return strings.TrimSuffix(token, last) + swapped + last[1:]
}
