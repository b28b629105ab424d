package cloudapi

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/journal"
)

// versionHeader carries the version of the API that the client was built for.
// Any value is accepted: it only decides which deprecated fields are written.
const versionHeader = "temporal-cloud-api-version"

// apiVersion is v<major>.<minor>.<patch>.
type apiVersion [3]int

// Versions up to which clients read deprecated fields.
func textEnums() apiVersion    { return apiVersion{0, 3, 0} }  // enumerations as text
func base64CA() apiVersion     { return apiVersion{0, 2, 0} }  // the client CA as base64 text
func regionStatus() apiVersion { return apiVersion{0, 15, 0} } // the status of regions instead of replicas

// call is a request's caller and what its client can read.
type call struct {
	caller  sallyport.Caller
	version *apiVersion // nil: the newest
}

func begin(ctx context.Context) call {
	caller, _ := serve.Caller(ctx) // the edge lets nobody in without
	c := call{caller: caller}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(versionHeader); len(v) > 0 {
			c.version = parseVersion(v[0])
		}
	}
	return c
}

// upTo reports whether the client is of the version or an older one.
func (c call) upTo(version apiVersion) bool {
	return c.version != nil && slices.Compare(c.version[:], version[:]) <= 0
}

// parseVersion is nil for what is no version.
func parseVersion(s string) *apiVersion {
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	var v apiVersion
	if len(parts) != len(v) {
		return nil
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil
		}
		v[i] = n
	}
	return &v
}

// fullName is how a namespace is known outside.
func (c call) fullName(namespace string) string {
	return namespace + "." + string(c.caller.Account)
}

const maxID = 128

var wellFormedID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@:-]*$`)

// checkID refuses what cannot be an id. An id that could be one and is not is
// the domain's NotFound.
func checkID(field, id string) error {
	switch {
	case id == "":
		return sallyport.InvalidField(field, "is required")
	case len(id) > maxID || !wellFormedID.MatchString(id):
		return sallyport.InvalidField(field, "is malformed: an id has at most %d letters, digits and _ . -", maxID)
	}
	return nil
}

// operationID is whatever a client finds unique.
var operationID = regexp.MustCompile(`^[\x21-\x7e]+$`)

func checkOperationID(id string) error {
	if len(id) > maxID || !operationID.MatchString(id) {
		return sallyport.InvalidField(operationIDField, "must be 1 to %d printable ASCII characters without spaces", maxID)
	}
	return nil
}

// namespaceName takes the account off a namespace's full name. A namespace of
// another account is as unknown as one that is nowhere.
func (c call) namespaceName(field, full string) (string, error) {
	if err := checkID(field, full); err != nil {
		return "", err
	}
	name, account, ok := cutLast(full, ".")
	if !ok || name == "" {
		return "", sallyport.InvalidField(field, "must be the namespace's full name, <name>.<account>, as my-namespace.%s", c.caller.Account)
	}
	if account != string(c.caller.Account) {
		return "", &sallyport.Error{Kind: sallyport.NotFound, Field: field, Msg: "there is no namespace " + full + " in this account"}
	}
	return name, nil
}

// namespaceFilter is namespaceName for a filter, which may be empty.
func (c call) namespaceFilter(full string) (string, error) {
	if full == "" {
		return "", nil
	}
	return c.namespaceName("namespace", full)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// revision reads a resource_version, which changes of a resource must carry.
func revision(version string) (int64, error) {
	if version == "" {
		return 0, sallyport.InvalidField("resource_version", "is required: send the one that you read last")
	}
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n <= 0 || len(version) > 20 {
		return 0, sallyport.InvalidField("resource_version", "is malformed: send the one that you read last, unchanged")
	}
	return n, nil
}

func version(revision int64) string { return strconv.FormatInt(revision, 10) }

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// modified is when a thing was last changed, unset if it never was.
func modified(created, modified time.Time) *timestamppb.Timestamp {
	if !modified.After(created) {
		return nil
	}
	return timestamppb.New(modified)
}

// paged is a request for a page of a list.
type paged interface {
	GetPageSize() int32
	GetPageToken() string
}

func pageOf(r paged) sallyport.Page {
	return sallyport.Page{Size: int(r.GetPageSize()), Token: r.GetPageToken()}
}

// each converts the items of a list.
func each[T, W any](items []T, convert func(T) W) []W {
	wire := make([]W, len(items))
	for i, item := range items {
		wire[i] = convert(item)
	}
	return wire
}

// mutation is a request that changes something.
type mutation interface {
	proto.Message
	GetAsyncOperationId() string
}

// operationIDField is the field of every mutation that holds its operation id.
const operationIDField = "async_operation_id"

// operationOf is the journal's operation for the request: its client's id, the
// RPC's name, and the request's bytes for telling whether a repetition is one.
func operationOf(r mutation) (journal.Operation, error) {
	if id := r.GetAsyncOperationId(); id != "" {
		if err := checkOperationID(id); err != nil {
			return journal.Operation{}, err
		}
	}
	bare := proto.Clone(r)
	fields := bare.ProtoReflect().Descriptor().Fields()
	bare.ProtoReflect().Clear(fields.ByName(protoreflect.Name(operationIDField)))
	request, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return journal.Operation{}, sallyport.Invalid.Errorf("the request cannot be encoded: %v", err)
	}
	name := string(r.ProtoReflect().Descriptor().Name())
	return journal.Operation{ID: r.GetAsyncOperationId(), Type: strings.TrimSuffix(name, "Request"), Request: request}, nil
}
