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
	for _, f := range n.CertificateFilters {
		id := f.ID()
		list = append(list, Filter{ID: id, Filter: f, Map: maps[id].Map, LastSeen: seen[id], Present: true})
		delete(maps, id)
	}
	for id, m := range maps {
		dormant = append(dormant, Filter{ID: id, Filter: m.filter, Map: m.Map, LastSeen: seen[id]})
	}
	slices.SortFunc(dormant, func(a, b Filter) int { return strings.Compare(a.ID, b.ID) })
	return append(list, dormant...), nil
}

// AddFilter adds a filter at the end of the namespace's, and maps it if the Map
// is not zero, by the rules of MapFilter. A map that is there for the filter's
// content from before holds otherwise. The first filter narrows what was open to
// every leaf: that is done, and warned about.
func (c *ClientCAs) AddFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace string, f credential.Filter, m Map) (Change, journal.Committed, error) {
	return c.edit(ctx, caller, op, namespace, opens, func(tx *journal.Tx, n directory.Namespace) (Change, error) {
		if err := f.Check(); err != nil {
			return Change{}, within(err, "filter")
		}
		if _, found := filterOf(n, f.ID()); found {
			return Change{}, sallyport.AlreadyExists.Errorf("the namespace has this filter; its id is %s", f.ID())
		}
		if m != (Map{}) {
			if err := c.mayMap(ctx, tx, n, m, "filter."); err != nil {
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
// to a service account takes the right to issue certificates to it as well.
func (c *ClientCAs) MapFilter(ctx context.Context, caller sallyport.Caller, op journal.Operation, namespace, id string, m Map) (Change, journal.Committed, error) {
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
		if err := c.mayMap(ctx, tx, n, m, ""); err != nil {
			return Change{}, err
		}
		if m == old.Map {
			return Change{}, sallyport.Invalid.Errorf("nothing to change: it is already so")
		}
		if err := c.setMap(ctx, tx, n, f, m); err != nil {
			return Change{}, err
		}
		if present {
			err = c.put(ctx, tx, n)
		}
		return Change{Revision: n.Revision}, err
	})
}

// mayMap checks a map and that the caller may make it: whoever has a matching
// certificate is the service account, on this namespace. prefix begins the names
// of the request's fields.
func (c *ClientCAs) mayMap(ctx context.Context, tx *journal.Tx, n directory.Namespace, m Map, prefix string) error {
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
	}
	return nil
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
