package apikeys

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
)

const (
	minLife        = time.Minute
	maxDisplayName = 128 // characters
	maxDescription = 1024
	maxNamespaces  = 100 // that one key is narrowed to
	maxSources     = 32
)

// CreateParams says what key to make.
type CreateParams struct {
	Owner       sallyport.Principal
	DisplayName string    // 1 to 128 characters; need not be unique
	Description string    // up to 1024 characters
	Expires     time.Time // finer than microseconds is cut
	Disabled    bool
	Limits      sallyport.Limits // zero: as much as the owner may
}

// check brings the parameters into the form that is kept.
func (p *CreateParams) check(now time.Time, maxLife time.Duration) error {
	p.Expires = sallyport.Micros(p.Expires)
	switch {
	case p.Owner.ID == "":
		return sallyport.InvalidField("spec.owner_id", "is missing: give the id of the user or service account that the key is for")
	case p.Owner.Kind != sallyport.User && p.Owner.Kind != sallyport.ServiceAccount:
		return sallyport.InvalidField("spec.owner_type", "is missing: say whether the owner is a user or a service account")
	case p.Owner.Kind == sallyport.User && strings.HasPrefix(p.Owner.ID, sallyport.ServiceAccountPrefix),
		p.Owner.Kind == sallyport.ServiceAccount && strings.HasPrefix(p.Owner.ID, sallyport.UserPrefix):
		return sallyport.InvalidField("spec.owner_type", "says %s, but the owner's id is not one of a %[1]s; say what the owner is", noun(p.Owner))
	}
	if err := checkTexts(p.DisplayName, p.Description); err != nil {
		return err
	}
	if err := checkExpiry(p.Expires, now, maxLife); err != nil {
		return err
	}
	limits, err := canonical(p.Limits)
	p.Limits = limits
	return err
}

func checkTexts(displayName, description string) error {
	if strings.TrimSpace(displayName) == "" {
		return sallyport.InvalidField("spec.display_name", "is missing: give the key a name that tells what uses it")
	}
	if utf8.RuneCountInString(displayName) > maxDisplayName {
		return sallyport.InvalidField("spec.display_name", "is longer than %d characters", maxDisplayName)
	}
	if !utf8.ValidString(displayName) || strings.ContainsFunc(displayName, unicode.IsControl) {
		return sallyport.InvalidField("spec.display_name", "has characters that cannot be printed")
	}
	if utf8.RuneCountInString(description) > maxDescription {
		return sallyport.InvalidField("spec.description", "is longer than %d characters", maxDescription)
	}
	unprintable := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) }
	if !utf8.ValidString(description) || strings.ContainsFunc(description, unprintable) {
		return sallyport.InvalidField("spec.description", "has characters that cannot be printed")
	}
	return nil
}

func checkExpiry(expires, now time.Time, maxLife time.Duration) error {
	switch {
	case expires.IsZero() || expires.Unix() == 0:
		return sallyport.InvalidField("spec.expiry_time", "is missing: a key must expire, at most %d days from now", int(maxLife.Hours()/24))
	case !expires.After(now):
		return sallyport.InvalidField("spec.expiry_time", "is in the past")
	case expires.Before(now.Add(minLife)):
		return sallyport.InvalidField("spec.expiry_time", "is less than a minute from now")
	case expires.After(now.Add(maxLife)):
		return sallyport.InvalidField("spec.expiry_time", "is too far away: at most %d days from now", int(maxLife.Hours()/24))
	}
	return nil
}

