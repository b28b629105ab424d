package replica

import (
	"bytes"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
)

// A view is one account at one head. It never changes: applying a batch makes
// another view that shares nearly all of its memory with this one.
type view struct {
	id         sallyport.AccountID
	head       sallyport.Head
	digest     object.Digest
	count      int // of objects
	account    *object.Account
	subjects   table[string]     // packed, by id
	keyOwners  table[string]     // the packed owner, by key id
	namespaces table[*namespace] // by name
	nsByID     table[*namespace] // by id
	bundles    table[*bundle]    // by the namespace's id
	issuers    []*issuer
	managed    *trust // in the issuers; nil: there are none
	// revocations are by their form and packed.
	revocations    [revocationForms]table[string]
	revocationMark *mark
	tokenKeys      []*tokenKey // of account 00000
	rules          table[*federationRule]
	issued         table[string] // certificates of the issuers', packed
	// odd holds the objects that this version cannot make sense of. They give
	// nothing, and are kept for the digest alone.
	odd map[oddKey][]byte
}

type oddKey struct {
	kind object.Kind
	id   string
}

type namespace struct {
	id       string
	fullName string // <name>.<account>
	object   object.Namespace
}

func newView(id sallyport.AccountID, seed maphash.Seed) *view {
	v := &view{id: id, subjects: newTable[string](seed), keyOwners: newTable[string](seed),
		namespaces: newTable[*namespace](seed), nsByID: newTable[*namespace](seed), bundles: newTable[*bundle](seed), issued: newTable[string](seed),
		revocationMark: &mark{}, rules: newTable[*federationRule](seed)}
	for form := range v.revocations {
		v.revocations[form] = newTable[string](seed)
	}
	return v
}

// subject gives the packed subject, "" if there is none. Like all look-ups it
// does not allocate.
func (v *view) subject(id string) string { return findSubject(&v.subjects, id) }

func findSubject(t *table[string], id string) string {
	h := t.hash(id)
	for _, s := range t.bucket(h) {
		if s.hash == h && packedID(s.value) == id {
			return s.value
		}
	}
	return ""
}

// keyOwner reads the key into k and gives its packed owner, "" if there is none.
func (v *view) keyOwner(id string, k *packedKey) (owner string) {
	return findOwner(&v.keyOwners, id, k)
}

func findOwner(t *table[string], id string, k *packedKey) (owner string) {
	h := t.hash(id)
	for _, s := range t.bucket(h) {
		if s.hash == h && findKey(s.value, id, k) {
			return s.value
		}
	}
	return ""
}

func findKey(packed, id string, k *packedKey) bool {
	r := reader{packed[1:]}
	r.string()
	r.uint()
	for keys := (reader{r.string()}); keys.data != ""; {
		if keys.key(k); k.id == id {
			return true
		}
	}
	return false
}

func (v *view) namespace(name string) *namespace {
	h := v.namespaces.hash(name)
	for _, s := range v.namespaces.bucket(h) {
		if s.hash == h && s.value.object.Name == name {
			return s.value
		}
	}
	return nil
}

func findNamespace(t *table[*namespace], id string) *namespace {
	h := t.hash(id)
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value.id == id {
			return s.value
		}
	}
	return nil
}

func findBundle(t *table[*bundle], namespace string) *bundle {
	h := t.hash(namespace)
	for _, s := range t.bucket(h) {
		if s.hash == h && s.value.namespace == namespace {
			return s.value
		}
	}
	return nil
}

// objects gives every object of the view, in no order.
func (v *view) objects(yield func(object.Object) bool) {
	if v.account != nil && !yield(object.Object{Kind: object.KindAccount, ID: string(v.id), Data: object.Encode(*v.account)}) {
		return
	}
	for packed := range v.subjects.all {
		for _, o := range unpack(packed).objects() {
			if !yield(o) {
				return
			}
		}
	}
	for ns := range v.nsByID.all {
		if !yield(object.Object{Kind: object.KindNamespace, ID: ns.id, Data: object.Encode(ns.object)}) {
			return
		}
	}
	for b := range v.bundles.all {
		if !yield(object.Object{Kind: object.KindClientCAs, ID: b.namespace, Data: object.Encode(b.object)}) {
			return
		}
	}
	for _, i := range v.issuers {
		if !yield(object.Object{Kind: object.KindIssuer, ID: i.id, Data: object.Encode(i.object)}) {
			return
		}
	}
	for r := range v.allRevocations {
		if !yield(object.Object{Kind: object.KindRevocation, ID: r.id(), Data: []byte(revocationData)}) {
			return
		}
	}
	if !v.tokenObjects(yield) {
		return
	}
	for packed := range v.issued.all {
		if !yield(issuedObject(packed)) {
			return
		}
	}
	for k, data := range v.odd {
		if !yield(object.Object{Kind: k.kind, ID: k.id, Data: data}) {
			return
		}
	}
}

