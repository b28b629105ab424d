package clientca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// maxMaps bounds the maps of a namespace, with those whose filter is not there now.
const maxMaps = 100

// storedMap is a map with its filter, which the namespace may not have now.
type storedMap struct {
	Map
	filter  credential.Filter
	creator string
	created time.Time
}

// Filters lists a namespace's filters in their order, and after them the maps
// whose filter is not there, to those who may read the namespace.
func (c *ClientCAs) Filters(ctx context.Context, caller sallyport.Caller, namespace string) ([]Filter, error) {
	n, err := c.directory.NamespaceFor(ctx, c.pool, caller, authz.NamespaceGet, namespace)
	if err != nil {
		return nil, err
	}
	maps, err := mapsOf(ctx, c.pool, caller.Account, n.ID)
	if err != nil {
		return nil, err
	}
	seen, err := lastOfFilters(ctx, c.pool, caller.Account, n.ID)
	if err != nil {
		return nil, err
	}
	var list, dormant []Filter
	add := func(to *[]Filter, f Filter) error {
		_, nothing, err := c.gives(ctx, c.pool, caller.Account, n, f.Map)
		f.Warning, f.LastSeen = nothing, seen[f.ID]
		*to = append(*to, f)
		return err
	}
	for _, f := range n.CertificateFilters {
		id := f.ID()
		if err := add(&list, Filter{ID: id, Filter: f, Map: maps[id].Map, Present: true}); err != nil {
			return nil, err
		}
		delete(maps, id)
	}
	for id, m := range maps {
		if err := add(&dormant, Filter{ID: id, Filter: m.filter, Map: m.Map}); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(dormant, func(a, b Filter) int { return strings.Compare(a.ID, b.ID) })
	return append(list, dormant...), nil
}

// AddFilter adds a filter at the end of the namespace's, and maps it if the Map
// is not zero, by the rules of MapFilter. A map that is there for the filter's
// content from before holds otherwise. The first filter narrows what was open to
// every leaf: that is done, and warned about.
func (c *ClientCAs) AddFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, f credential.Filter, m Map, force bool) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, opens, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		if err := f.Check(); err != nil {
			return Change{}, within(err, "filter")
		}
		if _, found := filterOf(n, f.ID()); found {
			return Change{}, sallyport.AlreadyExists.Errorf("the namespace has this filter; its id is %s", f.ID())
		}
		if m != (Map{}) {
			if err := c.mayMap(ctx, tx, n, m, "filter.", force); err != nil {
				return Change{}, err
			}
			if err := c.setMap(ctx, tx, n, f, m); err != nil {
				return Change{}, err
			}
		}
		change, err := c.set(ctx, tx, n, n.ClientCA, append(slices.Clone(n.CertificateFilters), f), false)
		if e, ok := err.(*sallyport.Error); ok && strings.HasPrefix(e.Field, filtersField) { //nolint:errorlint // only what a check answers itself
			err = &sallyport.Error{Kind: e.Kind, Field: "filter", Msg: e.Msg}
		}
		return change, err
	})
}

// RemoveFilter takes a filter away. Where there is none left every leaf is let
// in; where others are, those that match none of them stop: that is a Conflict
// that lists the ones in use, unless it is forced. The filter's map stays.
func (c *ClientCAs) RemoveFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace, id string, force bool) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, opens, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		f, found := filterOf(n, id)
		if !found {
			return Change{}, noFilter()
		}
		rest := slices.DeleteFunc(slices.Clone(n.CertificateFilters), func(g credential.Filter) bool { return g == f })
		change, err := c.set(ctx, tx, n, n.ClientCA, rest, !force)
		return change, ofBundle(err, "filter_id", "")
	})
}

func filterOf(n directory.Namespace, id string) (credential.Filter, bool) {
	for _, f := range n.CertificateFilters {
		if f.ID() == id {
			return f, true
		}
	}
	return credential.Filter{}, false
}

func noFilter() error {
	return &sallyport.Error{Kind: sallyport.NotFound, Field: "filter_id", Msg: "is of no filter of this namespace; ListCertificateFilters gives their ids"}
}

