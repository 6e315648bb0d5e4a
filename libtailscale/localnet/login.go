package main

import (
	"context"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

const (
	// loginWait bounds how long one follow-up request waits for a person. The
	// client asks again with the same URL.
	loginWait = 10 * time.Minute
	// loginLimit bounds the logins that nobody ever completes.
	loginLimit = 1000
)

// login is an interactive login: a URL that a person opens to vouch for a node.
type login struct {
	id       string
	url      string
	nodeKey  key.NodePublic
	hostname string
	// ephemeral is what the first request said; the client's follow-up requests
	// do not repeat it.
	ephemeral bool
	started   time.Time
	done      chan struct{} // closed once user or refusal is set
	user      *user
	refusal   string
}

// loginLocked returns the login that waits for the request's node key, or
// starts one.
func (t *tailnet) loginLocked(controlURL string, req *tailcfg.RegisterRequest) *login {
	for _, l := range t.logins {
		if l.nodeKey == req.NodeKey && !l.completed() {
			return l
		}
	}
	if len(t.logins) >= loginLimit {
		oldest := slices.MinFunc(slices.Collect(maps.Values(t.logins)), func(a, b *login) int { return a.started.Compare(b.started) })
		delete(t.logins, oldest.id)
	}
	id := randomHex(7)
	l := &login{
		id:        id,
		url:       controlURL + "/a/" + id,
		nodeKey:   req.NodeKey,
		hostname:  req.Hostinfo.Hostname,
		ephemeral: req.Ephemeral,
		started:   time.Now(),
		done:      make(chan struct{}),
	}
	t.logins[id] = l
	t.journal.add("login-started", &node{hostinfo: req.Hostinfo}, l.url)
	return l
}

func (l *login) completed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// wait reports whether the login was completed before ctx or its bound ended.
func (l *login) wait(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, loginWait)
	defer cancel()
	select {
	case <-l.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// loginByURL finds a login by its URL, its path or its id.
func (t *tailnet) loginByURL(ref string) *login {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.logins[ref[strings.LastIndex(ref, "/")+1:]]
}

// completeLogin lets the waiting node in as the user, or with a refusal turns
// it away.
func (t *tailnet) completeLogin(l *login, userLogin, refusal string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.completed() {
		return fmt.Errorf("the login %s is completed already", l.url)
	}
	if userLogin == "" {
		userLogin = "alice@" + t.domain
	}
	l.refusal = refusal
	detail := "refused: " + refusal
	if refusal == "" {
		l.user = t.userLocked(userLogin)
		detail = userLogin
	}
	close(l.done)
	t.journal.add("login-completed", &node{hostinfo: &tailcfg.Hostinfo{Hostname: l.hostname}}, detail)
	return nil
}

// loginPage is what a person sees at the login's URL.
var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Log in to {{.Domain}}</title>
<style>body{font:1.1em/1.5 system-ui;max-width:28em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.4em 1em}</style>
{{if .Done}}<h1>Done</h1><p><b>{{.Hostname}}</b> is connected to {{.Domain}}. You can close this page.</p>
{{else}}<h1>Connect a device</h1><p><b>{{.Hostname}}</b> asks to join the tailnet of {{.Domain}} on this machine.</p>
<form>Join as <select name="user">{{range .Users}}<option>{{.}}</option>{{end}}</select> <button>Connect</button></form>{{end}}
`))

// serveLoginPage shows the page of a login; with ?user= it completes it.
func (c *control) serveLoginPage(w http.ResponseWriter, r *http.Request) {
	l := c.net.loginByURL(r.PathValue("id"))
	if l == nil {
		writeError(w, http.StatusNotFound, "there is no such login; it may have been replaced by a newer one")
		return
	}
	if u := r.FormValue("user"); u != "" && !l.completed() {
		if !strings.Contains(u, "@") {
			writeError(w, http.StatusBadRequest, "a user is an address like alice@example.com")
			return
		}
		// Two clicks on the button are one login.
		_ = c.net.completeLogin(l, u, "")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	loginPage.Execute(w, map[string]any{
		"Domain": c.net.domain, "Hostname": l.hostname, "Done": l.completed(), "Users": c.net.people(),
	})
}

// people lists the logins of the users that are persons.
func (t *tailnet) people() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	logins := slices.Sorted(maps.Keys(t.users))
	return slices.DeleteFunc(logins, func(l string) bool { return l == taggedDevices })
}
