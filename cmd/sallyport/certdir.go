package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// certDir is a directory with a certificate and its key that are replaced
// together. As Kubernetes does for mounted secrets, every version has a
// directory of its own that never changes, the symbolic link ..data names the
// one that counts, and tls.crt, tls.key and ca.crt lead through it. Replacing the
// link is atomic, so whoever reads both files of the directory that it names
// never gets a pair that does not fit, whenever the writer dies.
type certDir string

const (
	dataLink    = "..data"
	certName    = "tls.crt"
	secretName  = "tls.key"
	rootsName   = "ca.crt"
	recordName  = "certificate.json"
	versionName = "..2006_01_02_15_04_05."
	// keepOld is how long what nobody needs any more is kept at least: another
	// process may be about to read it, or to finish it.
	keepOld = time.Hour
)

// version is what certDir holds one of.
type version struct {
	secret, chain, roots []byte // PEM; roots may be missing
	record               *adminv1.Certificate
}

// held is the version that counts.
type held struct {
	path   string // of its directory
	pair   tls.Certificate
	record *adminv1.Certificate // what the service said of it; empty if that is lost
}

// openCertDir makes the directory when it is missing. One that others can read or
// write is refused: who can write to it can put a certificate in the other's place.
func openCertDir(path string) (certDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("making the directory for certificates: %w", err)
	}
	d := certDir(path)
	for _, name := range []string{certName, secretName, rootsName} {
		target, err := os.Readlink(d.file(name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && target == filepath.Join(dataLink, name) {
			continue
		}
		return "", fmt.Errorf("%s is there already and was not made by this command; give another --dir", d.file(name))
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("making the directory for certificates: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is for keys and open to others than its owner (mode %04o); `chmod 700` it, or give a --dir that is not there yet", path, info.Mode().Perm())
	}
	return d, nil
}

func (d certDir) file(name string) string { return filepath.Join(string(d), name) }

// current reads the version that counts; nil if there is none.
func (d certDir) current() (*held, error) {
	target, err := os.Readlink(d.file(dataLink))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is no error
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	h := &held{path: d.file(target), record: &adminv1.Certificate{}}
	if h.pair, err = loadPair(filepath.Join(h.path, certName), filepath.Join(h.path, secretName)); err != nil {
		return nil, err
	}
	if text, err := readBounded(filepath.Join(h.path, recordName)); err == nil {
		if err := protojson.Unmarshal(text, h.record); err != nil {
			h.record = &adminv1.Certificate{}
		}
	}
	return h, nil
}

// put makes a version and lets it count. Whatever happens before the last
// rename, the old one does.
func (d certDir) put(v version, now time.Time) error {
	previous, err := os.Readlink(d.file(dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the certificate: %w", err)
	}
	next, err := d.write(v, now)
	if err != nil {
		return fmt.Errorf("keeping the certificate: %w", err)
	}
	if err := d.point(filepath.Base(next)); err != nil {
		return errors.Join(fmt.Errorf("keeping the certificate: %w", err), os.RemoveAll(next))
	}
	d.clean(map[string]bool{filepath.Base(next): true, previous: true}, now)
	return nil
}

// write makes a version's directory, on the disk when it returns.
func (d certDir) write(v version, now time.Time) (dir string, err error) {
	record, err := protojson.Marshal(v.record)
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(string(d), now.UTC().Format(versionName)+"*"); err != nil { // mode 0700
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, f := range []struct {
		name string
		text []byte
	}{{secretName, v.secret}, {certName, v.chain}, {rootsName, v.roots}, {recordName, record}} {
		if len(f.text) == 0 {
			continue
		}
		if err := writeSynced(filepath.Join(dir, f.name), f.text); err != nil {
			return dir, err
		}
		if f.name == recordName {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, f.name), d.file(f.name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
	return dir, syncDir(dir)
}

// point lets a version count.
func (d certDir) point(name string) error {
	temporary := d.file(dataLink + "_" + name)
	if err := os.Symlink(name, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, d.file(dataLink)); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncDir(string(d))
}

// clean removes old versions and what a killed writer left. What cannot be
// removed is left for the next time.
func (d certDir) clean(keep map[string]bool, now time.Time) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || keep[e.Name()] || e.Name() == dataLink || !strings.HasPrefix(e.Name(), "..") || now.Sub(info.ModTime()) < keepOld {
			continue
		}
		_ = os.RemoveAll(d.file(e.Name()))
	}
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
