package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// faultSet is how badly control and the relays behave, as PUT /faults sets it:
// the whole set at once, so that {} makes them well again. Durations are milliseconds.
type faultSet struct {
	DelayMS       int      `json:"delay_ms"`        // before every answer
	LogoutDelayMS int      `json:"logout_delay_ms"` // before the answer to a logout, whose effect is immediate
	Hang          bool     `json:"hang"`            // accept requests and answer nothing until lifted
	Outage        bool     `json:"outage"`          // close the port and every connection; reopen when lifted
	OAuthDelayMS  int      `json:"oauth_delay_ms"`  // the OAuth endpoints share the port, but not delay and hang
	OAuthHang     bool     `json:"oauth_hang"`
	OAuthOutage   bool     `json:"oauth_outage"`  // close the connection instead of answering
	MapStatus     int      `json:"map_status"`    // answer new map requests with this HTTP status
	Paths         []string `json:"paths"`         // delay and hang only these; all if empty
	DERPOutage    bool     `json:"derp_outage"`   // close every relay's port and connections; STUN still answers
	DERPDelayMS   int      `json:"derp_delay_ms"` // before a relay takes each piece that it is sent
}

// faults applies a faultSet to the requests that pass through it.
type faults struct {
	mu      sync.Mutex
	set     faultSet
	changed chan struct{} // closed and replaced whenever set changes
}

func newFaults() *faults {
	return &faults{changed: make(chan struct{})}
}

func (f *faults) get() (faultSet, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set, f.changed
}

// put replaces the set and lets those that hang look again.
func (f *faults) put(set faultSet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = set
	close(f.changed)
	f.changed = make(chan struct{})
}

func (s *faultSet) concerns(path string) bool {
	return len(s.Paths) == 0 || slices.Contains(s.Paths, path)
}

// admit waits for as long as the path hangs, and reports whether the caller was
// still there at the end of it.
func (f *faults) admit(ctx context.Context, path string) bool {
	for {
		set, changed := f.get()
		hang := set.Hang && set.concerns(path)
		if isOAuthPath(path) {
			hang = set.OAuthHang
		}
		if !hang {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// delay waits for as long as answers on the path are late.
func (f *faults) delay(ctx context.Context, path string) {
	set, _ := f.get()
	switch {
	case isOAuthPath(path):
		sleep(ctx, set.OAuthDelayMS)
	case set.concerns(path):
		sleep(ctx, set.DelayMS)
	}
}

// delayLogout waits for as long as answers to a logout are late.
func (f *faults) delayLogout(ctx context.Context) {
	set, _ := f.get()
	if set.concerns("/machine/register") {
		sleep(ctx, max(set.DelayMS, set.LogoutDelayMS))
	}
}

func sleep(ctx context.Context, ms int) {
	if ms <= 0 {
		return
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
}

func isOAuthPath(path string) bool { return strings.HasPrefix(path, "/api/v2/") }

// guard applies the faults to a handler. Those of register and map requests act
// in the midst of them, so only hanging applies to these here.
func (f *faults) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if !f.admit(r.Context(), path) {
			return
		}
		if set, _ := f.get(); set.OAuthOutage && isOAuthPath(path) {
			panic(http.ErrAbortHandler)
		}
		if path != "/machine/register" && path != "/machine/map" {
			f.delay(r.Context(), path)
		}
		next.ServeHTTP(w, r)
	})
}