// canonical sorts the limits and takes out what is in them twice, so that equal
// limits have equal bytes in the object. An empty list is refused: authorizers
// read it as none, which is no limit.
func canonical(l sallyport.Limits) (sallyport.Limits, error) {
	switch {
	case l.Namespaces != nil && len(l.Namespaces) == 0:
		return l, sallyport.InvalidField("limits.namespaces", "is empty: leave it out if the key is good for all namespaces")
	case len(l.Namespaces) > maxNamespaces:
		return l, sallyport.InvalidField("limits.namespaces", "has more than %d", maxNamespaces)
	case l.Sources != nil && len(l.Sources) == 0:
		return l, sallyport.InvalidField("limits.sources", "is empty: leave it out if the key may be used from anywhere")
	case len(l.Sources) > maxSources:
		return l, sallyport.InvalidField("limits.sources", "has more than %d", maxSources)
	}
	for _, n := range l.Namespaces {
		if !strings.HasPrefix(string(n), sallyport.NamespacePrefix) || len(n) > 64 {
			return l, sallyport.InvalidField("limits.namespaces", "has something that is not a namespace's id")
		}
	}
	namespaces := slices.Clone(l.Namespaces)
	slices.Sort(namespaces)
	l.Namespaces = slices.Compact(namespaces)
	sources := slices.Clone(l.Sources)
	for i, p := range sources {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return l, sallyport.InvalidField("limits.sources", "has something that is not an IPv4 or IPv6 prefix such as 192.0.2.0/24")
		}
		sources[i] = p.Masked()
	}
	slices.SortFunc(sources, netip.Prefix.Compare)
	l.Sources = slices.Compact(sources)
	return l, nil
}

// UpdateParams is a key's whole changeable part. Owner and Expires cannot
// change: they are zero or what they are.
type UpdateParams struct {
	DisplayName string
	Description string
	Disabled    bool
	Owner       sallyport.Principal
	Expires     time.Time // compared to the second, as some clients keep it
}

// check compares with what the key is: what cannot change, then whether anything does.
func (p UpdateParams) check(key Key, now time.Time) error {
	switch {
	case p.Owner.ID != "" && p.Owner.ID != key.Owner.ID:
		return sallyport.InvalidField("spec.owner_id", "cannot be changed: create a key for the other owner")
	case p.Owner.Kind != "" && p.Owner.Kind != key.Owner.Kind:
		return sallyport.InvalidField("spec.owner_type", "cannot be changed: create a key for the other owner")
	case !p.Expires.IsZero() && !p.Expires.Truncate(time.Second).Equal(key.Expires.Truncate(time.Second)):
		return sallyport.InvalidField("spec.expiry_time", "cannot be changed: rotate the key, or create another one")
	case p.DisplayName == key.DisplayName && p.Description == key.Description && p.Disabled == key.Disabled:
		return sallyport.Invalid.Errorf("nothing to change: it is already so")
	}
	if err := checkTexts(p.DisplayName, p.Description); err != nil {
		return err
	}
	if state := key.State(now); key.Disabled && !p.Disabled && state != Disabled {
		return sallyport.Conflict.Errorf("the key is %s and cannot be enabled; create another one", state)
	}
	return nil
}

// RotateParams says what the successor of a key is like; zero fields are as
// the old key's.
type RotateParams struct {
	// Overlap is how long the old key stays good; zero: not at all. It never
	// outlives its own expiry.
	Overlap     time.Duration
	DisplayName string
	Description string
	Expires     time.Time // zero: as long a life as the old key was given
}

// successor gives the parameters of the key that replaces old. A key that asks
// for its own successor cannot give it a longer life than it was given itself.
func (p RotateParams) successor(old Key, now time.Time, maxLife time.Duration, self bool) (CreateParams, error) {
	if p.Overlap < 0 {
		return CreateParams{}, sallyport.InvalidField("overlap", "is negative")
	}
	life := min(old.Expires.Sub(old.Created), maxLife)
	next := CreateParams{
		Owner: old.Owner, DisplayName: old.DisplayName, Description: old.Description,
		Expires: now.Add(life), Limits: old.Limits,
	}
	if p.DisplayName != "" {
		next.DisplayName = p.DisplayName
	}
	if p.Description != "" {
		next.Description = p.Description
	}
	if !p.Expires.IsZero() {
		next.Expires = p.Expires
	}
	if self && next.Expires.After(now.Add(life)) {
		return CreateParams{}, sallyport.InvalidField("expiry_time", "is too far away: a key that rotates itself gives its successor at most the life it was given, until %s",
			now.Add(life).Format(time.RFC3339))
	}
	err := next.check(now, maxLife)
	var invalid *sallyport.Error
	if errors.As(err, &invalid) {
		invalid.Field = strings.TrimPrefix(invalid.Field, "spec.") // a rotation has no spec
	}
	return next, err
}
