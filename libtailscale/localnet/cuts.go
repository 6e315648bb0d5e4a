package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"tailscale.com/types/key"
)

// cut is two nodes, or two groups of them, between which no packet passes; each
// side is named as in a policy.
type cut [2]string

// cutLocked reports whether no packet passes between two nodes.
func (t *tailnet) cutLocked(a, b *node) bool {
	return slices.ContainsFunc(t.cuts, func(c cut) bool {
		return t.matchesLocked(c[0], a) && t.matchesLocked(c[1], b) ||
			t.matchesLocked(c[0], b) && t.matchesLocked(c[1], a)
	})
}

// seenByLocked is p as n sees it. Over a cut it has everything but a way: its
// keys are nobody's, so each of the two takes what the other sends for a
// stranger's and drops it. Their TCP connections notice nothing but silence.
func (t *tailnet) seenByLocked(n, p *node) json.RawMessage {
	if !t.cutLocked(n, p) {
		return t.peerWireLocked(p)
	}
	tn := t.tailcfgLocked(p)
	tn.Hostinfo = publicInfo(p)
	tn.Key, tn.DiscoKey = key.NewNode().Public(), key.NewDisco().Public()
	tn.Endpoints, tn.HomeDERP = nil, 0
	return mustJSON(tn)
}

func (c *control) adminGetCuts(w http.ResponseWriter, r *http.Request) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"cuts": append([]cut{}, c.net.cuts...)})
}

func (c *control) adminPutCuts(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Cuts []cut `json:"cuts"`
	}
	if !readOptional(w, r, &req) {
		return
	}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.cuts = req.Cuts
	c.net.resends++
	c.net.journal.add("cuts", nil, fmt.Sprint(req.Cuts))
	c.net.changedLocked(nil)
	writeJSON(w, http.StatusOK, map[string]any{"cuts": append([]cut{}, c.net.cuts...)})
}
