package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// An OAuth client secret becomes an auth key in two requests. tsnet can do it
// too (tailscale.com/feature/oauthkey), but in a start that nothing can cancel:
// a server that hangs would hold the node, and the state directory, for ever.

const (
	oauthPrefix  = "tskey-client-"
	oauthBaseURL = "https://api.tailscale.com"
	// oauthAnswerBytes is far above what the API answers.
	oauthAnswerBytes = 64 << 10
	// oauthWhyBytes bounds how much of the server's reasons an error repeats.
	oauthWhyBytes = 300
)

// oauthSecret is a client secret with the attributes that Tailscale's own
// clients understand: tskey-client-x?ephemeral=true&preauthorized=true&baseURL=...
type oauthSecret struct {
	value         string
	baseURL       string
	ephemeral     bool
	preauthorized bool
}

func parseSecret(text string, ephemeral bool) (oauthSecret, error) {
	value, attributes, _ := strings.Cut(text, "?")
	s := oauthSecret{value: value, baseURL: oauthBaseURL, ephemeral: ephemeral}
	query, err := url.ParseQuery(attributes)
	if err != nil {
		return s, failf(codeInvalid, "the client secret's attributes (after \"?\") cannot be read")
	}
	for name := range query {
		switch name {
		case "ephemeral":
			s.ephemeral, err = strconv.ParseBool(query.Get(name))
		case "preauthorized":
			s.preauthorized, err = strconv.ParseBool(query.Get(name))
		case "baseURL":
			s.baseURL = strings.TrimSuffix(query.Get(name), "/")
		default:
			return s, failf(codeInvalid, "the client secret has an unknown attribute %q", name)
		}
		if err != nil {
			return s, failf(codeInvalid, "the client secret's attribute %s must be true or false", name)
		}
	}
	return s, nil
}

// exchangeSecret returns a single-use auth key for a device with these tags
// (POST /api/v2/oauth/token, POST /api/v2/tailnet/-/keys).
func exchangeSecret(ctx context.Context, text string, tags []string, ephemeral bool) (string, error) {
	s, err := parseSecret(text, ephemeral)
	if err != nil {
		return "", err
	}
	credentials := clientcredentials.Config{
		ClientID:     "cc-tailscale", // the API takes the id from the secret
		ClientSecret: s.value,
		TokenURL:     s.baseURL + "/api/v2/oauth/token",
	}
	body, err := json.Marshal(map[string]any{
		"description": "cc-tailscale",
		"capabilities": map[string]any{"devices": map[string]any{"create": map[string]any{
			"reusable": false, "ephemeral": s.ephemeral, "preauthorized": s.preauthorized, "tags": tags,
		}}},
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.baseURL+"/api/v2/tailnet/-/keys", bytes.NewReader(body))
	if err != nil {
		return "", failf(codeInvalid, "the client secret's baseURL is not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := credentials.Client(ctx).Do(req)
	if err != nil {
		return "", s.failure(ctx, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, oauthAnswerBytes))
	if err != nil {
		return "", s.failure(ctx, err)
	}
	var key struct {
		Key     string `json:"key"`
		Message string `json:"message"`
	}
	jsonErr := json.Unmarshal(answer, &key)
	if res.StatusCode != http.StatusOK {
		return "", s.refusal("the OAuth client may not make a key", res.StatusCode, key.Message)
	}
	if jsonErr != nil || key.Key == "" {
		return "", failf(codeKey, "the OAuth server's answer holds no key")
	}
	return key.Key, nil
}

func (s *oauthSecret) failure(ctx context.Context, err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case ctx.Err() != nil:
		return errNodeClosed
	case errors.As(err, &refused):
		why := refused.ErrorDescription
		if why == "" {
			why = refused.ErrorCode
		}
		return s.refusal("the OAuth client secret was refused", refused.Response.StatusCode, why)
	}
	var requested *url.Error
	if errors.As(err, &requested) { // its text would hold the URL
		err = requested.Err
	}
	return failf(codeUnreachable, "the OAuth server cannot be reached: %s", fmt.Sprint(err))
}

// refusal is the error for an answer that is not 200. why is the server's own
// text: it is shortened, and neither holds the secret nor draws on a terminal.
func (s *oauthSecret) refusal(what string, status int, why string) error {
	why = strings.ReplaceAll(why, s.value, redacted)
	why = strings.Map(printable, keyPattern.ReplaceAllString(why, redacted))
	if len(why) > oauthWhyBytes {
		why = strings.ToValidUTF8(why[:oauthWhyBytes], "") + "…"
	}
	if status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
		return failf(codeUnreachable, "the OAuth server cannot be reached: HTTP %d %s", status, why)
	}
	return failf(codeKey, "%s: HTTP %d %s", what, status, why)
}
