package cloudapi_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestHTTP walks a life cycle over the REST paths.
func TestHTTP(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	do := func(method, path, body string, want int) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, a.w.web.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+a.token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := a.w.web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Fatalf("%s %s = %d %s, want %d", method, path, resp.StatusCode, data, want)
		}
		var answer map[string]any
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatalf("%s %s = %s: %v", method, path, data, err)
		}
		return answer
	}
	at := func(v any, path ...string) string {
		t.Helper()
		for _, key := range path {
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("no %s in the answer", key)
			}
			v = m[key]
		}
		s, _ := v.(string)
		return s
	}
	if got := at(do("GET", "/cloud/current-identity", "", 200), "user", "id"); got != a.owner {
		t.Errorf("identity = %q, want %q", got, a.owner)
	}
	full := at(do("POST", "/cloud/namespaces", `{"spec":{"name":"orders","regions":["aws-us-east-1"],"retentionDays":7,"apiKeyAuth":{"enabled":true}}}`, 200), "namespace")
	if got := at(do("GET", "/cloud/namespaces/"+full, "", 200), "namespace", "state"); got != "RESOURCE_STATE_ACTIVE" {
		t.Errorf("state = %q, want active", got)
	}
	made := do("POST", "/cloud/users", `{"spec":{"email":"ann@example.com","access":{"accountAccess":{"role":"ROLE_READ"}}},"asyncOperationId":"op-http"}`, 200)
	if got := at(made, "asyncOperation", "state"); got != "STATE_FULFILLED" {
		t.Errorf("operation = %q, want fulfilled", got)
	}
	user := do("GET", "/cloud/users/"+at(made, "userId"), "", 200)
	do("DELETE", "/cloud/users/"+at(made, "userId")+"?resource_version="+at(user, "user", "resourceVersion"), "", 200)
	do("GET", "/cloud/users/"+at(made, "userId"), "", 404)
	do("GET", "/cloud/operations/op-http", "", 200)
	do("POST", "/cloud/users", `{"spec":{"email":"x"}}`, 400)
	do("POST", "/cloud/users", `{"spec":{"e-mail":"x@example.com"}}`, 400)
	do("GET", "/sallyport/v1/audit-entries?page_size=2", "", 200)
	do("GET", "/sallyport/v1/namespaces/"+full+"/client-cas", "", 200)
	do("GET", "/sallyport/v1/namespaces/"+full+"/certificate-filters", "", 200)
	do("GET", "/sallyport/v1/namespaces/"+full+"/seen-certificates?page_size=2&since=2026-01-01T00:00:00Z", "", 200)
	do("POST", "/sallyport/v1/namespaces/"+full+"/certificate-filters", `{"filter":{"commonName":"*"}}`, 400)
	do("POST", "/sallyport/v1/namespaces/"+full+"/certificate-filters/"+strings.Repeat("0", 32)+"/map", `{"permission":"read"}`, 404)
	worker := at(do("POST", "/cloud/service-accounts", `{"spec":{"name":"worker","access":{"accountAccess":{"role":"ROLE_READ"}}}}`, 200), "serviceAccountId")
	issued := do("POST", "/sallyport/v1/certificates", `{"serviceAccountId":"`+worker+`","lifetime":"3600s","csr":"`+base64.StdEncoding.EncodeToString(csr(t))+`"}`, 200)
	cert := at(issued, "certificate", "id")
	do("GET", "/sallyport/v1/certificates/"+cert, "", 200)
	do("GET", "/sallyport/v1/certificates?service_account_id="+worker, "", 200)
	do("POST", "/sallyport/v1/certificates/"+cert+"/renew", `{"csr":"`+base64.StdEncoding.EncodeToString(csr(t))+`"}`, 200)
	do("POST", "/sallyport/v1/current-certificate/renew", `{"csr":"`+base64.StdEncoding.EncodeToString(csr(t))+`"}`, 400)
	do("POST", "/sallyport/v1/service-accounts/"+worker+"/status", `{"disabled":true}`, 400)
	do("POST", "/sallyport/v1/service-accounts/"+worker+"/status", `{"disabled":true,"resourceVersion":"1"}`, 400)
	do("GET", "/sallyport/v1/service-accounts?page_size=2", "", 200)
	do("GET", "/sallyport/v1/issuers", "", 200)
	do("POST", "/sallyport/v1/revocations", `{"certificateId":"`+cert+`","reason":"lost"}`, 200)
	do("GET", "/sallyport/v1/revocations", "", 200)
	const spec = `"issuer":"https://issuer.example.com","conditions":[{"claim":"project_id","equals":["74",74]},{"claim":"ref","prefixes":["refs/heads/"]}]`
	rule := do("POST", "/sallyport/v1/federation-rules", `{"spec":{"serviceAccountId":"`+worker+`",`+spec+`}}`, 200)
	path := "/sallyport/v1/federation-rules/" + at(rule, "federationRule", "id")
	do("GET", path, "", 200)
	do("GET", "/sallyport/v1/federation-rules?service_account_id="+worker, "", 200)
	do("POST", "/sallyport/v1/service-accounts/"+worker+"/federation-test", `{"token":"ey.a.b"}`, 200)
	rule = do("POST", path, `{"spec":{"serviceAccountId":"`+worker+`","disabled":true,`+spec+`},"resourceVersion":"`+at(rule, "federationRule", "resourceVersion")+`"}`, 200)
	do("DELETE", path+"?resource_version="+at(rule, "federationRule", "resourceVersion"), "", 200)
	do("GET", path, "", 404)
	do("GET", "/cloud/users?pageSize=2", "", 200)
	do("GET", "/cloud/users?pagesize=2", "", 400)
	do("GET", "/cloud/users?email=%ff", "", 400)
	do("GET", "/cloud/users/u_%ff", "", 400)
	do("GET", "/cloud/users?email=%00", "", 400)
	do("POST", "/cloud/users", "", 400)
}
