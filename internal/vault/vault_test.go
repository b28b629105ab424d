package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

func create(t *testing.T) (string, *vault.Vault) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "operator-key")
	if err := vault.Create(file); err != nil {
		t.Fatal(err)
	}
	return file, open(t, file)
}

func open(t *testing.T, file string) *vault.Vault {
	t.Helper()
	v, err := vault.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func seal(t *testing.T, v *vault.Vault, plain, context string) []byte {
	t.Helper()
	sealed, err := v.Seal([]byte(plain), []byte(context))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealedOpensInItsPlaceOnly(t *testing.T) {
	file, v := create(t)
	sealed := seal(t, v, "secret", "here")
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("the secret can be read from what is sealed")
	}
	if plain, err := open(t, file).Open(sealed, []byte("here")); err != nil || string(plain) != "secret" {
		t.Errorf("opened %q, %v", plain, err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	_, other := create(t)
	for name, try := range map[string]func() ([]byte, error){
		"another context": func() ([]byte, error) { return v.Open(sealed, []byte("there")) },
		"another key":     func() ([]byte, error) { return other.Open(sealed, []byte("here")) },
		"changed":         func() ([]byte, error) { return v.Open(changed, []byte("here")) },
		"nothing":         func() ([]byte, error) { return v.Open(nil, []byte("here")) },
	} {
		if plain, err := try(); err == nil || plain != nil {
			t.Errorf("%s: opened %q, %v", name, plain, err)
		}
	}
}

func TestRotatedKeyOpensWhatWasSealedBefore(t *testing.T) {
	file, before := create(t)
	old := seal(t, before, "old", "")
	for range 3 {
		if err := vault.Rotate(file); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, file)
	_, other := create(t)
	if sealed := seal(t, after, "new", ""); !after.Has(old) || !after.Has(sealed) || before.Has(sealed) || other.Has(old) || after.Has(nil) || after.Has(old[:4]) {
		t.Error("it is not known which file sealed something")
	}
	if plain, err := after.Open(old, nil); err != nil || string(plain) != "old" {
		t.Errorf("after a rotation: %q, %v", plain, err)
	}
	if _, err := before.Open(seal(t, after, "new", ""), nil); err == nil {
		t.Error("the rotated key still seals with the old one")
	}
	checkFolder(t, file)
}

func TestAKeyIsNeverReplaced(t *testing.T) {
	file, v := create(t)
	sealed := seal(t, v, "secret", "")
	if err := vault.Create(file); !errors.Is(err, sallyport.AlreadyExists) {
		t.Errorf("creating it again: %v, want AlreadyExists", err)
	}
	if _, err := open(t, file).Open(sealed, nil); err != nil {
		t.Error(err)
	}
	checkFolder(t, file)
}

// checkFolder finds the key alone, for its owner alone.
func checkFolder(t *testing.T, file string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(list) != 1 {
		t.Errorf("beside the key: %v, %v", list, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	file, _ := create(t)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602, 0o660} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Open(file); !errors.Is(err, sallyport.Invalid) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v, want Invalid and what to do", mode, err)
		}
	}
	if err := vault.Rotate(file); err == nil {
		t.Error("rotated a key that others can change")
	}
	if _, err := vault.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("no file: %v, want NotFound", err)
	}
	for _, text := range []string{"", "{}", "key", `{"primaryKeyId":1,"key":[]}`} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Open(bad); !errors.Is(err, sallyport.Invalid) {
			t.Errorf("a file with %q: %v, want Invalid", text, err)
		}
	}
}
