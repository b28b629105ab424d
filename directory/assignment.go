package directory

import (
	"context"
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/internal/page"
)

// Assignment is what one principal or group holds in a namespace.
type Assignment struct {
	ID        string
	Name      string               // of a service account or group; a user's e-mail
	Direct    sallyport.Permission // granted on the namespace itself
	Inherited sallyport.Permission // the strongest through an account role, a project role or a group
	Revision  int64                // of the user, service account or group
}

// AssignmentKind says whose assignments are listed.
type AssignmentKind int

const (
	UserAssignments AssignmentKind = iota + 1
	ServiceAccountAssignments
	GroupAssignments
)

// NamespaceAssignments lists, by id, who has access to a namespace.
func (d *Directory) NamespaceAssignments(ctx context.Context, caller sallyport.Caller, namespace string, kind AssignmentKind, p sallyport.Page) ([]Assignment, string, error) {
	var action authz.Action
	switch kind {
	case UserAssignments:
		action = authz.NamespaceUserAssignments
	case ServiceAccountAssignments:
		action = authz.NamespaceSAAssignments
	case GroupAssignments:
		action = authz.NamespaceGroupAssignments
	}
	n, err := namespaceFor(ctx, d.pool, caller, action, namespace)
	if err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, fmt.Sprintf("assignments %d %q", kind, n.ID), p)
	if err != nil {
		return nil, "", err
	}
	rows, err := readAssignments(ctx, d.pool, caller.Account, kind, n, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	rows, next := page.Cut(cursor, rows, func(a Assignment) string { return a.ID })
	return rows, next, nil
}
