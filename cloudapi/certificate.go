package cloudapi

import (
	"context"

	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sallyport-iam/sallyport/credential"
)

func filtersOf(specs []*namespace.CertificateFilterSpec) []credential.Filter {
	var filters []credential.Filter
	for _, s := range specs {
		filters = append(filters, credential.Filter{CommonName: s.GetCommonName(), Organization: s.GetOrganization(),
			OrganizationalUnit: s.GetOrganizationalUnit(), SubjectAlternativeName: s.GetSubjectAlternativeName()})
	}
	return filters
}

func filterSpecs(filters []credential.Filter) []*namespace.CertificateFilterSpec {
	var specs []*namespace.CertificateFilterSpec
	for _, f := range filters {
		specs = append(specs, &namespace.CertificateFilterSpec{CommonName: f.CommonName, Organization: f.Organization,
			OrganizationalUnit: f.OrganizationalUnit, SubjectAlternativeName: f.SubjectAlternativeName})
	}
	return specs
}

// warn tells the client of CAs that were stored and do not work, or soon will
// not: in a header, since the answer has no place for it.
func (s *Server) warn(ctx context.Context, bundle []byte) {
	cas, err := credential.ParseClientCAs(bundle)
	if err != nil {
		return // the domain has refused it
	}
	for _, w := range credential.ClientCAWarnings(cas, s.now()) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("sallyport-warning", w)) // fails only on a finished call
	}
}
