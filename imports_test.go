package sallyport_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sallyport-iam/sallyport"

// importRules say which of our packages a package may import, and why. A rule
// holds for the packages at or below its path; the longest path that fits counts.
var importRules = []struct {
	path string
	may  []string
	why  string
}{
	{"", nil, "the vocabulary stands below everything"},
	{"credential", []string{""}, "what a credential looks like is pure; the data plane uses it too"},
	{"migrations", nil, "only files"},
	{"internal/pg", []string{"", "migrations"}, "it knows no tables"},
	{"internal/pgserver", []string{""}, "a process, not a domain"},
	{"internal/pgtest", []string{"", "internal/pg", "internal/pgserver", "migrations"}, "tests' databases"},
	{"internal/page", []string{"", "internal/pg"}, "cursors of lists"},
	{"internal/serve", []string{""}, "the edge knows no domain"},
	{"authz", []string{""}, "policy is pure, and servers that embed the data plane stay small"},
	{"authz/object", []string{""}, "what is replicated is pure"},
	{"authz/replica", []string{"", "api", "authz", "authz/object", "authz/replica/frame", "credential"}, "a server that embeds it gets no SQL, no web and no domain"},
	{"api", nil, "generated"},
	{"journal", []string{"", "authz/object", "internal/pg"}, "it takes an object as kind, id and bytes"},
	{"internal/lastuse", []string{""}, "when things were used, whatever they are"},
	{"internal/strictjson", nil, "it knows no document"},
	{"internal/vault", []string{""}, "secrets at rest, whosever they are"},
	{"internal/mail", []string{"", "credential", "internal/pg"}, "it sends what others write"},
	{"directory", []string{"", "authz", "authz/object", "credential", "internal/pg", "internal/page", "journal"}, "the first domain package"},
	{"apikeys", []string{"", "authz", "authz/object", "credential", "directory", "internal/lastuse", "internal/pg", "internal/page", "journal"}, "domain packages beside it are given as funcs"},
	{"certs", []string{"", "authz", "authz/object", "credential", "directory", "internal/lastuse", "internal/page", "internal/pg", "internal/vault", "journal"}, "domain packages beside it are given as funcs"},
	{"clientca", []string{"", "authz", "authz/object", "credential", "directory", "internal/page", "internal/pg", "journal"}, "domain packages beside it are given as funcs"},
	{"notices", []string{"", "directory", "internal/mail", "internal/pg"}, "what is sent to whom, about what the domain tells it"},
	{"authn", []string{"", "credential", "internal/pg", "journal"}, "domain packages beside it are given as funcs"},
	{"internal/fetch", []string{""}, "it fetches what a tenant names, whatever it is"},
	{"authn/oidc", []string{"", "credential", "internal/fetch", "internal/strictjson"}, "it checks what providers say; who that is here, and what is kept, is for others"},
	{"authn/token", []string{"", "authz", "authz/object", "credential", "directory", "internal/fetch", "internal/lastuse", "internal/page", "internal/pg", "internal/strictjson", "internal/vault", "journal"}, "domain packages beside it are given as funcs"},
	{"authn/saml", []string{""}, "what a response proves is pure: the connection and the table of replay are the caller's"},
	{"authn/saml/samltest", nil, "a provider that knows nothing of ours"},
	{"authn/authntest", []string{"", "apikeys", "authn", "certs", "directory", "internal/page", "internal/pg", "internal/pgtest", "internal/vault", "journal"}, "tests' accounts, over the real packages"},
	{"feed", []string{"", "api", "authz", "authz/object", "authz/replica/frame", "internal/pg", "journal"}, "domain packages beside it are given as funcs"},
	{"test", []string{"*"}, "tests of whole programs, and what they share"},
	{"cloudapi", []string{"", "api", "apikeys", "authn/token", "authz", "authz/object", "authz/replica", "certs", "clientca", "credential", "directory", "feed", "internal/serve", "internal/page", "journal"}, "a transport: no SQL"},
	{"cmd/sallyport", []string{"", "api", "credential", "journal"}, "a client"},
	{"test", nil, "tests of the programs from outside"},
	{"cmd/sallyportd", []string{"*"}, "it plugs everything together"},
}

// dataPlane packages must not bring these along, however indirectly.
var dataPlane = []string{module + "/authz", module + "/authz/object", module + "/authz/replica", module + "/credential"}

var notInDataPlane = []string{"database/sql", "github.com/jackc/pgx", "github.com/pressly/goose", module + "/journal", module + "/directory", module + "/cloudapi"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImports(t *testing.T) {
	packages := list(t)
	for _, p := range packages {
		own := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		may, why, known := rule(own)
		if !known {
			t.Errorf("%s has no rule in imports_test.go: say what it may import, and why", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if i != module && !strings.HasPrefix(i, module+"/") {
				continue
			}
			other := strings.TrimPrefix(strings.TrimPrefix(i, module), "/")
			if !slices.ContainsFunc(may, func(m string) bool { return m == "*" || other == m || (m == "api" && strings.HasPrefix(other, "api/")) }) {
				t.Errorf("%s imports %s: not allowed, since %s", p.ImportPath, i, why)
			}
		}
		if slices.Contains(dataPlane, p.ImportPath) {
			for _, d := range p.Deps {
				if slices.ContainsFunc(notInDataPlane, func(n string) bool { return d == n || strings.HasPrefix(d, n+"/") }) {
					t.Errorf("%s brings %s along; a server that embeds it must stay small", p.ImportPath, d)
				}
			}
		}
	}
}

func rule(own string) (may []string, why string, known bool) {
	length := -1
	for _, r := range importRules {
		fits := own == r.path || (r.path != "" && strings.HasPrefix(own, r.path+"/"))
		if fits && len(r.path) > length {
			may, why, known, length = r.may, r.why, true, len(r.path)
		}
	}
	return may, why, known
}

func list(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
