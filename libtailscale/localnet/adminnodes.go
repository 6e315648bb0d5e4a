package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// nodeJSON is a node as the admin API shows it.
type nodeJSON struct {
	ID         tailcfg.NodeID       `json:"id"`
	StableID   tailcfg.StableNodeID `json:"stable_id"`
	Name       string               `json:"name"` // FQDN without the dot
	Hostname   string               `json:"hostname"`
	User       string               `json:"user"` // login; tagged-devices for a tagged node
	Tags       []string             `json:"tags"`
	Addresses  []string             `json:"addresses"`
	Ephemeral  bool                 `json:"ephemeral"`
	Online     bool                 `json:"online"`
	Expired    bool                 `json:"expired"`
	KeyExpiry  *time.Time           `json:"key_expiry"` // null: never
	Authorized bool                 `json:"authorized"`
	Signed     bool                 `json:"signed"`
	OS         string               `json:"os"`
	Endpoints  []string             `json:"endpoints"`
	HomeDERP   int                  `json:"home_derp"`
	Advertised []string             `json:"advertised_routes"`
	Approved   []string             `json:"approved_routes"`
	MachineKey string               `json:"machine_key"` // short form
	NodeKey    string               `json:"node_key"`    // short form
	CreatedNS  int64                `json:"created_ns"`
	Fake       bool                 `json:"fake"`
}

func (t *tailnet) jsonLocked(n *node) nodeJSON {
	j := nodeJSON{
		ID: n.id, StableID: n.stableID, Name: n.fqdn, Hostname: n.hostname(),
		User: t.ownerLocked(n).login, Tags: append([]string{}, n.tags...),
		Ephemeral: n.ephemeral, Online: n.online(), Expired: n.expired,
		Authorized: n.authorized, Signed: len(n.signature) > 0,
		OS: n.hostinfo.OS, HomeDERP: n.homeDERP,
		Addresses: []string{n.addrs[0].Addr().String(), n.addrs[1].Addr().String()},
		Endpoints: texts(n.endpoints), Advertised: texts(n.advertised()), Approved: texts(n.approved),
		MachineKey: n.machine.ShortString(), NodeKey: n.key.ShortString(),
		CreatedNS: n.created.UnixNano(), Fake: n.fake,
	}
	if !n.keyExpiry.IsZero() {
		j.KeyExpiry = &n.keyExpiry
	}
	return j
}

// texts turns values into their text, never null.
func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

// nodeRoutes adds the part of the admin API that is about nodes.
func (c *control) nodeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, r *http.Request) {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		list := make([]nodeJSON, len(c.net.nodes))
		for i, n := range c.net.nodes {
			list[i] = c.net.jsonLocked(n)
		}
		writeJSON(w, http.StatusOK, map[string]any{"nodes": list})
	})
	mux.HandleFunc("GET /nodes/{ref}", c.onNode(func(n *node, r *http.Request) error { return nil }))
	mux.HandleFunc("DELETE /nodes/{ref}", c.onNode(func(n *node, r *http.Request) error {
		c.net.removeLocked(n, "admin")
		return nil
	}))
	mux.HandleFunc("POST /nodes/{ref}/authorize", c.onNode(func(n *node, r *http.Request) error {
		n.authorized = true
		c.net.journal.add("authorized", n, "")
		c.net.changedLocked(n)
		return nil
	}))
	mux.HandleFunc("POST /nodes/{ref}/sign", c.onNode(func(n *node, r *http.Request) error { return c.net.signLocked(n) }))
	mux.HandleFunc("POST /nodes/{ref}/expire", c.adminExpire)
	mux.HandleFunc("POST /nodes/{ref}/routes", c.adminRoutes)
	mux.HandleFunc("POST /fake-peers", c.adminAddFakePeers)
	mux.HandleFunc("DELETE /fake-peers", c.adminRemoveFakePeers)
}