// A draft is a view in the making.
type draft struct {
	view
	subjects   *tableEdit[string]
	keyOwners  *tableEdit[string]
	namespaces *tableEdit[*namespace]
	nsByID     *tableEdit[*namespace]
	bundles    *tableEdit[*bundle]
	rules      *tableEdit[*federationRule]
	touched    map[string]*subject // changed and not yet packed
	moved      map[string]string   // owner by id of keys that were added, "" of those removed
	oddOwned   bool

	revocations [revocationForms]*tableEdit[string]
	remarked    bool // some were added or removed
	issued      *tableEdit[string]

	issuersChanged bool
}

// maxTouched bounds the unpacked subjects while a large snapshot is built.
const maxTouched = 4096

func (v *view) edit() *draft {
	d := &draft{view: *v, subjects: edit(v.subjects), keyOwners: edit(v.keyOwners), namespaces: edit(v.namespaces),
		nsByID: edit(v.nsByID), bundles: edit(v.bundles), issued: edit(v.issued), rules: edit(v.rules), touched: map[string]*subject{}, moved: map[string]string{}}
	for form := range v.revocations {
		d.revocations[form] = edit(v.revocations[form])
	}
	return d
}

// finish gives the view.
func (d *draft) finish(head sallyport.Head) *view {
	d.flush()
	v := d.view
	v.head = head
	v.subjects, v.keyOwners, v.namespaces, v.nsByID = d.subjects.table, d.keyOwners.table, d.namespaces.table, d.nsByID.table
	v.bundles, v.issued, v.rules = d.bundles.table, d.issued.table, d.rules.table
	for form := range v.revocations {
		v.revocations[form] = d.revocations[form].table
	}
	if d.issuersChanged {
		v.managed = managedTrust(v.issuers)
	}
	return &v
}

// flush packs what was touched and points its keys to it.
func (d *draft) flush() {
	for id, owner := range d.moved {
		if owner == "" {
			d.keyOwners.remove(d.keyOwners.hash(id), hasKey(id))
		}
	}
	for id, s := range d.touched {
		same := func(packed string) bool { return packedID(packed) == id }
		if s.empty() {
			d.subjects.remove(d.subjects.hash(id), same)
			continue
		}
		packed := s.pack()
		d.subjects.set(d.subjects.hash(id), same, packed)
		for _, k := range s.keys {
			d.keyOwners.set(d.keyOwners.hash(k.id), hasKey(k.id), packed)
		}
	}
	clear(d.touched)
	clear(d.moved)
}

func hasKey(id string) func(string) bool {
	return func(packed string) bool { return findKey(packed, id, new(packedKey)) }
}

// touch gives the subject for changing, making it if there is none.
func (d *draft) touch(id string) *subject {
	if s := d.touched[id]; s != nil {
		return s
	}
	if len(d.touched) >= maxTouched {
		d.flush()
	}
	s := &subject{id: id}
	if packed := findSubject(&d.subjects.table, id); packed != "" {
		s = unpack(packed)
	}
	d.touched[id] = s
	return s
}

func (d *draft) ownerOf(key string) *subject {
	if owner, moved := d.moved[key]; moved {
		if owner == "" {
			return nil
		}
		return d.touch(owner)
	}
	packed := findOwner(&d.keyOwners.table, key, new(packedKey))
	if packed == "" {
		return nil
	}
	return d.touch(packedID(packed))
}

// apply puts the object in place of the one with its kind and id, or removes that.
func (d *draft) apply(o object.Object) {
	if old := d.remove(o.Kind, o.ID); old != nil {
		d.digest.Toggle(o.Kind, o.ID, old, false)
		d.count--
	}
	if o.Deleted {
		return
	}
	if !d.insert(o) {
		if !d.oddOwned {
			d.odd, d.oddOwned = maps.Clone(d.odd), true
			if d.odd == nil {
				d.odd = map[oddKey][]byte{}
			}
		}
		d.odd[oddKey{o.Kind, o.ID}] = append([]byte{}, o.Data...) // never nil
	}
	d.digest.Toggle(o.Kind, o.ID, o.Data, true)
	d.count++
}

