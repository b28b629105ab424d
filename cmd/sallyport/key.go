package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type keyCommands struct {
	Create  keyCreate  `cmd:"" help:"Make a key. The key itself is all that goes to stdout, this once."`
	List    keyList    `cmd:"" help:"List the keys that you may see."`
	Rotate  keyRotate  `cmd:"" help:"Make a key's successor; the old one ends after an overlap."`
	Revoke  keyRevoke  `cmd:"" help:"End a key for ever, and show where that is in force."`
	Disable keyDisable `cmd:"" help:"Refuse a key until it is enabled again."`
	Enable  keyEnable  `cmd:"" help:"Accept a disabled key again."`
}

// versioned guards a change against changes that its author has not seen.
type versioned struct {
	ResourceVersion string `help:"Refuse when the thing changed since you read this version of it (list shows it with -o json). Empty: whatever it is now." placeholder:"VERSION"`
}

// or is the version that was given, or the one that was just read.
func (v versioned) or(now string) string {
	if v.ResourceVersion != "" {
		return v.ResourceVersion
	}
	return now
}

type keyCreate struct {
	For         string   `help:"Whose key: me, or the id of a service account or user (sa_…, u_…)." required:"" placeholder:"OWNER"`
	Name        string   `help:"What the key is for." required:""`
	Description string   `help:"More of it."`
	Expires     ending   `help:"After how long (30d, 12h) or when (2027-01-31) it ends; two years at most." default:"30d" placeholder:"30d"`
	ReadOnly    bool     `help:"Narrow it to what changes nothing."`
	Namespace   []string `help:"Narrow it to these namespaces." placeholder:"NAMESPACE"`
	Source      []string `help:"Narrow it to these networks." placeholder:"CIDR"`
	Out         string   `help:"New file for the key (mode 0600), instead of stdout." placeholder:"FILE"`
}

// Run makes the key. The file is opened before, so that no key is made whose
// token would be lost.
func (c *keyCreate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	if _, err := os.Lstat(c.Out); c.Out != "" && err == nil {
		return fmt.Errorf("%s is there already and may hold a key; give another --out", c.Out)
	}
	_, owner, err := client.owner(ctx, c.For)
	if err != nil {
		return err
	}
	file, err := openOut(c.Out)
	if err != nil {
		return err
	}
	defer file.discard()
	expires := c.Expires.from(s.now())
	limits := &adminv1.ApiKeyLimits{ReadOnly: c.ReadOnly, Sources: c.Source}
	for _, name := range c.Namespace {
		limits.Namespaces = append(limits.Namespaces, client.fullName(name))
	}
	made, err := client.admin.CreateApiKey(ctx, &adminv1.CreateApiKeyRequest{AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix), Limits: limits,
		Spec: &adminv1.ApiKeySpec{OwnerId: owner, DisplayName: c.Name, Description: c.Description, ExpiryTime: timestamppb.New(expires)}})
	if err != nil {
		return err
	}
	token := made.GetToken()
	if file != nil {
		made.Token = ""
	}
	if err := s.handOver(file, token, func() error {
		return s.show(made, func() error {
			s.note("key %s of %s, until %s; it is not shown again", made.GetKeyId(), owner, expires.UTC().Format(time.RFC3339))
			return nil
		})
	}); err != nil {
		return err
	}
	return client.settle(ctx, &operation.AsyncOperation{Id: made.GetAsyncOperationId()})
}

// outFile is where a token goes; nil: stdout.
type outFile struct{ *pendingFile }

func openOut(path string) (*outFile, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nil is stdout
	}
	f, err := startFile(path)
	if err != nil {
		return nil, err
	}
	return &outFile{f}, nil
}

func (f *outFile) discard() {
	if f != nil {
		f.pendingFile.discard()
	}
}

// handOver gives a token to its owner: into the file, or to stdout, where
// tell's JSON already holds it. It comes before everything that can fail.
func (s *session) handOver(file *outFile, token string, tell func() error) error {
	switch {
	case file != nil:
		if err := file.finish(token + "\n"); err != nil {
			return err
		}
	case !s.json:
		if _, err := fmt.Fprintln(s.stdout, token); err != nil {
			return fmt.Errorf("writing the key: %w", err)
		}
	}
	return tell()
}

// owner reads "me" or a principal's id.
func (c *client) owner(ctx context.Context, who string) (identity.OwnerType, string, error) {
	switch {
	case who == "me":
		me, err := c.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
		if err != nil {
			return 0, "", err
		}
		if account := me.GetServiceAccount(); account != nil {
			return identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT, account.GetId(), nil
		}
		return identity.OwnerType_OWNER_TYPE_USER, me.GetUser().GetId(), nil
	case strings.HasPrefix(who, sallyport.ServiceAccountPrefix):
		return identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT, who, nil
	case strings.HasPrefix(who, sallyport.UserPrefix):
		return identity.OwnerType_OWNER_TYPE_USER, who, nil
	}
	return 0, "", fmt.Errorf("%q is nobody's id: use me, or an id that begins with sa_ or u_ (`sallyport service-account list`)", who)
}

type keyList struct {
	Owner string `help:"Only this owner's: me, or an id (sa_…, u_…)." placeholder:"OWNER"`
}

