package stack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
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

// Token asks for an access token of a minute at the address (s.Sallyport.HTTP or
// MTLS) with the form's other fields, as an OAuth client does. certificate is
// the client's, nil for none.
func (s *Stack) Token(ctx context.Context, address string, form url.Values, certificate *tls.Certificate) (token string, err error) {
	roots, err := s.roots()
	if err != nil {
		return "", err
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	form.Set("expires_in", "60")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Token   string `json:"access_token"`
		Error   string `json:"error"`
		Problem string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("reading the answer %s: %w", resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("getting a token: %s: %s", answer.Error, answer.Problem)
	}
	return answer.Token, nil
}

// EnableMTLS lets the namespace take certificates of the managed CA, and those
// under the bundle's CAs (PEM; nil: none) that one of the filters matches (none:
// all). API keys stay as they are. It gives the operation's id once it is fulfilled.
func EnableMTLS(ctx context.Context, cloud cloudservice.CloudServiceClient, in string, bundle []byte, filters ...*namespace.CertificateFilterSpec) (string, error) {
	got, err := cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: in})
	if err != nil {
		return "", err
	}
	spec := got.GetNamespace().GetSpec()
	spec.MtlsAuth = &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCa: bundle, CertificateFilters: filters}
	done, err := cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{Namespace: in, Spec: spec, ResourceVersion: got.GetNamespace().GetResourceVersion()})
	if err != nil {
		return "", err
	}
	return done.GetAsyncOperation().GetId(), Await(ctx, cloud, done.GetAsyncOperation())
}

// IssueCertificate has a certificate made for the service account, and gives it
// with its id once it is good everywhere.
func (s *Stack) IssueCertificate(ctx context.Context, cloud cloudservice.CloudServiceClient, serviceAccount string) (id string, certificate *tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", nil, err
	}
	var issued *adminv1.IssueCertificateResponse
	err = s.Admin(ctx, s.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) (err error) {
		issued, err = admin.IssueCertificate(ctx, &adminv1.IssueCertificateRequest{ServiceAccountId: serviceAccount, Csr: csr})
		return err
	})
	if err != nil {
		return "", nil, err
	}
	certificate = &tls.Certificate{PrivateKey: key}
	for rest := issued.GetChain(); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	return issued.GetCertificate().GetId(), certificate, AwaitID(ctx, cloud, issued.GetAsyncOperationId())
}

// Revoke ends what the request names and gives the operation's id once it is fulfilled.
func (s *Stack) Revoke(ctx context.Context, cloud cloudservice.CloudServiceClient, req *adminv1.RevokeRequest) (string, error) {
	var revoked *adminv1.RevokeResponse
	err := s.Admin(ctx, s.Sallyport.Key, func(ctx context.Context, admin adminv1.AdminServiceClient) (err error) {
		revoked, err = admin.Revoke(ctx, req)
		return err
	})
	if err != nil {
		return "", err
	}
	return revoked.GetAsyncOperationId(), AwaitID(ctx, cloud, revoked.GetAsyncOperationId())
}

// AwaitID is Await for an operation of which only the id is known.
func AwaitID(ctx context.Context, cloud cloudservice.CloudServiceClient, id string) error {
	got, err := cloud.GetAsyncOperation(ctx, &cloudservice.GetAsyncOperationRequest{AsyncOperationId: id})
	if err != nil {
		return fmt.Errorf("waiting for operation %s: %w", id, err)
	}
	return Await(ctx, cloud, got.GetAsyncOperation())
}

// Temporal is the real SDK's client of the Temporal server, with the key; empty: with none.
func (s *Stack) Temporal(in, key string) (client.Client, error) {
	options, err := s.Options(in)
	if err != nil {
		return nil, err
	}
	if key != "" {
		options.Credentials = client.NewAPIKeyStaticCredentials(key)
	}
	return client.NewLazyClient(options)
}

// TemporalTLS is the real SDK's client with a certificate.
func (s *Stack) TemporalTLS(in string, certificate *tls.Certificate) (client.Client, error) {
	options, err := s.Options(in)
	if err != nil {
		return nil, err
	}
	options.ConnectionOptions.TLS.Certificates = []tls.Certificate{*certificate}
	return client.NewLazyClient(options)
}

// Options are those of a client without a credential.
func (s *Stack) Options(in string) (client.Options, error) {
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
