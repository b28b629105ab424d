package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type filterCommands struct {
	List   filterList   `cmd:"" help:"List a namespace's certificate filters, and what they give."`
	Add    filterAdd    `cmd:"" help:"Add a filter: client certificates must match one, where there are any."`
	Remove filterRemove `cmd:"" help:"Take a filter away; refused while certificates in use need it, unless forced."`
	Map    filterMap    `cmd:"" help:"Say what certificates that match a filter may do."`
	Unmap  filterUnmap  `cmd:"" help:"Let certificates that match a filter write, as without a map."`
}

type filterList struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
}

// Run lists the filters. Its JSON is what filter add and cert check read.
func (c *filterList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	found, err := client.admin.ListCertificateFilters(ctx, &adminv1.ListCertificateFiltersRequest{Namespace: client.fullName(c.Namespace)})
	if err != nil {
		return err
	}
	return s.show(found, func() error {
		var rows [][]string
		for _, f := range found.GetFilters() {
			seen := moment(f.GetLastSeenTime())
			switch {
			case !f.GetPresent():
				seen = "not a filter now; the map waits for it"
			case seen == "":
				seen = "never"
			}
			rows = append(rows, []string{f.GetId(), filterText(f), filterGives(f), seen, f.GetWarning()})
		}
		return s.table("no filters: every certificate of the CAs is let in", []string{"ID", "FILTER", "GIVES", "LAST SEEN", "WARNING"}, rows)
	})
}

func filterText(f *adminv1.CertificateFilter) string {
	var parts []string
	for _, part := range [][2]string{{"CN", f.GetCommonName()}, {"O", f.GetOrganization()}, {"OU", f.GetOrganizationalUnit()}, {"SAN", f.GetSubjectAlternativeName()}} {
		if part[1] != "" {
			parts = append(parts, part[0]+"="+part[1])
		}
	}
	return strings.Join(parts, ", ")
}

func filterGives(f *adminv1.CertificateFilter) string {
	switch {
	case f.GetServiceAccountId() != "":
		return "as " + f.GetServiceAccountId()
	case f.GetPermission() != "":
		return f.GetPermission()
	}
	return "write"
}

// given is what a map gives.
type given struct {
	ServiceAccount string `help:"They act as this service account (sa_…), with its access and no more." xor:"give" placeholder:"ID"`
	Permission     string `help:"They may no more than this: read." xor:"give" placeholder:"read"`
	Force          bool   `help:"Also if that gives nothing, or less than certificates in use have."`
}

type filterAdd struct {
	given
	Namespace              string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	CommonName             string `help:"The subject's common name; one * may stand at an edge."`
	Organization           string `help:"The subject's organization."`
	OrganizationalUnit     string `help:"The subject's organizational unit."`
	SubjectAlternativeName string `help:"A DNS name, e-mail address, IP address or URI."`
	File                   string `help:"File with filters, JSON as filter list prints them and tcld reads them." placeholder:"FILE"`
}

// Run adds the filter, or one after the other those of the file.
func (c *filterAdd) Run(ctx context.Context, s *session) error {
	one := &adminv1.CertificateFilter{CommonName: c.CommonName, Organization: c.Organization, OrganizationalUnit: c.OrganizationalUnit,
		SubjectAlternativeName: c.SubjectAlternativeName, ServiceAccountId: c.ServiceAccount, Permission: c.Permission}
	filters := []*adminv1.CertificateFilter{one}
	if (filterText(one) == "") == (c.File == "") {
		return errors.New("say what certificates must have: --common-name, --organization, --organizational-unit, --subject-alternative-name or several; or --file")
	}
	if c.File != "" {
		var err error
		if filters, err = readFilters(c.File); err != nil {
			return err
		}
		for _, f := range filters {
			if c.ServiceAccount != "" || c.Permission != "" {
				f.ServiceAccountId, f.Permission = c.ServiceAccount, c.Permission
			}
		}
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	for _, f := range filters {
		done, err := client.admin.AddCertificateFilter(ctx, &adminv1.AddCertificateFilterRequest{Namespace: client.fullName(c.Namespace), Filter: f,
			Force: c.Force, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
		if err != nil {
			return fmt.Errorf("%s: %w", filterText(f), err)
		}
		if err := s.changed(ctx, client, done, "filter "+filterText(f)+" added"); err != nil {
			return err
		}
	}
	return nil
}

// readFilters reads what filter list prints, and tcld's form: both have the
// same names. What only a listing tells is left out.
func readFilters(path string) ([]*adminv1.CertificateFilter, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	text := bytes.TrimSpace(data)
	if bytes.HasPrefix(text, []byte("[")) {
		text = append(append([]byte(`{"filters":`), text...), '}')
	}
	var list adminv1.ListCertificateFiltersResponse
	if err := protojson.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf(`%s is not of the form {"filters":[{"commonName":"worker-*"}]}: %w`, path, err)
	}
	filters := list.GetFilters()
	for i, f := range filters {
		filters[i] = &adminv1.CertificateFilter{CommonName: f.GetCommonName(), Organization: f.GetOrganization(), OrganizationalUnit: f.GetOrganizationalUnit(),
			SubjectAlternativeName: f.GetSubjectAlternativeName(), ServiceAccountId: f.GetServiceAccountId(), Permission: f.GetPermission()}
	}
	return filters, nil
}

// filterID is a filter of a namespace.
type filterID struct {
	Namespace string `help:"The namespace." required:"" placeholder:"NAMESPACE"`
	ID        string `arg:"" help:"The filter's id (filter list)."`
}

type filterRemove struct {
	filterID
	Force bool `help:"Also while certificates in use need it, which stop working."`
}

// Run removes the filter, if nobody needs it.
func (c *filterRemove) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	done, err := client.admin.RemoveCertificateFilter(ctx, &adminv1.RemoveCertificateFilterRequest{Namespace: client.fullName(c.Namespace), FilterId: c.ID,
		Force: c.Force, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.changed(ctx, client, done, "filter "+c.ID+" removed")
}

type filterMap struct {
	filterID
	given
}

// Run maps the filter.
func (c *filterMap) Run(ctx context.Context, s *session) error {
	if c.ServiceAccount == "" && c.Permission == "" {
		return errors.New("say what the filter gives: --service-account ID or --permission read (`sallyport filter unmap` gives write)")
	}
	return s.mapFilter(ctx, c.filterID, c.given, "filter "+c.ID+" mapped")
}

type filterUnmap struct{ filterID }

// Run ends the filter's map.
func (c *filterUnmap) Run(ctx context.Context, s *session) error {
	return s.mapFilter(ctx, c.filterID, given{}, "filter "+c.ID+" gives write")
}

func (s *session) mapFilter(ctx context.Context, f filterID, g given, what string) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	done, err := client.admin.MapCertificateFilter(ctx, &adminv1.MapCertificateFilterRequest{Namespace: client.fullName(f.Namespace), FilterId: f.ID,
		ServiceAccountId: g.ServiceAccount, Permission: g.Permission, Force: g.Force, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.changed(ctx, client, done, what)
}
