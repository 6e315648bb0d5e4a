package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"testing"
)

// What comes over the loopback port as HTTP, from whatever runs on this machine.
func FuzzLocalAPIRequest(f *testing.F) {
	const password = "open sesame"
	l := &loopback{apiPassword: password}
	for _, line := range []string{
		"GET /localapi/v0/status", "GET /localapi/v0/status?peers=false", "POST /localapi/v0/ping?ip=100.64.0.1",
		"GET /localapi/v0/cert/web.tail1234.ts.net?type=pair", "POST /localapi/v0/logout", "GET //localapi/v0/status",
		"GET /localapi/v0/status/../prefs", "GET /localapi/v0/%2e%2e/v0/prefs", "GET /localapi/v0/%73tatus",
		"GET /localapi/v0/cert/a.b%2f..%2f..%2fprefs", "GET /localapi/v0/cert/a.b/../../prefs", "PATCH /localapi/v0/prefs",
		"GET http://other/localapi/v0/status", "OPTIONS *", "CONNECT /localapi/v0/status",
	} {
		for _, secret := range []string{password, "close sesame"} {
			r, _ := http.NewRequest("GET", "/", nil)
			r.SetBasicAuth("", secret)
			head := " HTTP/1.1\r\nHost: x\r\nSec-Tailscale: localapi\r\nAuthorization: " + r.Header.Get("Authorization")
			f.Add([]byte(line + head + "\r\n\r\n"))
		}
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(said)))
		if err != nil {
			return
		}
		if why, _ := l.refuses(r); why != "" {
			return
		}
		if _, given, _ := r.BasicAuth(); given != password {
			t.Fatalf("%q is let in without the password", said)
		}
		endpoint := strings.TrimPrefix(path.Clean(r.URL.Path), apiPrefix)
		if path.Clean(r.URL.Path) != r.URL.Path || apiMethod(endpoint) != r.Method {
			t.Fatalf("%q is passed on, as %s %q", said, r.Method, r.URL.Path)
		}
		for _, shut := range []string{"logout", "prefs", "serve-config", "key", ".."} {
			if strings.Contains(endpoint, shut) && !strings.HasPrefix(endpoint, "cert/") {
				t.Fatalf("%q reaches %q", said, endpoint)
			}
		}
	})
}

// What tailscale_new is given: a text of this project's own, and perhaps of another version of it.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "{", "null", "[]", `{"hostname":"h","state_dir":"/s"}`, `{"hostname":"h","state_dir":"/s","tags":["tag:x"]}`,
		`{"hostname":"h","state_dir":"/s","auth_key":"tskey-client-x","tags":["tag:x"],"redact":["x"],"verbose":true}`,
		`{"hostname":"h","state_dir":"/s"}{}`, `{"hostname":1}`, `{"Hostname":"h","STATE_DIR":"/s"}`, `{"x":"\ud800"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig(text)
		if err != nil {
			wantFailure(t, err, codeInvalid, "configuration: ")
			return
		}
		if c.Hostname == "" || c.StateDir == "" {
			t.Fatalf("%q is taken without a name or a place", text)
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseConfig(string(again)); err != nil {
			t.Fatalf("%q is taken, and %s is not: %v", text, again, err)
		}
	})
}
