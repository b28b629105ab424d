package migrations_test

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

var update = flag.Bool("update", false, "write schema.sql anew")

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestSchema keeps schema.sql what the migrations add up to.
func TestSchema(t *testing.T) {
	got := dump(t)
	if *update {
		if err := os.WriteFile("schema.sql", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("schema.sql is not what the migrations make: run make generate (-want +got):\n%s", diff)
	}
}

// dump is pg_dump's output without what depends on its version.
func dump(t *testing.T) string {
	t.Helper()
	server, url := pgtest.Server(t), pgtest.URL(t)
	cmd := exec.Command(server.Program("pg_dump"), "--schema-only", "--no-owner", "--no-privileges",
		"--exclude-table=goose_db_version*", "--dbname="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var statements []string
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "--"), strings.HasPrefix(line, "SET "), strings.HasPrefix(line, `\`),
			strings.HasPrefix(line, "SELECT pg_catalog.set_config"):
		case line == "\n" && (len(statements) == 0 || statements[len(statements)-1] == "\n"):
		default:
			statements = append(statements, line)
		}
	}
	return strings.TrimRight(strings.Join(statements, ""), "\n") + "\n"
}
