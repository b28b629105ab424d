package cloudapi

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"

	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
)

const (
	maxAttributes  = 100
	maxDescription = 255
	maxText        = 1024 // of URLs and messages
)

var (
	attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,127}$`)
	printable     = regexp.MustCompile(`^[\x20-\x7e\s]*$`)
)

// normalSpec checks a spec and gives it in the form that is stored: as it was
// sent, but with its deprecated fields folded into those that replaced them.
func normalSpec(sent *namespace.NamespaceSpec) (*namespace.NamespaceSpec, error) {
	if sent == nil {
		return nil, specMissing()
	}
	spec, _ := proto.Clone(sent).(*namespace.NamespaceSpec)
	for _, step := range []func(*namespace.NamespaceSpec) error{
		foldRegions, foldAttributes, foldCA, foldFilters, checkCodec, checkRest,
	} {
		if err := step(spec); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// foldRegions makes regions and replicas say the same. Both may be absent.
func foldRegions(spec *namespace.NamespaceSpec) error {
	var replicas []string
	for i, r := range spec.GetReplicas() {
		if r.GetRegion() == "" {
			return sallyport.InvalidField(fmt.Sprintf("spec.replicas[%d].region", i), "is required")
		}
		replicas = append(replicas, r.GetRegion())
	}
	regions := spec.GetRegions()
	switch {
	case len(regions) > 0 && len(replicas) > 0 && !slices.Equal(regions, replicas):
		return sallyport.InvalidField("spec.replicas", "and regions name different regions; send one of the two")
	case len(replicas) == 0:
		replicas = regions
	}
	if len(replicas) > 1 {
		return sallyport.InvalidField("spec.replicas", "a namespace is in exactly one region in this version")
	}
	spec.Regions, spec.Replicas = nil, nil
	for _, r := range replicas {
		if err := checkID("spec.replicas[0].region", r); err != nil {
			return err
		}
		spec.Regions = append(spec.Regions, r)
		spec.Replicas = append(spec.Replicas, &namespace.ReplicaSpec{Region: r})
	}
	return nil
}

func attributeText(t namespace.NamespaceSpec_SearchAttributeType) string {
	return enumText(t, "SEARCH_ATTRIBUTE_TYPE_")
}

func foldAttributes(spec *namespace.NamespaceSpec) error {
	for name, old := range spec.GetCustomSearchAttributes() {
		field := fmt.Sprintf("spec.search_attributes[%.80q]", name)
		t, err := enumOf(field, spec.GetSearchAttributes()[name], old, attributeText)
		if err != nil {
			return err
		}
		if spec.SearchAttributes == nil {
			spec.SearchAttributes = map[string]namespace.NamespaceSpec_SearchAttributeType{}
		}
		spec.SearchAttributes[name] = t
	}
	spec.CustomSearchAttributes = nil
	if n := len(spec.GetSearchAttributes()); n > maxAttributes {
		return sallyport.InvalidField("spec.search_attributes", "has %d entries; at most %d are possible", n, maxAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.GetSearchAttributes())) {
		field := fmt.Sprintf("spec.search_attributes[%.80q]", name)
		if !attributeName.MatchString(name) {
			return sallyport.InvalidField(field, "is no name: it begins with a letter and has at most 128 letters, digits and _ . -")
		}
		t, err := enumOf(field, spec.GetSearchAttributes()[name], "", attributeText)
		if err != nil {
			return err
		}
		if t == 0 {
			return sallyport.InvalidField(field, "needs a type")
		}
	}
	return nil
}

// sameAttributes refuses to remove an attribute or to change its type, which
// the data plane cannot do.
func sameAttributes(before, after map[string]namespace.NamespaceSpec_SearchAttributeType) error {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		switch t, ok := after[name]; {
		case !ok:
			return sallyport.InvalidField(fmt.Sprintf("spec.search_attributes[%q]", name), "cannot be removed; send it again with the others")
		case t != before[name]:
			return sallyport.InvalidField(fmt.Sprintf("spec.search_attributes[%q]", name), "cannot change its type, which is %s", attributeText(before[name]))
		}
	}
	return nil
}

// foldCA takes the CA of clients that send it as base64 text.
func foldCA(spec *namespace.NamespaceSpec) error {
	old := spec.GetMtlsAuth().GetAcceptedClientCaDeprecated()
	if old == "" {
		return nil
	}
	ca, err := base64.StdEncoding.DecodeString(old)
	if err != nil {
		return sallyport.InvalidField("spec.mtls_auth.accepted_client_ca_deprecated", "is not base64; send accepted_client_ca instead")
	}
	if now := spec.GetMtlsAuth().GetAcceptedClientCa(); len(now) > 0 && !bytes.Equal(now, ca) {
		return sallyport.InvalidField("spec.mtls_auth.accepted_client_ca", "differs from accepted_client_ca_deprecated; send one of the two")
	}
	spec.MtlsAuth.AcceptedClientCa, spec.MtlsAuth.AcceptedClientCaDeprecated = ca, ""
	return nil
}

// foldFilters leaves of filters what is kept of them: their known fields.
func foldFilters(spec *namespace.NamespaceSpec) error {
	if filters := spec.GetMtlsAuth().GetCertificateFilters(); len(filters) > 0 {
		spec.MtlsAuth.CertificateFilters = filterSpecs(filtersOf(filters))
	}
	return nil
}

func checkCodec(spec *namespace.NamespaceSpec) error {
	codec := spec.GetCodecServer()
	message := codec.GetCustomErrorMessage().GetDefault()
	if codec.GetEndpoint() == "" {
		if codec.GetPassAccessToken() || codec.GetIncludeCrossOriginCredentials() || message != nil {
			return sallyport.InvalidField("spec.codec_server.endpoint", "is required with the other fields of codec_server")
		}
		return nil
	}
	if err := checkURL("spec.codec_server.endpoint", codec.GetEndpoint()); err != nil {
		return err
	}
	if len(message.GetMessage()) > maxText {
		return sallyport.InvalidField("spec.codec_server.custom_error_message.default.message", "has more than %d bytes", maxText)
	}
	if message.GetLink() == "" {
		return nil
	}
	return checkURL("spec.codec_server.custom_error_message.default.link", message.GetLink())
}

// checkURL lets only web addresses through: browsers follow them.
func checkURL(field, s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxText || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return sallyport.InvalidField(field, "must be a URL that begins with https:// (or http://), without a password, of at most %d bytes", maxText)
	}
	return nil
}

// checkRest refuses what would be stored and not be done, where that is a
// protection that its owner would rely on.
func checkRest(spec *namespace.NamespaceSpec) error {
	mode := spec.GetEncryptionValidation().GetMode()
	switch {
	case len(spec.GetConnectivityRuleIds()) > 0:
		return sallyport.InvalidField("spec.connectivity_rule_ids", "must be empty: there are no connectivity rules in this version")
	case mode > namespace.EncryptionValidationSpec_ENCRYPTION_VALIDATION_MODE_DISABLED || mode < 0:
		return sallyport.InvalidField("spec.encryption_validation.mode", "must be disabled: payloads are not checked in this version")
	case spec.GetCapacitySpec().GetProvisioned().GetValue() < 0:
		return sallyport.InvalidField("spec.capacity_spec.provisioned.value", "must not be negative")
	case len(spec.GetDescription()) > maxDescription || !printable.MatchString(spec.GetDescription()):
		return sallyport.InvalidField("spec.description", "must have at most %d printable ASCII characters and spaces", maxDescription)
	}
	return nil
}

// paramsOf is what the domain must know of a normal spec. The client CAs and
// filters, which also change on their own, are kept apart from the rest.
func paramsOf(spec *namespace.NamespaceSpec) (directory.NamespaceParams, error) {
	p := directory.NamespaceParams{
		Name: spec.GetName(), RetentionDays: spec.GetRetentionDays(),
		APIKeyAuth: spec.GetApiKeyAuth().GetEnabled(), MTLSAuth: spec.GetMtlsAuth().GetEnabled(),
		DeleteProtection: spec.GetLifecycle().GetEnableDeleteProtection(),
		ClientCA:         spec.GetMtlsAuth().GetAcceptedClientCa(), CertificateFilters: filtersOf(spec.GetMtlsAuth().GetCertificateFilters()),
	}
	if len(spec.GetReplicas()) > 0 {
		p.Region = spec.GetReplicas()[0].GetRegion()
	}
	rest, _ := proto.Clone(spec).(*namespace.NamespaceSpec)
	if rest.GetMtlsAuth() != nil {
		rest.MtlsAuth.AcceptedClientCa, rest.MtlsAuth.CertificateFilters = nil, nil
	}
	var err error
	if p.Spec, err = (proto.MarshalOptions{Deterministic: true}).Marshal(rest); err != nil {
		return directory.NamespaceParams{}, sallyport.InvalidField("spec", "cannot be encoded: %v", err)
	}
	return p, nil
}

// specOf is the spec as it was sent, with what there is now for client
// certificates.
func specOf(p directory.NamespaceParams) (*namespace.NamespaceSpec, error) {
	spec := &namespace.NamespaceSpec{}
	if err := proto.Unmarshal(p.Spec, spec); err != nil {
		return nil, err
	}
	if spec.GetMtlsAuth() != nil || len(p.ClientCA) > 0 || len(p.CertificateFilters) > 0 || p.MTLSAuth {
		if spec.GetMtlsAuth() == nil {
			spec.MtlsAuth = &namespace.MtlsAuthSpec{}
		}
		spec.MtlsAuth.Enabled, spec.MtlsAuth.AcceptedClientCa = p.MTLSAuth, p.ClientCA
		spec.MtlsAuth.CertificateFilters = filterSpecs(p.CertificateFilters)
	}
	return spec, nil
}

// sameMeaning compares two normal specs: what is absent means the same as what
// is there and empty or off.
func sameMeaning(a, b *namespace.NamespaceSpec) bool {
	return proto.Equal(meaning(a), meaning(b))
}

func meaning(spec *namespace.NamespaceSpec) *namespace.NamespaceSpec {
	m, _ := proto.Clone(spec).(*namespace.NamespaceSpec)
	if proto.Size(m.GetApiKeyAuth()) == 0 {
		m.ApiKeyAuth = nil
	}
	if proto.Size(m.GetMtlsAuth()) == 0 {
		m.MtlsAuth = nil
	}
	if proto.Size(m.GetLifecycle()) == 0 {
		m.Lifecycle = nil
	}
	if proto.Size(m.GetHighAvailability()) == 0 {
		m.HighAvailability = nil
	}
	if m.GetCodecServer().GetEndpoint() == "" {
		m.CodecServer = nil
	}
	if len(m.GetSearchAttributes()) == 0 {
		m.SearchAttributes = nil
	}
	return m
}

// fillDeprecated writes what old clients read.
func (c call) fillDeprecated(spec *namespace.NamespaceSpec) {
	if c.upTo(textEnums()) && len(spec.GetSearchAttributes()) > 0 {
		spec.CustomSearchAttributes = map[string]string{}
		for name, t := range spec.GetSearchAttributes() {
			spec.CustomSearchAttributes[name] = attributeText(t)
		}
	}
	if c.upTo(base64CA()) && len(spec.GetMtlsAuth().GetAcceptedClientCa()) > 0 {
		spec.MtlsAuth.AcceptedClientCaDeprecated = base64.StdEncoding.EncodeToString(spec.GetMtlsAuth().GetAcceptedClientCa())
	}
}
