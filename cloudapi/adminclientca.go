package cloudapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/journal"
)

// ofNamespace is a request about a namespace's CAs or filters.
type ofNamespace interface{ GetNamespace() string }

// space is the namespace that a request names, without its account.
func (c call) space(r ofNamespace) (string, error) {
	return c.namespaceName("namespace", r.GetNamespace())
}

// changeSpace carries out a change of a namespace's CAs or filters.
func changeSpace(ctx context.Context, r interface {
	mutation
	ofNamespace
}, change func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error)) (clientca.Change, string, error) {
	c := begin(ctx)
	name, err := c.space(r)
	if err != nil {
		return clientca.Change{}, "", err
	}
	op, err := operationOf(r)
	if err != nil {
		return clientca.Change{}, "", err
	}
	changed, done, err := change(c, op, name)
	return changed, done.OperationID, err
}

// ListClientCas lists the CAs of a namespace's bundle.
func (a *Admin) ListClientCas(ctx context.Context, r *adminv1.ListClientCasRequest) (*adminv1.ListClientCasResponse, error) {
	c := begin(ctx)
	name, err := c.space(r)
	if err != nil {
		return nil, err
	}
	found, err := a.clientCAs.List(ctx, c.caller, name)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListClientCasResponse{MtlsEnabled: found.Enabled, ResourceVersion: version(found.Revision),
		ClientCas: each(found.CAs, func(ca clientca.CA) *adminv1.ClientCa {
			return &adminv1.ClientCa{Fingerprint: ca.Fingerprint, FingerprintSha1: ca.FingerprintSHA1, Subject: ca.Subject, Issuer: ca.Issuer,
				NotBefore: timestamp(ca.NotBefore), NotAfter: timestamp(ca.NotAfter), LastSeenTime: timestamp(ca.LastSeen), Warning: ca.Warning, Certificate: ca.PEM}
		})}, nil
}

