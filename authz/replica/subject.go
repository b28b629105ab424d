package replica

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
)

// A subject is all that is known under one id: a principal with its keys and
// its memberships, or a group, and the grants to it. Objects may arrive in any
// order, so there are also subjects of which only a grant or a key is known:
// they give nothing.
//
// Subjects are kept packed in a string: a quarter of the memory, nothing for
// the garbage collector to follow, and what Decide takes out of it (ids) are
// substrings, which costs no allocation. Layout, with integers as uvarints and
// strings preceded by their length:
//
//	flags id epoch len(keys) keys… count groups… count grants…
//	key:   flags id hash[32] epoch expires[8] [retires[8]] [count namespaces…] [count sources…]
//	grant: scope<<5 | role, target
type subject struct {
	id        string
	principal *object.Principal // nil: there is none
	group     bool
	keys      []key
	groups    []string // ids of groups that the user is a member of
	grants    []grant
}

type key struct {
	id     string
	object object.Key
}

// grant is an object.Grant without its subject.
type grant struct {
	code   byte // scope<<5 | role
	target string
}

// Bits of a subject's flags. The low two are the principal's status.
const (
	subjectIsUser = 1 << (iota + 2)
	subjectIsServiceAccount
	subjectIsGroup
	statusMask = 3
)

// Bits of a key's flags. The low two are its status.
const (
	keyReadOnly = 1 << (iota + 2)
	keyRetires
	keyNamespaces
	keySources
)

// Codes of statuses; zero is none, so that what is unknown gives nothing.
const (
	statusActive = iota + 1
	statusDisabled
	statusSuspended
)

var statuses = [...]object.Status{"", object.Active, object.Disabled, object.Suspended}

func statusCode(s object.Status) byte { return byte(max(slices.Index(statuses[:], s), 0)) }

// Codes of scopes, in the upper three bits of a grant's code; the lower five
// are the role's place in the scope's own list.
const (
	scopeAccount = iota
	scopeProject
	scopeNamespace
	scopeCell
)

var (
	scopes       = [...]sallyport.Scope{sallyport.ScopeAccount, sallyport.ScopeProject, sallyport.ScopeNamespace, sallyport.ScopeCell}
	accountRoles = [...]sallyport.AccountRole{sallyport.RoleOwner, sallyport.RoleAdmin, sallyport.RoleDeveloper,
		sallyport.RoleFinanceAdmin, sallyport.RoleRead, sallyport.RoleMetricsRead}
	projectRoles = [...]sallyport.ProjectRole{sallyport.ProjectAdmin, sallyport.ProjectWrite, sallyport.ProjectRead, sallyport.ProjectList,
		sallyport.ProjectContribute, sallyport.ProjectMember, sallyport.ProjectDeveloper}
)

const cellRole = "authorizer"

// grantCode is the scope and the role in one byte; ok is false for those that
// this version does not know.
func grantCode(scope sallyport.Scope, role string) (code byte, ok bool) {
	s, r := slices.Index(scopes[:], scope), -1
	switch s {
	case scopeAccount:
		parsed, _ := sallyport.ParseAccountRole(role)
		r = slices.Index(accountRoles[:], parsed)
	case scopeProject:
		parsed, _ := sallyport.ParseProjectRole(role)
		r = slices.Index(projectRoles[:], parsed)
	case scopeNamespace:
		if parsed, _ := sallyport.ParsePermission(role); parsed != sallyport.NoPermission {
			r = int(parsed)
		}
	case scopeCell:
		if role == cellRole {
			r = 0
		}
	}
	return byte(s<<5 | r), s >= 0 && r >= 0
}

func (g grant) role() string {
	switch r := g.code & 31; g.code >> 5 {
	case scopeAccount:
		return accountRoles[r].String()
	case scopeProject:
		return projectRoles[r].String()
	case scopeNamespace:
		return sallyport.Permission(r).String()
	}
	return cellRole
}

