package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The admin API speaks JSON on a port of its own, which no fault ever touches:
//
//	GET    /nodes                  all nodes
//	GET    /nodes/{ref}            one, by id, stable id, MagicDNS name or hostname
//	DELETE /nodes/{ref}
//	POST   /nodes/{ref}/expire     {"in_seconds": 0}
//	POST   /nodes/{ref}/authorize  approve the device
//	POST   /nodes/{ref}/sign       with tailnet lock's key
//	POST   /nodes/{ref}/routes     {"approve": ["10.1.0.0/24"]}; replaces what was approved
//	POST   /keys                   keySpec -> {"key", "id"}
//	POST   /keys/expire            {"key": "..."}
//	POST   /oauth-clients          {"tags": [...]} -> {"client_secret"}; no tags: any tag
//	GET    /logins                 interactive logins that wait for a person
//	POST   /logins/complete        {"url", "user", "error"}
//	GET/PUT /policy                policy; replaced as a whole
//	GET/PUT /cuts                  {"cuts": [["a", "b"]]}: no packet passes between them; replaced as a whole
//	GET/PUT /dns                   dnsSettings; only the named parts are replaced
//	GET    /dns/challenges         what nodes published with set-dns
//	GET/PUT /faults                faultSet; replaced as a whole
//	GET/PUT /settings              settingsJSON; only the named parts are replaced
//	POST   /lock                   {"enabled": true} -> {"enabled", "public_key"}
//	POST   /fake-peers             {"count": 2000, "online": true}: peers that never answer
//	DELETE /fake-peers
//	GET    /events                 ?after=N&wait_ms=M&kind=K&hostname=H: long poll of the journal
//
// {} and an empty body are the same. Errors are {"message": "..."}.
func (c *control) adminHandler() http.Handler {
	mux := http.NewServeMux()
	c.nodeRoutes(mux)
	mux.HandleFunc("POST /keys", c.adminAddKey)
	mux.HandleFunc("POST /keys/expire", c.adminExpireKey)
	mux.HandleFunc("POST /oauth-clients", c.adminAddOAuthClient)
	mux.HandleFunc("GET /logins", c.adminLogins)
	mux.HandleFunc("POST /logins/complete", c.adminCompleteLogin)
	mux.HandleFunc("GET /policy", c.adminGetPolicy)
	mux.HandleFunc("PUT /policy", c.adminPutPolicy)
	mux.HandleFunc("GET /cuts", c.adminGetCuts)
	mux.HandleFunc("PUT /cuts", c.adminPutCuts)
	mux.HandleFunc("GET /dns", c.adminGetDNS)
	mux.HandleFunc("PUT /dns", c.adminPutDNS)
	mux.HandleFunc("GET /dns/challenges", c.adminChallenges)
	mux.HandleFunc("GET /faults", c.adminGetFaults)
	mux.HandleFunc("PUT /faults", c.adminPutFaults)
	mux.HandleFunc("GET /settings", c.adminGetSettings)
	mux.HandleFunc("PUT /settings", c.adminPutSettings)
	mux.HandleFunc("POST /lock", c.adminLock)
	mux.HandleFunc("GET /events", c.adminEvents)
	mux.HandleFunc("/", serveNotFound)
	return mux
}

// readOptional decodes the request's body, if it has one, and answers 400 if
// it cannot.
func readOptional(w http.ResponseWriter, r *http.Request, v any) bool {
	if r.ContentLength == 0 {
		return true
	}
	return readJSON(w, r, v)
}

