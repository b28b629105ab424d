package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"

	"github.com/sallyport-iam/sallyport/credential"
)

// apiKeyEnv holds the key for login when no flag gives it.
const apiKeyEnv = "SALLYPORT_API_KEY"

type loginCommand struct {
	Address    string `help:"Where the service is." required:"" env:"SALLYPORT_ADDRESS" placeholder:"HOST:PORT"`
	CA         string `help:"PEM file of the CA to trust, instead of the system's." name:"ca" env:"SALLYPORT_CA" placeholder:"FILE"`
	Plaintext  bool   `help:"Without TLS. For loopback addresses only."`
	APIKeyFile string `help:"File with the key. Recommended." xor:"key" placeholder:"FILE"`
	APIKey     string `help:"\"-\" to read the key from stdin. Neither this nor --api-key-file: from SALLYPORT_API_KEY. (The key itself is accepted, and stays in the shell's history.)" xor:"key" placeholder:"-"`
	Cert       string `help:"File with a client certificate of the managed CA and its issuer, instead of a key. It stays where it is and is read by every command, so that a renewed one counts." and:"cert" xor:"key" placeholder:"FILE"`
	Key        string `help:"File with the certificate's private key." and:"cert" placeholder:"FILE"`
}

// Run checks the key here, then at the service, and keeps it.
func (c *loginCommand) Run(ctx context.Context, s *session) error {
	if _, err := profilePath(s.profile); err != nil {
		return err
	}
	if c.Plaintext && c.Cert != "" {
		return errors.New("--cert and --plaintext exclude each other: a client certificate is part of TLS")
	}
	if c.Plaintext && c.CA != "" {
		return errors.New("--ca and --plaintext exclude each other: without TLS there is nothing to trust")
	}
	p := profile{Address: c.Address, Plaintext: c.Plaintext}
	var err error
	if c.Cert != "" {
		p.Certificate, p.PrivateKey, err = c.files()
	} else {
		p.Key, err = c.read(s)
	}
	if err != nil {
		return err
	}
	if credential.IsToken(p.Key.Reveal()) {
		return errors.New("this is an access token, which is good for minutes only: programs send it as `Authorization: Bearer`; log in with an API key, or with --cert")
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return fmt.Errorf("reading the CA: %w", err)
		}
		p.CA = string(pem)
	}
	client, err := dial(p, s.timeout)
	if err != nil {
		return err
	}
	defer client.close()
	who, err := client.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if err != nil {
		return err
	}
	path, err := p.save(s.profile)
	if err != nil {
		return err
	}
	if c.Cert != "" {
		s.note("logged in; %s says to use the certificate in %s", path, p.Certificate)
	} else {
		s.note("logged in; the key is kept in %s", path)
	}
	return s.identity(client, who)
}

// files are the certificate's and its key's, wherever a command is called from.
func (c *loginCommand) files() (cert, key string, err error) {
	if cert, err = filepath.Abs(c.Cert); err == nil {
		key, err = filepath.Abs(c.Key)
	}
	if err != nil {
		return "", "", fmt.Errorf("finding the certificate: %w", err)
	}
	return cert, key, nil
}

// read takes the key from where the flags say, without what surrounds it.
func (c *loginCommand) read(s *session) (credential.Secret, error) {
	const most = 4 << 10 // a key is a tenth of it
	var text []byte
	switch {
	case c.APIKeyFile != "":
		return readKeyFile(c.APIKeyFile)
	case c.APIKey == "-":
		var err error
		if text, err = io.ReadAll(io.LimitReader(s.stdin, most)); err != nil {
			return "", fmt.Errorf("reading the key from stdin: %w", err)
		}
	case c.APIKey != "":
		s.note("warning: a key on the command line stays in the shell's history and shows in the list of processes; use --api-key-file or --api-key -")
		text = []byte(c.APIKey)
	default:
		text = []byte(s.getenv(apiKeyEnv))
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return "", errors.New("no API key was given: use --api-key-file FILE, --api-key - with the key on stdin, or set " + apiKeyEnv)
	}
	return credential.Secret(key), nil
}

func readKeyFile(path string) (credential.Secret, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return "", fmt.Errorf("%s is empty; it should hold an API key", path)
	}
	return credential.Secret(key), nil
}

type whoamiCommand struct{}

// Run asks the service, so that it tells of a key that has ended.
func (c *whoamiCommand) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	who, err := client.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if err != nil {
		return err
	}
	return s.identity(client, who)
}

func (s *session) identity(c *client, who *cloudservice.GetCurrentIdentityResponse) error {
	return s.show(who, func() error {
		kind, id, name := "user", who.GetUser().GetId(), who.GetUser().GetSpec().GetEmail()
		access := who.GetUser().GetSpec().GetAccess()
		if account := who.GetServiceAccount(); account != nil {
			kind, id, name, access = "service account", account.GetId(), account.GetSpec().GetName(), account.GetSpec().GetAccess()
		}
		fields := [][2]string{{kind, name}, {"id", id}, {"account", string(c.account)},
			{"account role", roleName(access.GetAccountAccess().GetRole())}}
		if key := who.GetPrincipalApiKey(); key != nil {
			fields = append(fields, [2]string{"key", key.GetId() + " (" + key.GetSpec().GetDisplayName() + ")"},
				[2]string{"key ends", moment(key.GetSpec().GetExpiryTime())})
		}
		if c.pair != nil {
			fields = append(fields, [2]string{"certificate", credential.Fingerprint(c.pair.Leaf)}, [2]string{"certificate ends", c.pair.Leaf.NotAfter.UTC().Format(time.RFC3339)})
		}
		return s.fields(append(fields, [2]string{"service", c.profile.Address})...)
	})
}

// roleName is a role as the flags spell it, "" for none.
func roleName(role identity.AccountAccess_Role) string {
	if role == identity.AccountAccess_ROLE_UNSPECIFIED {
		return ""
	}
	return enumName(role.String(), "ROLE_")
}

// enumName is the name of an enumeration's value as people write it.
func enumName(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", "-")
}