// permission is what the grant gives in a namespace.
func (g grant) permission(account sallyport.AccountID, ns *namespace) sallyport.Permission {
	switch r := g.code & 31; g.code >> 5 {
	case scopeAccount:
		if g.target == string(account) {
			return sallyport.Access{Roles: sallyport.Roles(accountRoles[r])}.Permission("", "")
		}
	case scopeProject:
		if g.target == ns.object.Project {
			return sallyport.ProjectRoles(projectRoles[r]).Permission()
		}
	case scopeNamespace:
		if g.target == ns.id {
			return sallyport.Permission(r)
		}
	}
	return sallyport.NoPermission
}

func (g grant) object(subject string) object.Grant {
	return object.Grant{Subject: subject, Scope: scopes[g.code>>5], Target: g.target, Role: g.role()}
}

func (s *subject) empty() bool {
	return s.principal == nil && !s.group && len(s.keys)+len(s.groups)+len(s.grants) == 0
}

func (s *subject) pack() string {
	var flags byte
	var epoch int64
	if p := s.principal; p != nil {
		flags, epoch = statusCode(p.Status), p.Epoch
		switch p.Kind {
		case sallyport.User:
			flags |= subjectIsUser
		case sallyport.ServiceAccount:
			flags |= subjectIsServiceAccount
		}
	}
	if s.group {
		flags |= subjectIsGroup
	}
	b := append(make([]byte, 0, 256), flags)
	b = appendString(b, s.id)
	b = binary.AppendUvarint(b, uint64(epoch))
	var keys []byte
	for _, k := range s.keys {
		keys = k.append(keys)
	}
	b = binary.AppendUvarint(b, uint64(len(keys)))
	b = append(b, keys...)
	b = appendStrings(b, s.groups)
	b = binary.AppendUvarint(b, uint64(len(s.grants)))
	for _, g := range s.grants {
		b = appendString(append(b, g.code), g.target)
	}
	return string(b)
}

