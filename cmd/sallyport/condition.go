package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

// conditions are what the flags ask of claims, one for each claim, in the order of
// its first flag.
func (f ruleFlags) conditions() ([]*adminv1.ClaimCondition, error) {
	var list []*adminv1.ClaimCondition
	of := map[string]*adminv1.ClaimCondition{}
	add := func(flag string, given []string, put func(c *adminv1.ClaimCondition, value string) error) error {
		for _, text := range given {
			name, value, ok := strings.Cut(text, "=")
			if !ok || name == "" || value == "" {
				return fmt.Errorf("--%s %q: give the claim's name and the value, as --%[1]s repository_id=123456", flag, text)
			}
			if of[name] == nil {
				of[name] = &adminv1.ClaimCondition{Claim: name}
				list = append(list, of[name])
			}
			if err := put(of[name], value); err != nil {
				return fmt.Errorf("--%s %q: %w", flag, text, err)
			}
		}
		return nil
	}
	err := add("claim", f.Claim, func(c *adminv1.ClaimCondition, value string) error {
		c.Equals = append(c.Equals, structpb.NewStringValue(value))
		return nil
	})
	if err == nil {
		err = add("claim-prefix", f.ClaimPrefix, func(c *adminv1.ClaimCondition, value string) error {
			c.Prefixes = append(c.Prefixes, value)
			return nil
		})
	}
	if err == nil {
		err = add("claim-json", f.ClaimJSON, func(c *adminv1.ClaimCondition, text string) error {
			var value structpb.Value
			if err := value.UnmarshalJSON([]byte(text)); err != nil {
				return fmt.Errorf("%q is not a number, true or false", text)
			}
			c.Equals = append(c.Equals, &value)
			return nil
		})
	}
	return list, err
}

func conditionsText(list []*adminv1.ClaimCondition) string {
	var parts []string
	for _, c := range list {
		parts = append(parts, conditionText(c))
	}
	return strings.Join(parts, ", ")
}

// conditionText is a condition as people read it: sub="a" or "b…".
func conditionText(c *adminv1.ClaimCondition) string {
	var values []string
	for _, v := range c.GetEquals() {
		values = append(values, quoted(v.AsInterface()))
	}
	for _, p := range c.GetPrefixes() {
		values = append(values, quoted(p)+"…")
	}
	return c.GetClaim() + "=" + strings.Join(values, " or ")
}

func quoted(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
