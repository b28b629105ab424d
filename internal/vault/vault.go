// Package vault keeps secrets at rest: what is in the database and must not be
// read from it, or from a backup of it, is encrypted under the operator's key,
// a file beside the service. The encryption is Tink's AEAD (AES-256-GCM).
package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/sallyport-iam/sallyport"
)

// Vault seals and opens secrets with one operator's key. It is safe for
// concurrent use.
type Vault struct {
	aead tink.AEAD
	keys []uint32 // ids of the keys in the file
}

// Open reads the operator's key, a Tink keyset as JSON. It refuses a file that
// others than its owner can read: a group may, as with secrets that are mounted
// into containers, when the file belongs to root.
func Open(file string) (*Vault, error) {
	handle, err := read(file)
	if err != nil {
		return nil, err
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("using the operator's key %s: %w", file, err)
	}
	v := &Vault{aead: primitive}
	for _, key := range handle.KeysetInfo().GetKeyInfo() {
		v.keys = append(v.keys, key.GetKeyId())
	}
	return v, nil
}

// Seal encrypts. What is sealed can be opened only with the same context, which
// says what the secret is and whose: it cannot be put in another's place.
func (v *Vault) Seal(plain, context []byte) ([]byte, error) {
	sealed, err := v.aead.Encrypt(plain, context)
	if err != nil {
		return nil, fmt.Errorf("sealing a secret: %w", err)
	}
	return sealed, nil
}

// Open decrypts what Seal made with this key, or with one that was rotated to it.
func (v *Vault) Open(sealed, context []byte) ([]byte, error) {
	plain, err := v.aead.Decrypt(sealed, context)
	if err != nil {
		return nil, errors.New("a secret does not open with the operator's key: it was sealed with another key, or for another place")
	}
	return plain, nil
}

// Has reports whether it has the key that sealed the secret, by the key's id:
// it tells a file that is not the right one from a secret that was damaged.
func (v *Vault) Has(sealed []byte) bool {
	const prefix = 5 // of Tink's ciphertexts: a version, and the key's id
	return len(sealed) >= prefix && sealed[0] == 1 && slices.Contains(v.keys, binary.BigEndian.Uint32(sealed[1:prefix]))
}

// Create makes an operator's key. A file that is there already is left alone
// and AlreadyExists answered.
func Create(file string) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("making an operator's key: %w", err)
	}
	temp, err := write(file, handle)
	if err != nil {
		return err
	}
	defer remove(temp)
	err = os.Link(temp, file) // unlike a rename it never replaces a file
	if errors.Is(err, fs.ErrExist) {
		return sallyport.AlreadyExists.Errorf("%s exists; what was sealed with it opens with nothing else, so it is not replaced", file)
	}
	if err == nil {
		err = syncFolder(file)
	}
	if err != nil {
		return fmt.Errorf("writing the operator's key: %w", err)
	}
	return nil
}

// Rotate adds a new key to the file, which seals from now on; what older ones
// sealed still opens. Services take it up when they start.
func Rotate(file string) error {
	handle, err := read(file)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err == nil {
		err = manager.SetPrimary(id)
	}
	if err != nil {
		return fmt.Errorf("rotating the operator's key: %w", err)
	}
	if handle, err = manager.Handle(); err != nil {
		return fmt.Errorf("rotating the operator's key: %w", err)
	}
	temp, err := write(file, handle)
	if err != nil {
		return err
	}
	defer remove(temp)
	if err = os.Rename(temp, file); err == nil {
		err = syncFolder(file)
	}
	if err != nil {
		return fmt.Errorf("writing the operator's key: %w", err)
	}
	return nil
}

func read(file string) (*keyset.Handle, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, sallyport.NotFound.Errorf("there is no operator's key %s; make one with: sallyportd operator-key create %s", file, file)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the operator's key: %w", err)
	}
	if open := info.Mode().Perm() & forbidden(info); open != 0 {
		return nil, sallyport.Invalid.Errorf("the operator's key %s can be read or changed by others (its mode is %04o); chmod 600 it, and think about whether somebody did", file, info.Mode().Perm())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the operator's key: %w", err)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	clear(data)
	if err != nil {
		return nil, sallyport.Invalid.Errorf("%s is not an operator's key as `sallyportd operator-key create` makes it", file)
	}
	return handle, nil
}

// forbidden are the permissions that the file must not give.
func forbidden(info fs.FileInfo) fs.FileMode {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid == 0 && os.Geteuid() != 0 {
		return 0o037
	}
	return 0o077
}

// write puts the keyset into a new file beside the given one, and names it.
func write(file string, handle *keyset.Handle) (temp string, err error) {
	var data bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&data)); err != nil {
		return "", fmt.Errorf("encoding the operator's key: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("writing the operator's key: %w", err)
	}
	_, err = f.Write(append(data.Bytes(), '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	clear(data.Bytes())
	if err != nil {
		remove(f.Name())
		return "", fmt.Errorf("writing the operator's key: %w", err)
	}
	return f.Name(), nil
}

// remove tidies up: what is left behind is as private as the key itself.
func remove(temp string) { _ = os.Remove(temp) }

func syncFolder(file string) error {
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}
