package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/sallyport-iam/sallyport/credential"
)

const defaultProfile = "default"

// profile is a login: a service, and a key or a client certificate for it.
type profile struct {
	Address   string
	Plaintext bool
	CA        string            // PEM of what to trust; "": the system's
	Key       credential.Secret // "" with a certificate
	// Certificate and PrivateKey are the files of a client certificate and its
	// key, PEM: whoever renews them replaces the files.
	Certificate, PrivateKey string
}

// profileFile is a profile as it is kept. It holds the secret itself, so only
// save and loadProfile handle it.
type profileFile struct {
	Address   string `json:"address"`
	Plaintext bool   `json:"plaintext,omitempty"`
	CA        string `json:"ca,omitempty"`
	APIKey    string `json:"api_key,omitempty"`
	CertFile  string `json:"certificate_file,omitempty"`
	KeyFile   string `json:"private_key_file,omitempty"`
}

var profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// folder is where logins and verified heads are kept.
func folder() (string, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder for logins: %w", err)
	}
	return filepath.Join(base, "sallyport"), nil
}

func profilePath(name string) (string, error) {
	if !profileName.MatchString(name) {
		return "", fmt.Errorf("the profile's name %q is malformed: use letters, digits, _ and -", name)
	}
	dir, err := folder()
	return filepath.Join(dir, name+".json"), err
}

func (p profile) save(name string) (string, error) {
	path, err := profilePath(name)
	if err != nil {
		return "", err
	}
	return path, writePrivate(path, profileFile{p.Address, p.Plaintext, p.CA, p.Key.Reveal(), p.Certificate, p.PrivateKey})
}

// loadProfile reads a login. It refuses a file that others can read, whose key
// may be known to them.
func loadProfile(name string) (profile, error) {
	path, err := profilePath(name)
	if err != nil {
		return profile{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return profile{}, fmt.Errorf("there is no login %q; make it with `sallyport%s login --address HOST:PORT --api-key-file FILE`", name, profileFlag(name))
	}
	if err != nil {
		return profile{}, fmt.Errorf("reading the login: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return profile{}, fmt.Errorf("%s holds a key and can be read by others; `chmod 600` it, and consider to rotate the key", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return profile{}, fmt.Errorf("reading the login: %w", err)
	}
	var f profileFile
	if err := json.Unmarshal(text, &f); err != nil || f.Address == "" || (f.APIKey == "") == (f.CertFile == "") || (f.CertFile == "") != (f.KeyFile == "") {
		return profile{}, fmt.Errorf("%s is damaged; log in again", path)
	}
	return profile{f.Address, f.Plaintext, f.CA, credential.Secret(f.APIKey), f.CertFile, f.KeyFile}, nil
}

// profileFlag is what to add to a command line for a profile.
func profileFlag(name string) string {
	if name == defaultProfile {
		return ""
	}
	return " --profile " + name
}

// writePrivate writes a JSON file that only its owner can read, whole or not
// at all.
func writePrivate(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	next, err := startFile(path)
	if err != nil {
		return err
	}
	defer next.discard()
	return next.finish(string(text) + "\n")
}

// pendingFile becomes the file of its name when it is finished.
type pendingFile struct {
	path string
	file *os.File // beside it, mode 0600
}

// startFile finds out, before anything else is done, that path can be written.
func startFile(path string) (*pendingFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &pendingFile{path, f}, nil
}

// finish writes the text and puts the file into its place.
func (p *pendingFile) finish(text string) error {
	_, err := p.file.WriteString(text)
	if err == nil {
		err = p.file.Sync()
	}
	if closed := p.file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(p.file.Name(), p.path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", p.path, err)
	}
	return nil
}

// discard removes what was not finished; after finish it does nothing.
func (p *pendingFile) discard() {
	p.file.Close()
	if err := os.Remove(p.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "sallyport: removing a temporary file:", err)
	}
}

// with is the same service with a client certificate.
func (p profile) with(cert, key string) profile {
	return profile{Address: p.Address, CA: p.CA, Plaintext: p.Plaintext, Certificate: cert, PrivateKey: key}
}