// AddClientCas adds CAs to the end of the bundle.
func (a *Admin) AddClientCas(ctx context.Context, r *adminv1.AddClientCasRequest) (*adminv1.AddClientCasResponse, error) {
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.Add(ctx, c.caller, op, name, r.GetCertificates())
	})
	return answer(&adminv1.AddClientCasResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

// RemoveClientCas takes CAs out of the bundle.
func (a *Admin) RemoveClientCas(ctx context.Context, r *adminv1.RemoveClientCasRequest) (*adminv1.RemoveClientCasResponse, error) {
	for i, f := range r.GetFingerprints() {
		if len(f) != 64 && len(f) != 40 || !lowerHex.MatchString(f) {
			return nil, sallyport.InvalidField(fmt.Sprintf("fingerprints[%d]", i), "must be a SHA-256 or SHA-1 in lower-case hexadecimal: 64 or 40 of 0-9a-f")
		}
	}
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.Remove(ctx, c.caller, op, name, r.GetFingerprints(), r.GetForce())
	})
	return answer(&adminv1.RemoveClientCasResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

// SetNamespaceMtls switches mTLS on or off, with another bundle or without.
func (a *Admin) SetNamespaceMtls(ctx context.Context, r *adminv1.SetNamespaceMtlsRequest) (*adminv1.SetNamespaceMtlsResponse, error) {
	p := clientca.MTLSParams{Enabled: r.GetEnabled(), ClientCA: r.GetClientCa(), ReplaceBundle: r.GetReplaceClientCa(), Force: r.GetForce()}
	if len(p.ClientCA) > 0 && !p.ReplaceBundle {
		return nil, sallyport.InvalidField("replace_client_ca", "must be true where client_ca is given")
	}
	if r.GetResourceVersion() != "" {
		var err error
		if p.Seen, err = revision(r.GetResourceVersion()); err != nil {
			return nil, err
		}
	}
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.SetMTLS(ctx, c.caller, op, name, p)
	})
	return answer(&adminv1.SetNamespaceMtlsResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

// ListCertificateFilters lists a namespace's filters, and maps that wait for one.
func (a *Admin) ListCertificateFilters(ctx context.Context, r *adminv1.ListCertificateFiltersRequest) (*adminv1.ListCertificateFiltersResponse, error) {
	c := begin(ctx)
	name, err := c.space(r)
	if err != nil {
		return nil, err
	}
	list, err := a.clientCAs.Filters(ctx, c.caller, name)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListCertificateFiltersResponse{Filters: each(list, func(f clientca.Filter) *adminv1.CertificateFilter {
		return &adminv1.CertificateFilter{Id: f.ID, CommonName: f.CommonName, Organization: f.Organization, OrganizationalUnit: f.OrganizationalUnit,
			SubjectAlternativeName: f.SubjectAlternativeName, ServiceAccountId: f.ServiceAccount, Permission: f.Permission,
			LastSeenTime: timestamp(f.LastSeen), Present: f.Present, Warning: f.Warning}
	})}, nil
}

// filterOf reads the names of a filter; the domain checks them.
func filterOf(f *adminv1.CertificateFilter) credential.Filter {
	return credential.Filter{CommonName: f.GetCommonName(), Organization: f.GetOrganization(), OrganizationalUnit: f.GetOrganizationalUnit(),
		SubjectAlternativeName: f.GetSubjectAlternativeName()}
}

// mapped is what a filter is to give.
type mapped interface {
	GetServiceAccountId() string
	GetPermission() string
}

func mapOf(prefix string, m mapped) (clientca.Map, error) {
	if m.GetServiceAccountId() != "" {
		if err := checkID(prefix+"service_account_id", m.GetServiceAccountId()); err != nil {
			return clientca.Map{}, err
		}
	}
	return clientca.Map{ServiceAccount: m.GetServiceAccountId(), Permission: m.GetPermission()}, nil
}

// AddCertificateFilter adds a filter, and its map if it has one.
func (a *Admin) AddCertificateFilter(ctx context.Context, r *adminv1.AddCertificateFilterRequest) (*adminv1.AddCertificateFilterResponse, error) {
	if r.GetFilter() == nil {
		return nil, sallyport.InvalidField("filter", "is required")
	}
	give, err := mapOf("filter.", r.GetFilter())
	if err != nil {
		return nil, err
	}
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.AddFilter(ctx, c.caller, op, name, filterOf(r.GetFilter()), give, r.GetForce())
	})
	return answer(&adminv1.AddCertificateFilterResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

// checkFilterID refuses what credential.Filter.ID cannot give.
func checkFilterID(id string) error {
	if id == "" {
		return sallyport.InvalidField("filter_id", "is required: ListCertificateFilters gives it")
	}
	if len(id) != 32 || !lowerHex.MatchString(id) {
		return sallyport.InvalidField("filter_id", "is malformed: 32 of 0-9a-f, as ListCertificateFilters gives it")
	}
	return nil
}

// RemoveCertificateFilter takes a filter away.
func (a *Admin) RemoveCertificateFilter(ctx context.Context, r *adminv1.RemoveCertificateFilterRequest) (*adminv1.RemoveCertificateFilterResponse, error) {
	if err := checkFilterID(r.GetFilterId()); err != nil {
		return nil, err
	}
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.RemoveFilter(ctx, c.caller, op, name, r.GetFilterId(), r.GetForce())
	})
	return answer(&adminv1.RemoveCertificateFilterResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

// MapCertificateFilter says what a filter gives.
func (a *Admin) MapCertificateFilter(ctx context.Context, r *adminv1.MapCertificateFilterRequest) (*adminv1.MapCertificateFilterResponse, error) {
	if err := checkFilterID(r.GetFilterId()); err != nil {
		return nil, err
	}
	give, err := mapOf("", r)
	if err != nil {
		return nil, err
	}
	changed, id, err := changeSpace(ctx, r, func(c call, op journal.Operation, name string) (clientca.Change, journal.Committed, error) {
		return a.clientCAs.MapFilter(ctx, c.caller, op, name, r.GetFilterId(), give, r.GetForce())
	})
	return answer(&adminv1.MapCertificateFilterResponse{AsyncOperationId: id, ResourceVersion: version(changed.Revision), Warnings: changed.Warnings}, err)
}

func sinceOf(t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil || t.AsTime().Year() < 1970 {
		return time.Time{}, sallyport.InvalidField("since", "is no time")
	}
	return t.AsTime(), nil
}

// ListSeenCertificates lists what was presented on calls to a namespace.
func (a *Admin) ListSeenCertificates(ctx context.Context, r *adminv1.ListSeenCertificatesRequest) (*adminv1.ListSeenCertificatesResponse, error) {
	c := begin(ctx)
	name, err := c.space(r)
	if err != nil {
		return nil, err
	}
	since, err := sinceOf(r.GetSince())
	if err != nil {
		return nil, err
	}
	list, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.SeenCertificate, string, error) {
		list, next, err := a.clientCAs.Seen(ctx, c.caller, name, since, p)
		return each(list, seenCertificate), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListSeenCertificatesResponse{Certificates: list, NextPageToken: next}, nil
}

// seenCertificate has what clients chose: names that are no text are made one.
func seenCertificate(s clientca.Seen) *adminv1.SeenCertificate {
	return &adminv1.SeenCertificate{Fingerprint: s.Fingerprint, Subject: strings.ToValidUTF8(s.Subject, "\ufffd"), Issuer: strings.ToValidUTF8(s.Issuer, "\ufffd"),
		Serial: s.Serial, NotAfter: timestamp(s.NotAfter), FirstSeenTime: timestamp(s.First), LastSeenTime: timestamp(s.Last),
		CaFingerprint: s.CA, Refused: s.Refused, Managed: s.Managed}
}

// CheckClientCas compares the certificates that were seen with other CAs and filters.
func (a *Admin) CheckClientCas(ctx context.Context, r *adminv1.CheckClientCasRequest) (*adminv1.CheckClientCasResponse, error) {
	c := begin(ctx)
	name, err := c.space(r)
	if err != nil {
		return nil, err
	}
	since, err := sinceOf(r.GetSince())
	if err != nil {
		return nil, err
	}
	if len(r.GetFilters()) > 0 && !r.GetReplaceFilters() {
		return nil, sallyport.InvalidField("replace_filters", "must be true where filters are given")
	}
	result, err := a.clientCAs.Check(ctx, c.caller, name, clientca.CheckParams{Bundle: r.GetBundle(), Filters: each(r.GetFilters(), filterOf),
		ReplaceFilters: r.GetReplaceFilters(), Since: since})
	if err != nil {
		return nil, err
	}
	return &adminv1.CheckClientCasResponse{WouldStop: each(result.WouldStop, seenCertificate), WouldStart: each(result.WouldStart, seenCertificate),
		Checked: int32(result.Checked), Incomplete: result.Incomplete, Warnings: result.Warnings}, nil
}