// MapFilter says what leaves that match a filter may do on its namespace, and
// with the zero Map that there is nothing special about them. It holds for the
// filter's content, also while the namespace does not have it. Who may change
// the namespace may narrow and widen up to write, which he may give anyway; a map
// to a service account takes the right to issue certificates to it as well. A map
// that gives nothing, or takes from certificates in use, is a Conflict, unless it
// is forced.
func (c *ClientCAs) MapFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace, id string, m Map, force bool) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, opens, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		maps, err := mapsOf(ctx, tx, tx.Account(), n.ID)
		if err != nil {
			return Change{}, err
		}
		old, mapped := maps[id]
		f, present := filterOf(n, id)
		if !present {
			f = old.filter
		}
		if !present && !mapped {
			return Change{}, noFilter()
		}
		if err := c.mayMap(ctx, tx, n, m, "", force); err != nil {
			return Change{}, err
		}
		if m == old.Map {
			return Change{}, sallyport.Invalid.Errorf("nothing to change: it is already so")
		}
		if err := c.setMap(ctx, tx, n, f, m); err != nil {
			return Change{}, err
		}
		if !present {
			return Change{Revision: n.Revision}, nil
		}
		warnings, err := c.remapped(ctx, tx, n, maps, force)
		if err != nil {
			return Change{}, err
		}
		return Change{n.Revision, warnings}, c.put(ctx, tx, n)
	})
}

// remapped judges that the namespace's maps are others than before.
func (c *ClientCAs) remapped(ctx context.Context, tx *journal.Tx, n directory.Namespace, before map[string]storedMap, force bool) ([]string, error) {
	after, err := mapsOf(ctx, tx, tx.Account(), n.ID)
	if err != nil {
		return nil, err
	}
	from, err := c.side(ctx, tx, n, before)
	if err != nil {
		return nil, err
	}
	to, err := c.side(ctx, tx, n, after)
	if err != nil {
		return nil, err
	}
	stopped, err := c.stops(ctx, tx, from, to)
	if err != nil {
		return nil, err
	}
	if stopped.any() && !force {
		return nil, stopped.refusal()
	}
	return c.warnOf(ctx, tx, n, stopped, nil)
}

// side is a namespace with what its filters give by the maps.
func (c *ClientCAs) side(ctx context.Context, tx *journal.Tx, n directory.Namespace, maps map[string]storedMap) (side, error) {
	s := side{Namespace: n}
	if len(maps) == 0 {
		return s, nil
	}
	s.give = make([]sallyport.Permission, len(n.CertificateFilters))
	for i, f := range n.CertificateFilters {
		var err error
		if s.give[i], _, err = c.gives(ctx, tx, tx.Account(), n, maps[f.ID()].Map); err != nil {
			return side{}, err
		}
	}
	return s, nil
}

// gives is what a map gives on the namespace now, write at most, and for people
// why that is nothing.
func (c *ClientCAs) gives(ctx context.Context, q pg.Querier, account sallyport.AccountID, n directory.Namespace, m Map) (sallyport.Permission, string, error) {
	switch {
	case m.Permission != "":
		return sallyport.PermissionRead, "", nil
	case m.ServiceAccount == "":
		return sallyport.PermissionWrite, "", nil
	}
	access, standing, err := c.directory.Access(ctx, q, account, sallyport.Principal{Kind: sallyport.ServiceAccount, ID: m.ServiceAccount})
	p := min(access.Permission(n.Project, n.ID), sallyport.PermissionWrite)
	switch {
	case errors.Is(err, sallyport.NotFound):
		return sallyport.NoPermission, "the service account is gone: certificates that match are refused; map the filter to another one", nil
	case err != nil:
		return sallyport.NoPermission, "", err
	case standing.Status != object.Active:
		return sallyport.NoPermission, "the service account is " + string(standing.Status) + ": certificates that match are refused until it is enabled", nil
	case p == sallyport.NoPermission:
		return p, "the service account has no access to this namespace: certificates that match are refused; give it access", nil
	}
	return p, "", nil
}