// onNode makes a handler that finds the node, does something to it under the
// tailnet's lock, and answers with the node.
func (c *control) onNode(do func(*node, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		n := c.net.findLocked(r.PathValue("ref"))
		if n == nil {
			writeError(w, http.StatusNotFound, fmt.Sprintf("there is no node %q", r.PathValue("ref")))
			return
		}
		if err := do(n, r); err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, c.net.jsonLocked(n))
	}
}

func (c *control) adminExpire(w http.ResponseWriter, r *http.Request) {
	var req struct {
		InSeconds float64 `json:"in_seconds"`
	}
	if !readOptional(w, r, &req) {
		return
	}
	c.onNode(func(n *node, _ *http.Request) error {
		if req.InSeconds <= 0 {
			c.net.expireLocked(n, "admin")
			return nil
		}
		n.expired = false
		n.keyExpiry = time.Now().Add(time.Duration(req.InSeconds * float64(time.Second)))
		c.net.rearmReaper()
		c.net.changedLocked(n)
		return nil
	})(w, r)
}

func (c *control) adminRoutes(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Approve []netip.Prefix `json:"approve"`
	}
	if !readJSON(w, r, &req) {
		return
	}
	c.onNode(func(n *node, _ *http.Request) error {
		n.approved = req.Approve
		c.net.journal.add("routes", n, fmt.Sprint(req.Approve))
		c.net.changedLocked(n)
		return nil
	})(w, r)
}

// fakeKinds is what the fake peers are, in turn.
var fakeKinds = []struct{ os, role, user, tag string }{
	{"linux", "web", "", "tag:server"},
	{"macOS", "laptop", "alice", ""},
	{"windows", "desktop", "bob", ""},
	{"linux", "db", "", "tag:db"},
	{"iOS", "phone", "carol", ""},
	{"linux", "build", "", "tag:ci"},
	{"android", "tablet", "bob", ""},
}

// adminAddFakePeers adds peers that are in everybody's map and never answer.
// Every third is offline, unless all shall be online.
func (c *control) adminAddFakePeers(w http.ResponseWriter, r *http.Request) {
	req := struct {
		Count  int  `json:"count"`
		Online bool `json:"online"`
	}{Count: 1}
	if !readOptional(w, r, &req) {
		return
	}
	const most = 50_000
	if req.Count < 1 || req.Count > most {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("count is 1 to %d", most))
		return
	}
	t := c.net
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range req.Count {
		if err := t.addFakeLocked(i, req.Online || i%3 != 0); err != nil {
			writeError(w, http.StatusInsufficientStorage, err.Error())
			return
		}
	}
	t.changedLocked(nil)
	writeJSON(w, http.StatusOK, map[string]int{"count": req.Count, "nodes": len(t.nodes)})
}

func (t *tailnet) addFakeLocked(i int, online bool) error {
	kind := fakeKinds[i%len(fakeKinds)]
	n, err := t.addNodeLocked(&tailcfg.Hostinfo{
		OS:       kind.os,
		Hostname: fmt.Sprintf("fake-%s-%d", kind.role, t.lastID+1),
	})
	if err != nil {
		return err
	}
	n.machine, n.key, n.disco = key.NewMachine().Public(), key.NewNode().Public(), key.NewDisco().Public()
	n.user = t.userLocked(cmp.Or(kind.user, "alice") + "@" + t.domain)
	if kind.tag != "" {
		n.tags = []string{kind.tag}
	}
	n.authorized, n.fake, n.fakeOnline = true, true, online
	n.capVersion, n.homeDERP = tailcfg.CurrentCapabilityVersion, 1+i%len(derpRegions)
	t.byKey[n.key] = n
	t.revision++
	n.revision = t.revision
	return nil
}

func (c *control) adminRemoveFakePeers(w http.ResponseWriter, r *http.Request) {
	t := c.net
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := t.nodes[:0:0]
	for _, n := range t.nodes {
		if !n.fake {
			keep = append(keep, n)
			continue
		}
		delete(t.byKey, n.key)
		delete(t.labels, n.label)
	}
	t.nodes = keep
	t.changedLocked(nil)
	writeJSON(w, http.StatusOK, map[string]int{"nodes": len(keep)})
}
