package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// anyVersion is a certificate that its own key signed.
func anyVersion(t *testing.T) version {
	t.Helper()
	secret, _, err := newKey("p256")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(secret)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "worker"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.(crypto.Signer).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return version{secret: secret, chain: chainPEM([][]byte{der}), roots: chainPEM([][]byte{der}), record: &adminv1.Certificate{Id: "cert_a"}}
}

// writerEnv holds the directory of a process that writes until it is killed.
const writerEnv = "SALLYPORT_TEST_WRITER"

// TestWriter is no test but that process.
func TestWriter(t *testing.T) {
	path := os.Getenv(writerEnv)
	if path == "" {
		t.Skip("only as a process of TestCertDirSurvivesKill")
	}
	dir, err := openCertDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if err := dir.put(anyVersion(t), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// Whenever the writer is killed, there is a certificate with its key, and a
// reader never gets one without the other.
func TestCertDirSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "certs")
	dir, err := openCertDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.put(anyVersion(t), time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { read <- readPairs(ctx, path) }()
	seen := map[string]bool{}
	for i := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWriter$")
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(40+17*i) * time.Millisecond)
		cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the writer ended by itself: %v", err)
		}
		h, err := dir.current()
		if err != nil || h == nil {
			t.Fatalf("after a kill: %v, %v", h, err)
		}
		seen[h.path] = true
	}
	cancel()
	if err := <-read; err != nil {
		t.Error(err)
	}
	if len(seen) < 6 {
		t.Errorf("%d versions were current after 12 kills; the writers hardly wrote", len(seen))
	}
}

// readPairs reads as the manual tells: the directory's name once, then both files.
func readPairs(ctx context.Context, path string) error {
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			if n < 100 {
				return fmt.Errorf("read %d times only", n)
			}
			return nil
		}
		now, err := filepath.EvalSymlinks(filepath.Join(path, "..data"))
		if err != nil {
			return err
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(now, "tls.crt"), filepath.Join(now, "tls.key")); err != nil {
			return err
		}
	}
}

func TestCertDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "certs")
	dir, err := openCertDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := dir.current(); h != nil || err != nil {
		t.Fatalf("an empty directory: %v, %v", h, err)
	}
	now := time.Now()
	versions := []version{anyVersion(t), anyVersion(t), anyVersion(t)}
	var paths []string
	for i, v := range versions {
		if err := dir.put(v, now); err != nil {
			t.Fatal(err)
		}
		h, err := dir.current()
		if err != nil || h.record.GetId() != "cert_a" {
			t.Fatalf("version %d: %v, %v", i, h, err)
		}
		paths = append(paths, h.path)
		for name, want := range map[string][]byte{"tls.crt": v.chain, "tls.key": v.secret, "ca.crt": v.roots} {
			if got, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(got) != string(want) {
				t.Errorf("version %d: %s is another one's (%v)", i, name, err)
			}
		}
	}
	for file, want := range map[string]fs.FileMode{path: 0o700, paths[2]: 0o700, filepath.Join(paths[2], "tls.key"): 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %v", file, info.Mode(), err, want)
		}
	}
	// Old versions go when nobody can be reading them any more; the last one before stays.
	litter := dir.file("..data_killed")
	if err := os.Symlink("nowhere", litter); err != nil {
		t.Fatal(err)
	}
	if err := dir.put(anyVersion(t), now.Add(2*keepOld)); err != nil {
		t.Fatal(err)
	}
	for file, there := range map[string]bool{paths[0]: false, paths[1]: false, paths[2]: true, litter: false} {
		if _, err := os.Lstat(file); (err == nil) != there {
			t.Errorf("%s: %v; want it there: %v", file, err, there)
		}
	}
	// A damaged version is none, and says so.
	h, err := dir.current()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(h.path, "tls.key"), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.current(); err == nil {
		t.Error("a damaged key is taken")
	}
}

// Files that are somebody else's are not touched.
func TestCertDirOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "certs")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "tls.key"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCertDir(path); err == nil || !strings.Contains(err.Error(), "give another --dir") {
		t.Errorf("%v, want a refusal", err)
	}
	if _, err := os.Lstat(filepath.Join(path, "..data")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A directory that others can read, or write to, is not for keys.
func TestCertDirOpenToOthers(t *testing.T) {
	for mode, refused := range map[fs.FileMode]bool{0o700: false, 0o750: true, 0o701: true, 0o777: true} {
		path := t.TempDir()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := openCertDir(path)
		if refused != (err != nil) || err != nil && !strings.Contains(err.Error(), "chmod 700") {
			t.Errorf("mode %v: %v, want a refusal: %v", mode, err, refused)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v became %v, %v", mode, info.Mode(), err)
		}
	}
}
