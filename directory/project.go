package directory

import (
	"context"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/internal/page"
)

// Project is a group of namespaces. Every account has a default one.
type Project struct {
	ID      string
	Name    string
	Default bool
	Stamp
}

// Project reads one project.
func (d *Directory) Project(ctx context.Context, caller sallyport.Caller, id string) (Project, error) {
	if err := authz.Check(caller, authz.ProjectGet, authz.Resource{Account: caller.Account, Project: id}); err != nil {
		return Project{}, err
	}
	p, found, err := readProject(ctx, d.pool, caller.Account, id)
	if err == nil && !found {
		err = notThere("project", id)
	}
	return p, err
}

// Projects lists the projects that the caller may see, by id.
func (d *Directory) Projects(ctx context.Context, caller sallyport.Caller, p sallyport.Page) ([]Project, string, error) {
	if err := check(caller, authz.ProjectList); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, "projects", p)
	if err != nil {
		return nil, "", err
	}
	projects, err := readProjects(ctx, d.pool, caller.Account, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	projects, next := page.Cut(cursor, projects, func(p Project) string { return p.ID })
	return slices.DeleteFunc(projects, func(p Project) bool {
		return authz.Check(caller, authz.ProjectGet, authz.Resource{Account: caller.Account, Project: p.ID}) != nil
	}), next, nil
}
