package cloudapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// largeSpec has a bundle of certificates that is about as large as one may be.
func largeSpec(t *testing.T) *namespace.NamespaceSpec {
	t.Helper()
	var bundle []byte
	for range 16 {
		bundle = append(bundle, ca(t, strings.Repeat("o", 450), time.Now().Add(time.Hour))...)
	}
	if len(bundle) < 25<<10 {
		t.Fatalf("the bundle has only %d bytes", len(bundle))
	}
	return &namespace.NamespaceSpec{Regions: []string{"aws-us-east-1"}, RetentionDays: 7,
		MtlsAuth: &namespace.MtlsAuthSpec{Enabled: true, AcceptedClientCa: bundle}}
}

// pageLimit is what a page may have of items, and some bytes around them.
const pageLimit = 1<<20 + 4<<10

// TestLargeNamespaces: pages are cut by bytes too, and none is lost.
func TestLargeNamespaces(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	spec := largeSpec(t)
	var want, got []string
	for i := range 50 {
		spec.Name = fmt.Sprintf("large-%02d", i)
		want = append(want, must[*cloudservice.CreateNamespaceResponse](t)(a.cloud.CreateNamespace(t.Context(), &cloudservice.CreateNamespaceRequest{Spec: spec})).GetNamespace())
	}
	pages := 0
	for request := (&cloudservice.GetNamespacesRequest{PageSize: 1000}); ; pages++ {
		page := must[*cloudservice.GetNamespacesResponse](t)(a.cloud.GetNamespaces(t.Context(), request))
		if n := proto.Size(page); n > pageLimit {
			t.Errorf("page %d has %d bytes", pages, n)
		}
		for _, n := range page.GetNamespaces() {
			got = append(got, n.GetNamespace())
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || pages == 0 {
		t.Errorf("namespaces of %d pages (-want +got):\n%s", pages+1, diff)
	}
}

// TestLargeAuditEntries: the log stays readable, by gRPC and as JSON, and its
// chain whole across the pages.
func TestLargeAuditEntries(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	spec := largeSpec(t)
	spec.Name = "orders"
	full := must[*cloudservice.CreateNamespaceResponse](t)(a.cloud.CreateNamespace(ctx, &cloudservice.CreateNamespaceRequest{Spec: spec})).GetNamespace()
	for i := range 45 {
		seen := must[*cloudservice.GetNamespaceResponse](t)(a.cloud.GetNamespace(ctx, &cloudservice.GetNamespaceRequest{Namespace: full})).GetNamespace()
		seen.GetSpec().RetentionDays = int32(10 + i)
		must[*cloudservice.UpdateNamespaceResponse](t)(a.cloud.UpdateNamespace(ctx, &cloudservice.UpdateNamespaceRequest{
			Namespace: full, Spec: seen.GetSpec(), ResourceVersion: seen.GetResourceVersion()}))
	}
	var previous []byte
	revision, total := int64(0), 0
	for {
		page := must[*adminv1.ListAuditEntriesResponse](t)(a.admin.ListAuditEntries(ctx, &adminv1.ListAuditEntriesRequest{AfterRevision: revision, PageSize: 1000}))
		if len(page.GetEntries()) == 0 {
			break
		}
		if n := proto.Size(page); n > pageLimit {
			t.Errorf("the page after revision %d has %d bytes", revision, n)
		}
		total += proto.Size(page)
		for _, e := range page.GetEntries() {
			hash := sha256.Sum256(append(bytes.Clone(e.GetPreviousHash()), e.GetBody()...))
			if revision > 0 && !bytes.Equal(e.GetPreviousHash(), previous) || e.GetHead().GetRevision() != revision+1 || !bytes.Equal(hash[:], e.GetHead().GetHash()) {
				t.Fatalf("entry %d does not follow entry %d", e.GetHead().GetRevision(), revision)
			}
			previous, revision = e.GetHead().GetHash(), e.GetHead().GetRevision()
		}
		wantPage(t, a, fmt.Sprintf("/sallyport/v1/audit-entries?page_size=1000&after_revision=%d", revision-1))
	}
	if revision < 46 || total < 4<<20 {
		t.Errorf("%d entries of %d bytes: too few to prove anything", revision, total)
	}
}

// wantPage checks that a list can be read over HTTP.
func wantPage(t *testing.T, a *tenant, path string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, a.w.web.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := a.w.web.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s = %d %.300s %v", path, resp.StatusCode, body, err)
	}
}