// Run lists all pages.
func (c *keyList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request := &adminv1.ListApiKeysRequest{}
	if c.Owner != "" {
		if _, request.OwnerId, err = client.owner(ctx, c.Owner); err != nil {
			return err
		}
	}
	all := &adminv1.ListApiKeysResponse{}
	for {
		page, err := client.admin.ListApiKeys(ctx, request)
		if err != nil {
			return err
		}
		all.ApiKeys = append(all.ApiKeys, page.GetApiKeys()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, k := range all.GetApiKeys() {
			rows = append(rows, []string{k.GetId(), k.GetSpec().GetDisplayName(), k.GetSpec().GetOwnerId(), keyState(k),
				moment(k.GetSpec().GetExpiryTime()), lastUse(k)})
		}
		return s.table("no keys", []string{"ID", "NAME", "OWNER", "STATE", "EXPIRES", "LAST USED"}, rows)
	})
}

// keyState is what the key is good for, and until when if it was rotated.
func keyState(k *adminv1.ApiKey) string {
	state := enumName(k.GetState().String(), "STATE_")
	if k.GetState() == adminv1.ApiKey_STATE_RETIRING {
		return state + " until " + moment(k.GetRetiresTime())
	}
	return state
}

func lastUse(k *adminv1.ApiKey) string {
	if k.GetLastUsedTime() == nil {
		return "never"
	}
	return moment(k.GetLastUsedTime())
}

type keyRotate struct {
	Key     string  `arg:"" help:"The old key's id."`
	Overlap span    `help:"How long the old key still works; 0: it ends at once." default:"24h" placeholder:"24h"`
	Name    string  `help:"The new key's name. Empty: the old one's."`
	Expires *ending `help:"After how long or when the new key ends. Empty: it lives as long as the old one was made for." placeholder:"30d"`
	Out     string  `help:"File for the new key (mode 0600), instead of stdout; the old key's file may be replaced." placeholder:"FILE"`
}

// Run makes the successor.
func (c *keyRotate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	file, err := openOut(c.Out)
	if err != nil {
		return err
	}
	defer file.discard()
	request := &adminv1.RotateApiKeyRequest{KeyId: c.Key, Overlap: durationpb.New(time.Duration(c.Overlap)), DisplayName: c.Name,
		AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)}
	if c.Expires != nil {
		request.ExpiryTime = timestamppb.New(c.Expires.from(s.now()))
	}
	made, err := client.admin.RotateApiKey(ctx, request)
	if err != nil {
		return err
	}
	token := made.GetToken()
	if file != nil {
		made.Token = ""
	}
	if err := s.handOver(file, token, func() error {
		return s.show(made, func() error {
			s.note("key %s succeeds %s, which ends at %s; it is not shown again", made.GetKeyId(), c.Key, moment(made.GetOldKeyRetiresTime()))
			return nil
		})
	}); err != nil {
		return err
	}
	if c.Key == client.keyID { // it may have ended already
		s.note("this login uses the old key: log in with the new one")
		return nil
	}
	return client.settle(ctx, &operation.AsyncOperation{Id: made.GetAsyncOperationId()})
}

type keyRevoke struct {
	versioned
	Key  string `arg:"" help:"The key's id."`
	Wait span   `help:"How long to wait for authorizers to enforce it." default:"5s" placeholder:"5s"`
}

// Run deletes the key and waits for the proof.
func (c *keyRevoke) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: c.Key})
	if err != nil {
		return err
	}
	id := sallyport.NewID(sallyport.OperationPrefix)
	done, err := client.DeleteApiKey(ctx, &cloudservice.DeleteApiKeyRequest{KeyId: c.Key,
		ResourceVersion: c.or(seen.GetApiKey().GetResourceVersion()), AsyncOperationId: id})
	if err != nil {
		return err
	}
	receipt, err := client.receipt(ctx, id, time.Duration(c.Wait))
	if status.Code(errors.Unwrap(err)) == codes.Unauthenticated && c.Key == client.keyID {
		return s.show(done, func() error {
			s.note("key %s is revoked. It was this login's own key, so log in with another one; `sallyport receipt %s` then shows where that is in force", c.Key, id)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("key %s is revoked (operation %s), but not where that is in force: %w", c.Key, id, err)
	}
	if err := s.show(receipt, func() error {
		_, err := fmt.Fprintf(s.stdout, "key %s revoked: %s\n", c.Key, oneLine(summary(receipt)))
		return err
	}); err != nil {
		return err
	}
	return proved(receipt)
}

type keyDisable struct {
	versioned
	Key string `arg:"" help:"The key's id."`
}

// Run disables the key.
func (c *keyDisable) Run(ctx context.Context, s *session) error {
	return s.setDisabled(ctx, c.Key, c.versioned, true)
}

type keyEnable struct {
	versioned
	Key string `arg:"" help:"The key's id."`
}

// Run enables the key.
func (c *keyEnable) Run(ctx context.Context, s *session) error {
	return s.setDisabled(ctx, c.Key, c.versioned, false)
}

func (s *session) setDisabled(ctx context.Context, id string, v versioned, disabled bool) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: id})
	if err != nil {
		return err
	}
	spec := seen.GetApiKey().GetSpec()
	spec.Disabled = disabled
	done, err := client.UpdateApiKey(ctx, &cloudservice.UpdateApiKeyRequest{KeyId: id, Spec: spec,
		ResourceVersion: v.or(seen.GetApiKey().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	if id != client.keyID { // its own key cannot ask any more
		if err := client.settle(ctx, done.GetAsyncOperation()); err != nil {
			return err
		}
	}
	return s.show(done, func() error {
		word := "enabled"
		if disabled {
			word = "disabled"
		}
		_, err := fmt.Fprintf(s.stdout, "key %s %s (operation %s)\n", id, word, done.GetAsyncOperation().GetId())
		return err
	})
}