func (c *control) adminAddKey(w http.ResponseWriter, r *http.Request) {
	var spec keySpec
	if !readOptional(w, r, &spec) {
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	k := c.net.addKeyLocked(spec)
	writeJSON(w, http.StatusOK, map[string]string{"key": k.Key, "id": k.id})
}

func (c *control) adminExpireKey(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Key string `json:"key"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	k := c.net.keys[req.Key]
	if k == nil {
		writeError(w, http.StatusNotFound, "there is no such key")
		return
	}
	k.Expired = true
	writeJSON(w, http.StatusOK, map[string]string{"id": k.id})
}

func (c *control) adminAddOAuthClient(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Tags []string `json:"tags"`
	}
	if !readOptional(w, r, &req) {
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	oc := c.net.addOAuthClientLocked(req.Tags)
	writeJSON(w, http.StatusOK, map[string]string{"client_secret": c.clientSecret(oc), "id": oc.id})
}

func (c *control) adminLogins(w http.ResponseWriter, r *http.Request) {
	type waiting struct {
		URL      string `json:"url"`
		Hostname string `json:"hostname"`
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	list := []waiting{}
	for _, l := range c.net.logins {
		if !l.completed() {
			list = append(list, waiting{l.url, l.hostname})
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"logins": list})
}

func (c *control) adminCompleteLogin(w http.ResponseWriter, r *http.Request) {
	var req struct {
		URL   string `json:"url"`
		User  string `json:"user"`
		Error string `json:"error"` // turns the node away with this text
	}
	if !readJSON(w, r, &req) {
		return
	}
	l := c.net.loginByURL(req.URL)
	if l == nil {
		writeError(w, http.StatusNotFound, "there is no such login")
		return
	}
	if err := c.net.completeLogin(l, req.User, req.Error); err != nil {
		writeError(w, http.StatusConflict, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"hostname": l.hostname})
}

func (c *control) adminGetPolicy(w http.ResponseWriter, r *http.Request) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	writeJSON(w, http.StatusOK, c.net.policy)
}

func (c *control) adminPutPolicy(w http.ResponseWriter, r *http.Request) {
	var p policy
	if !readOptional(w, r, &p) {
		return
	}
	if err := p.validate(); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if p.Mode == "full" || p.Single != c.net.policy.Single {
		c.net.resends++
	}
	c.net.policy = p
	c.net.changedLocked(nil)
	writeJSON(w, http.StatusOK, p)
}

func (c *control) adminGetDNS(w http.ResponseWriter, r *http.Request) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	writeJSON(w, http.StatusOK, c.net.dns)
}

func (c *control) adminPutDNS(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if err == nil {
		err = c.net.dns.merge(body)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	c.net.changedLocked(nil)
	writeJSON(w, http.StatusOK, c.net.dns)
}

func (c *control) adminChallenges(w http.ResponseWriter, r *http.Request) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"challenges": append([]setDNSRecord{}, c.net.dnsChallenge...)})
}

func (c *control) adminGetFaults(w http.ResponseWriter, r *http.Request) {
	set, _ := c.faults.get()
	writeJSON(w, http.StatusOK, set)
}

func (c *control) adminPutFaults(w http.ResponseWriter, r *http.Request) {
	var set faultSet
	if !readOptional(w, r, &set) {
		return
	}
	if err := c.setFaults(set); err != nil {
		writeError(w, http.StatusInternalServerError, "the port could not be opened again: "+err.Error())
		return
	}
	c.net.journal.add("faults", nil, fmt.Sprintf("%+v", set))
	writeJSON(w, http.StatusOK, set)
}

// settingsJSON is the wire form of settings; what is absent stays as it is.
type settingsJSON struct {
	EphemeralTimeoutMS *int64           `json:"ephemeral_timeout_ms,omitempty"`
	RequireApproval    *bool            `json:"require_approval,omitempty"`
	KeyExpirySeconds   *int64           `json:"key_expiry_seconds,omitempty"` // of untagged nodes that join from now on
	HTTPS              *bool            `json:"https,omitempty"`
	RecheckKeys        *bool            `json:"recheck_keys,omitempty"`    // see recheckLocked
	BelieveStreams     *bool            `json:"believe_streams,omitempty"` // see believe
	Health             *[]healthMessage `json:"health,omitempty"`          // strings, or {id, title, text, severity}
}

func (c *control) adminGetSettings(w http.ResponseWriter, r *http.Request) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	writeJSON(w, http.StatusOK, c.net.settings.json())
}

func (s settings) json() settingsJSON {
	away, expiry := s.EphemeralTimeout.Milliseconds(), int64(s.KeyExpiry.Seconds())
	health := append([]healthMessage{}, s.Health...)
	return settingsJSON{&away, &s.RequireApproval, &expiry, &s.HTTPS, &s.RecheckKeys, &s.BelieveStreams, &health}
}

func (c *control) adminPutSettings(w http.ResponseWriter, r *http.Request) {
	var req settingsJSON
	if !readOptional(w, r, &req) {
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	s := &c.net.settings
	if req.EphemeralTimeoutMS != nil {
		s.EphemeralTimeout = time.Duration(*req.EphemeralTimeoutMS) * time.Millisecond
	}
	if req.KeyExpirySeconds != nil {
		s.KeyExpiry = time.Duration(*req.KeyExpirySeconds) * time.Second
	}
	assign(&s.RequireApproval, req.RequireApproval)
	assign(&s.HTTPS, req.HTTPS)
	assign(&s.RecheckKeys, req.RecheckKeys)
	assign(&s.BelieveStreams, req.BelieveStreams)
	assign(&s.Health, req.Health)
	c.net.rearmReaper()
	c.net.changedLocked(nil)
	writeJSON(w, http.StatusOK, s.json())
}

// assign stores what a request says, if it says anything.
func assign[T any](dst *T, said *T) {
	if said != nil {
		*dst = *said
	}
}

func (c *control) adminLock(w http.ResponseWriter, r *http.Request) {
	req := struct {
		Enabled bool `json:"enabled"`
	}{Enabled: true}
	if !readOptional(w, r, &req) {
		return
	}
	if !req.Enabled {
		c.net.disableLock()
		writeJSON(w, http.StatusOK, map[string]any{"enabled": false})
		return
	}
	l, err := c.net.enableLock()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"enabled": true, "public_key": l.signer.Public().CLIString()})
}

// eventWaitLimit bounds one long poll.
const eventWaitLimit = 60 * time.Second

// adminEvents answers with the events after a sequence number that match, as
// soon as there is one or the wait is over, and the newest sequence number.
func (c *control) adminEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
	waitMS, _ := strconv.ParseInt(q.Get("wait_ms"), 10, 64)
	kind, hostname := q.Get("kind"), q.Get("hostname")
	match := func(e event) bool {
		return (kind == "" || e.Kind == kind) && (hostname == "" || e.Hostname == hostname)
	}
	limit := time.NewTimer(min(time.Duration(waitMS)*time.Millisecond, eventWaitLimit))
	defer limit.Stop()
	for {
		found, last, grown := c.net.journal.since(after, match)
		over := len(found) > 0 || waitMS <= 0
		if !over {
			select {
			case <-grown:
				continue
			case <-limit.C:
			case <-r.Context().Done():
			}
		}
		writeJSON(w, http.StatusOK, map[string]any{"events": append([]event{}, found...), "last": last})
		return
	}
}