// mayMap checks a map and that the caller may make it: whoever has a matching
// certificate is the service account, on this namespace. prefix begins the names
// of the request's fields.
func (c *ClientCAs) mayMap(ctx context.Context, tx *journal.Tx, n directory.Namespace, m Map, prefix string, force bool) error {
	switch {
	case m.ServiceAccount != "" && m.Permission != "":
		return sallyport.InvalidField(prefix+"permission", "and service_account_id cannot both be given; a service account brings its own permissions")
	case m.Permission != "" && m.Permission != sallyport.PermissionRead.String():
		return sallyport.InvalidField(prefix+"permission", "must be read, or empty for write")
	case m.ServiceAccount == "":
		return nil
	}
	field := prefix + "service_account_id"
	p := sallyport.Principal{Kind: sallyport.ServiceAccount, ID: m.ServiceAccount}
	s, err := c.directory.Standing(ctx, tx, tx.Account(), p)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return err
	}
	resource := authz.Resource{Account: tx.Account(), Project: s.Project, Namespace: s.Namespace, Owner: p}
	if denied := authz.Check(tx.Caller(), authz.CertificateIssue, resource); denied != nil {
		return denied
	}
	switch {
	case err != nil:
		return &sallyport.Error{Kind: sallyport.NotFound, Field: field, Msg: "there is no such service account in this account"}
	case s.Status != object.Active:
		return &sallyport.Error{Kind: sallyport.Conflict, Field: field, Msg: "the service account is " + string(s.Status) + " and would give nothing; enable it first"}
	case s.Scope == sallyport.ScopeNamespace && s.Namespace != n.ID:
		return sallyport.InvalidField(field, "is scoped to another namespace and would give nothing on this one")
	case s.Scope == sallyport.ScopeProject && s.Project != n.Project:
		return sallyport.InvalidField(field, "is scoped to another project and would give nothing on this namespace")
	case force:
		return nil
	}
	_, nothing, err := c.gives(ctx, tx, tx.Account(), n, m)
	if err == nil && nothing != "" {
		err = &sallyport.Error{Kind: sallyport.Conflict, Field: field, Msg: "names one that has no access to this namespace: certificates that match would be refused; give it access first, or force it"}
	}
	return err
}

// setMap stores a map, or with the zero Map takes it away, and records it.
func (c *ClientCAs) setMap(ctx context.Context, tx *journal.Tx, n directory.Namespace, f credential.Filter, m Map) error {
	maps, err := mapsOf(ctx, tx, tx.Account(), n.ID)
	if err != nil {
		return err
	}
	old, mapped := maps[f.ID()]
	change := journal.Change{Type: "certificate-filter-map", ID: string(n.ID) + "/" + f.ID()}
	if mapped {
		change.Before = old.record()
	}
	if m == (Map{}) {
		tx.Record(change)
		return deleteMap(ctx, tx, tx.Account(), n.ID, f.ID())
	}
	if !mapped && len(maps) >= maxMaps {
		return sallyport.Conflict.Errorf("the namespace has %d filters with maps, with those whose filter it does not have now, which is the limit; take the maps of some away", maxMaps)
	}
	made := storedMap{Map: m, filter: f, creator: tx.Caller().Principal.ID, created: tx.Now()}
	change.After = made.record()
	tx.Record(change)
	return upsertMap(ctx, tx, tx.Account(), n.ID, made)
}

func (m storedMap) record() map[string]any {
	return map[string]any{"filter": m.filter, "service_account": m.ServiceAccount, "permission": m.Permission}
}

// within says in which part of the request the field of an error is.
func within(err error, part string) error {
	e, ok := err.(*sallyport.Error) //nolint:errorlint // only what a check answers itself, not a cause
	if !ok {
		return err
	}
	field := part
	if e.Field != "" {
		field = fmt.Sprintf("%s.%s", part, e.Field)
	}
	return &sallyport.Error{Kind: e.Kind, Field: field, Msg: e.Msg, Err: e.Err}
}
