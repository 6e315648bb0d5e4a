package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// oauthTokenLife is how long an access token is good for, as in the real API.
const oauthTokenLife = time.Hour

// oauthClient is an OAuth client that may make auth keys with its tags.
type oauthClient struct {
	id     string
	secret string
	tags   []string // nil: any
}

type oauthToken struct {
	client  *oauthClient
	expires time.Time
}

// addOAuthClientLocked makes an OAuth client and returns it.
func (t *tailnet) addOAuthClientLocked(tags []string) *oauthClient {
	id := "k" + randomHex(5) + "LOCAL"
	oc := &oauthClient{id: id, secret: fmt.Sprintf("tskey-client-%s-%s", id, randomHex(16)), tags: tags}
	t.oauthClients[oc.secret] = oc
	return oc
}

// serveOAuthToken answers POST /api/v2/oauth/token: a client secret (as the
// password of HTTP Basic or as a form field) for an access token.
func (c *control) serveOAuthToken(w http.ResponseWriter, r *http.Request) {
	_, secret, ok := r.BasicAuth()
	if !ok {
		secret = r.PostFormValue("client_secret")
	}
	t := c.net
	t.mu.Lock()
	defer t.mu.Unlock()
	oc := t.oauthClients[secret]
	if oc == nil {
		t.journal.add("oauth-refused", nil, "unknown client secret")
		writeError(w, http.StatusUnauthorized, "API token invalid")
		return
	}
	token := "tskey-api-" + randomHex(16)
	t.oauthTokens[token] = oauthToken{oc, time.Now().Add(oauthTokenLife)}
	t.journal.add("oauth-token", nil, oc.id)
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(oauthTokenLife.Seconds()), "scope": "devices",
	})
}

// keyRequest is the body of POST /api/v2/tailnet/-/keys.
type keyRequest struct {
	Capabilities struct {
		Devices struct {
			Create struct {
				Reusable      bool     `json:"reusable"`
				Ephemeral     bool     `json:"ephemeral"`
				Preauthorized bool     `json:"preauthorized"`
				Tags          []string `json:"tags"`
			} `json:"create"`
		} `json:"devices"`
	} `json:"capabilities"`
}

// serveAPIKeys answers POST /api/v2/tailnet/-/keys: it makes an auth key for
// the holder of an access token. Such keys must have tags.
func (c *control) serveAPIKeys(w http.ResponseWriter, r *http.Request) {
	var req keyRequest
	if !readJSON(w, r, &req) {
		return
	}
	t := c.net
	t.mu.Lock()
	defer t.mu.Unlock()
	token, ok := t.oauthTokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if !ok || time.Now().After(token.expires) {
		writeError(w, http.StatusUnauthorized, "API token invalid")
		return
	}
	create := req.Capabilities.Devices.Create
	wrong := slices.DeleteFunc(slices.Clone(create.Tags), func(tag string) bool {
		return token.client.tags == nil || slices.Contains(token.client.tags, tag)
	})
	if len(create.Tags) == 0 || len(wrong) > 0 {
		problem := fmt.Sprintf("requested tags %v are invalid or not permitted", wrong)
		t.journal.add("oauth-refused", nil, problem)
		writeError(w, http.StatusBadRequest, problem)
		return
	}
	k := t.addKeyLocked(keySpec{
		Reusable: create.Reusable, Ephemeral: create.Ephemeral, Preauthorized: create.Preauthorized, Tags: create.Tags,
	})
	t.journal.add("oauth-key", nil, k.id)
	now := time.Now().UTC()
	writeJSON(w, http.StatusOK, map[string]any{
		"id": k.id, "key": k.Key, "created": now, "expires": now.Add(90 * 24 * time.Hour), "capabilities": req.Capabilities,
	})
}