func (k *key) append(b []byte) []byte {
	o := &k.object
	flags := statusCode(o.Status)
	for _, f := range []struct {
		set bool
		bit byte
	}{{o.ReadOnly, keyReadOnly}, {o.Retires != 0, keyRetires}, {o.Namespaces != nil, keyNamespaces}, {o.Sources != nil, keySources}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = appendString(append(b, flags), k.id)
	b = append(b, o.Hash[:]...)
	b = binary.AppendUvarint(b, uint64(o.Epoch))
	b = binary.LittleEndian.AppendUint64(b, uint64(o.Expires))
	if o.Retires != 0 {
		b = binary.LittleEndian.AppendUint64(b, uint64(o.Retires))
	}
	if o.Namespaces != nil {
		b = appendStrings(b, o.Namespaces)
	}
	if o.Sources != nil {
		b = appendStrings(b, o.Sources)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// A reader takes a packed subject apart. Its input was packed by this process.
type reader struct {
	data string
}

func (r *reader) byte() byte {
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) uint() uint64 {
	if b := r.data[0]; b < 0x80 { // nearly always, and this part is inlined
		r.data = r.data[1:]
		return uint64(b)
	}
	return r.longUint()
}

func (r *reader) longUint() uint64 {
	var v uint64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// time reads 8 bytes, little-endian.
func (r *reader) time() int64 {
	b := r.data[:8]
	r.data = r.data[8:]
	return int64(uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56)
}

func (r *reader) string() string { return r.bytes(int(r.uint())) }

func (r *reader) bytes(n int) string {
	s := r.data[:n]
	r.data = r.data[n:]
	return s
}

func (r *reader) strings() []string {
	list := make([]string, r.uint())
	for i := range list {
		list[i] = r.string()
	}
	return list
}

// packedID is the id of a packed subject.
func packedID(packed string) string {
	r := reader{packed[1:]}
	return r.string()
}

// packedKey is a key within a packed subject.
type packedKey struct {
	flags      byte
	id         string
	hash       string // 32 bytes
	epoch      int64
	expires    int64 // microseconds since 1970 UTC
	retires    int64
	namespaces reader // count and ids
	sources    reader // count and prefixes
}

// key reads the next key into k.
func (r *reader) key(k *packedKey) {
	k.flags, k.id, k.hash, k.epoch, k.expires, k.retires = r.byte(), r.string(), r.bytes(32), int64(r.uint()), r.time(), 0
	if k.flags&keyRetires != 0 {
		k.retires = r.time()
	}
	if k.flags&keyNamespaces != 0 {
		k.namespaces = *r
		r.skipStrings()
	}
	if k.flags&keySources != 0 {
		k.sources = *r
		r.skipStrings()
	}
}

func (r *reader) skipStrings() {
	for range r.uint() {
		r.string()
	}
}

// covers reports whether the address is in one of the prefixes.
func (r reader) covers(from netip.Addr) bool {
	from = from.Unmap()
	for range r.uint() {
		if p, err := netip.ParsePrefix(r.string()); err == nil && p.Contains(from) {
			return true
		}
	}
	return false
}

func (r reader) contains(want string) bool {
	for range r.uint() {
		if r.string() == want {
			return true
		}
	}
	return false
}

func unpack(packed string) *subject {
	r := reader{packed}
	flags := r.byte()
	s := &subject{id: r.string(), group: flags&subjectIsGroup != 0}
	epoch := int64(r.uint())
	if kind := principalKind(flags); kind != "" {
		s.principal = &object.Principal{Kind: kind, Status: statuses[flags&statusMask], Epoch: epoch}
	}
	for keys := (reader{r.string()}); keys.data != ""; {
		var k packedKey
		keys.key(&k)
		s.keys = append(s.keys, unpackKey(&k, s.id))
	}
	for range r.uint() {
		s.groups = append(s.groups, r.string())
	}
	for range r.uint() {
		s.grants = append(s.grants, grant{r.byte(), r.string()})
	}
	return s
}

func unpackKey(p *packedKey, owner string) key {
	k := key{p.id, object.Key{Owner: owner, Status: statuses[p.flags&statusMask], Epoch: p.epoch, Expires: p.expires,
		Retires: p.retires, ReadOnly: p.flags&keyReadOnly != 0}}
	copy(k.object.Hash[:], p.hash)
	if p.flags&keyNamespaces != 0 {
		k.object.Namespaces = p.namespaces.strings()
	}
	if p.flags&keySources != 0 {
		k.object.Sources = p.sources.strings()
	}
	return k
}

func principalKind(flags byte) sallyport.PrincipalKind {
	switch {
	case flags&subjectIsUser != 0:
		return sallyport.User
	case flags&subjectIsServiceAccount != 0:
		return sallyport.ServiceAccount
	}
	return ""
}

func (s *subject) objects() []object.Object {
	var list []object.Object
	if s.principal != nil {
		list = append(list, object.Object{Kind: object.KindPrincipal, ID: s.id, Data: object.Encode(*s.principal)})
	}
	if s.group {
		list = append(list, object.Object{Kind: object.KindGroup, ID: s.id, Data: object.Encode(object.Group{})})
	}
	for _, k := range s.keys {
		list = append(list, object.Object{Kind: object.KindKey, ID: k.id, Data: object.Encode(k.object)})
	}
	for _, g := range s.groups {
		list = append(list, object.Object{Kind: object.KindMembership, ID: object.MembershipID(g, s.id), Data: object.Encode(object.Membership{Group: g, User: s.id})})
	}
	for _, g := range s.grants {
		o := g.object(s.id)
		list = append(list, object.Object{Kind: object.KindGrant, ID: object.GrantID(o.Subject, o.Scope, o.Target), Data: object.Encode(o)})
	}
	return list
}