// remove takes the object out and gives its data, nil if there is none.
func (d *draft) remove(kind object.Kind, id string) []byte {
	if data, odd := d.odd[oddKey{kind, id}]; odd {
		if !d.oddOwned {
			d.odd, d.oddOwned = maps.Clone(d.odd), true
		}
		delete(d.odd, oddKey{kind, id})
		if kind == object.KindRevocation {
			d.removeRevocation(id)
		}
		return data
	}
	switch kind {
	case object.KindAccount:
		if old := d.account; old != nil && id == string(d.id) {
			d.account = nil
			return object.Encode(*old)
		}
	case object.KindNamespace:
		if ns := findNamespace(&d.nsByID.table, id); ns != nil {
			same := func(n *namespace) bool { return n == ns }
			d.nsByID.remove(d.nsByID.hash(id), same)
			d.namespaces.remove(d.namespaces.hash(ns.object.Name), same)
			return object.Encode(ns.object)
		}
	case object.KindKey:
		if s := d.ownerOf(id); s != nil {
			i := slices.IndexFunc(s.keys, func(k key) bool { return k.id == id })
			data := object.Encode(s.keys[i].object)
			s.keys = slices.Delete(s.keys, i, i+1)
			d.moved[id] = ""
			return data
		}
	case object.KindClientCAs:
		if b := findBundle(&d.bundles.table, id); b != nil {
			d.bundles.remove(d.bundles.hash(id), func(o *bundle) bool { return o == b })
			return object.Encode(b.object)
		}
	case object.KindIssuer:
		if at := slices.IndexFunc(d.issuers, func(i *issuer) bool { return i.id == id }); at >= 0 {
			data := object.Encode(d.issuers[at].object)
			d.issuers = slices.Concat(d.issuers[:at], d.issuers[at+1:])
			d.issuersChanged = true
			return data
		}
	case object.KindRevocation:
		return d.removeRevocation(id)
	case object.KindTokenKey, object.KindFederationRule:
		return d.removeToken(kind, id)
	case object.KindCertificate:
		return d.removeIssued(id)
	default:
		return d.removeFact(kind, id)
	}
	return nil
}

// removeFact is remove for what is kept in the subject that the id begins or
// ends with.
func (d *draft) removeFact(kind object.Kind, id string) []byte {
	switch kind {
	case object.KindPrincipal:
		if s := d.touch(id); s.principal != nil {
			data := object.Encode(*s.principal)
			s.principal = nil
			return data
		}
	case object.KindGroup:
		if s := d.touch(id); s.group {
			s.group = false
			return object.Encode(object.Group{})
		}
	case object.KindMembership:
		group, user, _ := strings.Cut(id, "/")
		s := d.touch(user)
		if i := slices.Index(s.groups, group); i >= 0 {
			s.groups = slices.Delete(s.groups, i, i+1)
			return object.Encode(object.Membership{Group: group, User: user})
		}
	case object.KindGrant:
		subject, on, _ := strings.Cut(id, "/")
		scope, target, _ := strings.Cut(on, "/")
		s := d.touch(subject)
		i := slices.IndexFunc(s.grants, func(g grant) bool { return string(scopes[g.code>>5]) == scope && g.target == target })
		if i >= 0 {
			data := object.Encode(s.grants[i].object(subject))
			s.grants = slices.Delete(s.grants, i, i+1)
			return data
		}
	}
	return nil
}

// insert adds the object if this version understands all of it: it is encoded
// as we would encode it, under the id that we would give it.
func (d *draft) insert(o object.Object) bool {
	switch o.Kind {
	case object.KindAccount:
		v, ok := decode[object.Account](o)
		if !ok || o.ID != string(d.id) || statusCode(v.Status) == 0 {
			return false
		}
		d.account = &v
	case object.KindPrincipal:
		v, ok := decode[object.Principal](o)
		if !ok || statusCode(v.Status) == 0 || v.Kind != sallyport.User && v.Kind != sallyport.ServiceAccount {
			return false
		}
		d.touch(o.ID).principal = &v
	case object.KindGroup:
		if _, ok := decode[object.Group](o); !ok {
			return false
		}
		d.touch(o.ID).group = true
	case object.KindMembership:
		v, ok := decode[object.Membership](o)
		if !ok || o.ID != object.MembershipID(v.Group, v.User) || strings.Contains(v.Group, "/") {
			return false
		}
		s := d.touch(v.User)
		s.groups = append(s.groups, v.Group)
	case object.KindGrant:
		v, ok := decode[object.Grant](o)
		code, known := grantCode(v.Scope, v.Role)
		if !ok || !known || o.ID != object.GrantID(v.Subject, v.Scope, v.Target) || strings.Contains(v.Subject, "/") {
			return false
		}
		s := d.touch(v.Subject)
		s.grants = append(s.grants, grant{code, v.Target})
	case object.KindKey:
		v, ok := decode[object.Key](o)
		if !ok || statusCode(v.Status) == 0 {
			return false
		}
		s := d.touch(v.Owner)
		s.keys = append(s.keys, key{o.ID, v})
		d.moved[o.ID] = v.Owner
	case object.KindNamespace:
		v, ok := decode[object.Namespace](o)
		if !ok || v.Name == "" {
			return false
		}
		ns := &namespace{o.ID, v.Name + "." + string(d.id), v}
		d.nsByID.set(d.nsByID.hash(o.ID), func(n *namespace) bool { return n.id == o.ID }, ns)
		d.namespaces.set(d.namespaces.hash(v.Name), func(n *namespace) bool { return n.id == o.ID }, ns)
	default:
		return d.insertTrust(o)
	}
	return true
}

// decode reads the object's data; ok is false for data that is not exactly as
// this version would write it.
func decode[V object.Value](o object.Object) (v V, ok bool) {
	v, err := object.Decode[V](o.Data)
	return v, err == nil && bytes.Equal(object.Encode(v), o.Data)
}
