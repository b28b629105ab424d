// Package cloudapi serves Temporal Cloud's public API, CloudService, over the
// domain packages, and beside it our own AdminService. It decodes, makes one
// call and encodes; what a caller may do, and every rule, is the domain's.
//
// Fields that CloudService calls deprecated are read from everybody and
// written for clients of the versions that know nothing else.
package cloudapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/journal"
)

// Config of a Server.
type Config struct {
	Directory *directory.Directory // required
	Keys      *apikeys.Keys        // required
	Journal   *journal.Journal     // required
	// Enforced says whether every authorizer with a live lease in the account's
	// cells acknowledged the revision. Nil: nobody is asked, and an operation
	// is fulfilled one second after its commit.
	Enforced func(ctx context.Context, account sallyport.AccountID, revision int64) (bool, error)
	// Addresses are where the namespaces of a cell are reached (host:port), by
	// the cell's id, and Web where their pages are; for display. Both may be empty.
	Addresses map[string]string
	Web       string
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: slog.Default()
}

// Server is CloudService. What it does not have answers Unimplemented.
type Server struct {
	cloudservice.UnimplementedCloudServiceServer
	directory *directory.Directory
	keys      *apikeys.Keys
	journal   *journal.Journal
	enforced  func(ctx context.Context, account sallyport.AccountID, revision int64) (bool, error)
	addresses map[string]string
	web       string
	now       func() time.Time
	log       *slog.Logger
}

// New makes a Server.
func New(c Config) (*Server, error) {
	if c.Directory == nil || c.Keys == nil || c.Journal == nil {
		return nil, errors.New("cloudapi: Config needs Directory, Keys and Journal")
	}
	s := &Server{directory: c.Directory, keys: c.Keys, journal: c.Journal, enforced: c.Enforced,
		addresses: c.Addresses, web: c.Web, now: c.Now, log: c.Logger}
	if s.enforced == nil {
		s.enforced = func(context.Context, sallyport.AccountID, int64) (bool, error) { return false, nil }
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s, nil
}

// Methods says of every method of both services who may call it at all: those
// with a good credential, and nobody else. What the caller may do is checked
// where it is done.
func Methods() map[string]serve.Access {
	methods := map[string]serve.Access{}
	for _, m := range cloudservice.CloudService_ServiceDesc.Methods {
		methods["/"+cloudservice.CloudService_ServiceDesc.ServiceName+"/"+m.MethodName] = serve.Authenticated
	}
	for _, m := range adminv1.AdminService_ServiceDesc.Methods {
		methods["/"+adminv1.AdminService_ServiceDesc.ServiceName+"/"+m.MethodName] = serve.Authenticated
	}
	return methods
}
