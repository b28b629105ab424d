package stack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// Await polls the operation until it is fulfilled, as the public clients do.
func Await(ctx context.Context, cloud cloudservice.CloudServiceClient, op *operation.AsyncOperation) error {
	for op.GetState() != operation.AsyncOperation_STATE_FULFILLED {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for operation %s: %w", op.GetId(), ctx.Err())
		case <-time.After(max(op.GetCheckDuration().AsDuration(), 20*time.Millisecond)):
		}
		got, err := cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: op.GetId()})
		if err != nil {
			return fmt.Errorf("waiting for operation %s: %w", op.GetId(), err)
		}
		op = got.GetAsyncOperation()
	}
	return nil
}

// CreateNamespace makes a namespace that takes API keys and gives its full name.
func CreateNamespace(ctx context.Context, cloud cloudservice.CloudServiceClient, name string) (string, error) {
	made, err := cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{
		Name: name, Replicas: []*namespace.ReplicaSpec{{Region: "aws-us-east-1"}}, RetentionDays: 1,
		ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}})
	if err != nil {
		return "", err
	}
	return made.GetNamespace(), Await(ctx, cloud, made.GetAsyncOperation())
}

// CreateServiceAccount makes a service account that has the permission in the
// namespace, and gives its id.
func CreateServiceAccount(ctx context.Context, cloud cloudservice.CloudServiceClient, name, in string, permission identity.NamespaceAccess_Permission) (string, error) {
	made, err := cloud.CreateServiceAccount(ctx, &cloudservice.CreateServiceAccountRequest{Spec: &identity.ServiceAccountSpec{
		Name: name, NamespaceScopedAccess: &identity.NamespaceScopedAccess{Namespace: in, Access: &identity.NamespaceAccess{Permission: permission}}}})
	if err != nil {
		return "", err
	}
	return made.GetServiceAccountId(), Await(ctx, cloud, made.GetAsyncOperation())
}

// CreateKey makes an API key of the service account and gives its id and token.
func CreateKey(ctx context.Context, cloud cloudservice.CloudServiceClient, owner string, life time.Duration) (id, token string, err error) {
	made, err := cloud.CreateApiKey(ctx, &cloudservice.CreateApiKeyRequest{Spec: &identity.ApiKeySpec{
		OwnerId: owner, OwnerType: identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT, DisplayName: "a worker's",
		ExpiryTime: timestamppb.New(time.Now().Add(life))}})
	if err != nil {
		return "", "", err
	}
	return made.GetKeyId(), made.GetToken(), Await(ctx, cloud, made.GetAsyncOperation())
}

// DeleteKey ends a key and gives the operation's id once it is fulfilled.
func DeleteKey(ctx context.Context, cloud cloudservice.CloudServiceClient, id string) (string, error) {
	key, err := cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: id})
	if err != nil {
		return "", err
	}
	done, err := cloud.DeleteApiKey(ctx, &cloudservice.DeleteApiKeyRequest{KeyId: id, ResourceVersion: key.GetApiKey().GetResourceVersion()})
	if err != nil {
		return "", err
	}
	return done.GetAsyncOperation().GetId(), Await(ctx, cloud, done.GetAsyncOperation())
}

// Admin gives do a client of AdminService with the key.
func (s *Stack) Admin(ctx context.Context, key string, do func(context.Context, adminv1.AdminServiceClient) error) error {
	roots, err := s.roots()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(s.Sallyport.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})))
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key), adminv1.NewAdminServiceClient(conn))
}

// Receipt asks where an operation is in force.
func (s *Stack) Receipt(ctx context.Context, key, operationID string) (receipt *adminv1.GetReceiptResponse, err error) {
	err = s.Admin(ctx, key, func(ctx context.Context, admin adminv1.AdminServiceClient) (err error) {
		receipt, err = admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: operationID})
		return err
	})
	return receipt, err
}

// Temporal is the real SDK's client of the Temporal server, with the key; empty: with none.
func (s *Stack) Temporal(in, key string) (client.Client, error) {
	options, err := s.options(in)
	if err != nil {
		return nil, err
	}
	if key != "" {
		options.Credentials = client.NewAPIKeyStaticCredentials(key)
	}
	return client.NewLazyClient(options)
}

// TemporalTLS is the real SDK's client with a certificate, which is asked for at
// each connection.
func (s *Stack) TemporalTLS(in string, certificate func() (*tls.Certificate, error)) (client.Client, error) {
	options, err := s.options(in)
	if err != nil {
		return nil, err
	}
	options.ConnectionOptions.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return certificate()
	}
	return client.NewLazyClient(options)
}

func (s *Stack) options(in string) (client.Options, error) {
	roots, err := s.roots()
	if err != nil {
		return client.Options{}, err
	}
	options := client.Options{HostPort: s.Frontend, Namespace: in, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))}
	options.ConnectionOptions.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return options, nil
}

func (s *Stack) roots() (*x509.CertPool, error) {
	pem, err := os.ReadFile(s.Sallyport.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the development CA is not a certificate")
	}
	return roots, nil
}
