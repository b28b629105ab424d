package pgserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MinVersion is the oldest major version of PostgreSQL that Sallyport runs on.
const MinVersion = 15

// ProgramsError says that the machine has no PostgreSQL programs that can be
// used, and what to install.
type ProgramsError struct {
	Reason string
}

func (e *ProgramsError) Error() string {
	return e.Reason + fmt.Sprintf("; install PostgreSQL %d or later (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql@17) or name the folder of its programs", MinVersion)
}

// programs is a folder with postgres and initdb of a major version.
type programs struct {
	dir   string
	major int
}

// findPrograms looks in binDir alone if given, else in PATH, then in the
// distributions' usual folders, newest first. With a data version other than
// 0 the programs must be of that one.
func findPrograms(binDir string, data int) (programs, error) {
	candidates := []string{binDir}
	if binDir == "" {
		candidates = usualFolders()
	}
	var rejected []string
	for _, dir := range candidates {
		p, err := inspect(dir)
		switch {
		case err != nil:
			if binDir != "" {
				return programs{}, &ProgramsError{Reason: fmt.Sprintf("no PostgreSQL programs in %s: %v", binDir, err)}
			}
		case p.major < MinVersion || (data != 0 && p.major != data):
			rejected = append(rejected, fmt.Sprintf("version %d in %s", p.major, p.dir))
		default:
			return p, nil
		}
	}
	switch {
	case data != 0 && len(rejected) > 0:
		return programs{}, &ProgramsError{Reason: fmt.Sprintf("the data was made by PostgreSQL %d and can only be read by it; found %s", data, strings.Join(rejected, ", "))}
	case len(rejected) > 0:
		return programs{}, &ProgramsError{Reason: "PostgreSQL is too old: " + strings.Join(rejected, ", ")}
	}
	return programs{}, &ProgramsError{Reason: "no PostgreSQL programs (initdb and postgres) found"}
}

// usualFolders are where PostgreSQL may be, the preferred first.
func usualFolders() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                      // Debian, Ubuntu
		"/usr/pgsql-*/bin",                               // PostgreSQL's own packages for Fedora and RHEL
		"/opt/homebrew/opt/postgresql*/bin",              // Homebrew on ARM
		"/usr/local/opt/postgresql*/bin",                 // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin", // Homebrew on Linux
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, _ := filepath.Glob(pattern) // fails on a bad pattern only
		slices.SortFunc(found, func(a, b string) int { return folderVersion(b) - folderVersion(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

var number = regexp.MustCompile(`[0-9]+`)

// folderVersion is the version in a folder's name, to sort by; 0 if none.
func folderVersion(dir string) int {
	v, _ := strconv.Atoi(number.FindString(dir))
	return v
}

// inspect asks the programs in the folder for their version.
func inspect(dir string) (programs, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return programs{}, err
	}
	dir = filepath.Dir(path)
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return programs{}, err
	}
	cmd := exec.Command(path, "--version") //nolint:gosec // found by us or named by the operator
	cmd.Dir, cmd.Env = "/", environment()
	out, err := cmd.Output()
	if err != nil {
		return programs{}, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	_, version, _ := strings.Cut(string(out), ") ") // "postgres (PostgreSQL) 15.13 (Debian …)"
	major, err := strconv.Atoi(number.FindString(version))
	if err != nil {
		return programs{}, fmt.Errorf("%s answered its version as %q", path, out)
	}
	return programs{dir: dir, major: major}, nil
}

// dataVersion is the major version that the data folder was made by, 0 if there is none.
func dataVersion(data string) int {
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return 0
	}
	v, _ := strconv.Atoi(strings.TrimSpace(string(content)))
	return v
}
