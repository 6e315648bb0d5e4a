package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
)

// keySpec describes an auth key, as POST /keys takes it.
type keySpec struct {
	User          string   `json:"user"` // login of its owner; alice@ the domain if empty
	Reusable      bool     `json:"reusable"`
	Ephemeral     bool     `json:"ephemeral"`
	Preauthorized bool     `json:"preauthorized"`
	Tags          []string `json:"tags"`
	Expired       bool     `json:"expired"`
	Key           string   `json:"key"` // its text; made up if empty (Headscale's have no prefix)
}

// authKey is a key that lets nodes in without a person.
type authKey struct {
	keySpec
	id   string // the public part, which error messages name
	user *user
	uses int
}

// addKeyLocked makes an auth key and returns it.
func (t *tailnet) addKeyLocked(spec keySpec) *authKey {
	if spec.User == "" {
		spec.User = "alice@" + t.domain
	}
	k := &authKey{keySpec: spec, id: "k" + randomHex(5) + "LOCAL", user: t.userLocked(spec.User)}
	if k.Key == "" {
		k.Key = fmt.Sprintf("tskey-auth-%s-%s", k.id, randomHex(16))
	}
	t.keys[k.Key] = k
	return k
}

// checkKeyLocked says what the real control server says to a key that it does
// not take (texts from reports in the client's issue tracker; for a used one
// it names the key's public id), or nothing.
func (t *tailnet) checkKeyLocked(text string) (_ *authKey, refusal string) {
	k := t.keys[text]
	switch {
	case k == nil:
		return nil, "invalid key: API key does not exist"
	case k.Expired:
		return nil, "invalid key: API key expired"
	case !k.Reusable && k.uses > 0:
		return nil, fmt.Sprintf("invalid key: API key %s not valid", k.id)
	}
	return k, ""
}

// checkTagsLocked says why a node with a key's tags (none, for an untagged key
// or a person) may not have the tags that it asks for, or nothing. Without tag
// owners in the policy everybody may have every tag.
func (t *tailnet) checkTagsLocked(requested, keyTags []string, u *user) (refusal string) {
	var wrong []string
	for _, tag := range requested {
		if t.policy.TagOwners == nil || slices.Contains(keyTags, tag) {
			continue
		}
		owners := t.policy.TagOwners[tag]
		owned := slices.ContainsFunc(keyTags, func(k string) bool { return slices.Contains(owners, k) })
		if len(keyTags) == 0 {
			owned = slices.Contains(owners, u.login)
		}
		if !owned {
			wrong = append(wrong, tag)
		}
	}
	if len(wrong) > 0 {
		return fmt.Sprintf("requested tags %v are invalid or not permitted", wrong)
	}
	return ""
}

// randomHex returns n random bytes as hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
