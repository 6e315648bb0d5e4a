package main

import (
	"bytes"
	"encoding/json"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/opt"
)

// mapResponse is a tailcfg.MapResponse whose parts are encoded already. Unlike
// that type it can say "no filter rule at all" and "no health message any more".
type mapResponse struct {
	Node            json.RawMessage            `json:",omitempty"`
	DERPMap         json.RawMessage            `json:",omitempty"`
	Peers           []json.RawMessage          `json:",omitempty"`
	PeersChanged    []json.RawMessage          `json:",omitempty"`
	PeersRemoved    []tailcfg.NodeID           `json:",omitempty"`
	DNSConfig       json.RawMessage            `json:",omitempty"`
	Domain          string                     `json:",omitempty"`
	CollectServices opt.Bool                   `json:",omitempty"`
	PacketFilter    json.RawMessage            `json:",omitempty"`
	PacketFilters   map[string]json.RawMessage `json:",omitempty"`
	UserProfiles    []tailcfg.UserProfile      `json:",omitempty"`
	DisplayMessages map[string]json.RawMessage `json:",omitempty"`
	TKAInfo         json.RawMessage            `json:",omitempty"`
	ControlTime     *time.Time                 `json:",omitempty"`
}

// sentMap is what a stream has sent so far. Its zero value has sent nothing.
type sentMap struct {
	started bool
	resends uint64
	node    []byte
	dns     []byte
	health  []byte
	lock    []byte
	filters map[string]json.RawMessage
	users   map[tailcfg.UserID]bool
	peers   map[tailcfg.NodeID]uint64 // revision
}

// update stores v's encoding in *last and returns it if it is new.
func update(last *[]byte, v any) json.RawMessage {
	b := mustJSON(v)
	if bytes.Equal(*last, b) {
		return nil
	}
	*last = b
	return b
}

// nextMap returns the encoded map response that brings its reader up to date,
// or nil if nothing changed. The first one is complete; later ones have what
// changed, as from the real server, unless PUT /policy asked for complete ones.
// The revision is the one up to which the reader will know everything.
func (t *tailnet) nextMap(n *node, sent *sentMap) (_ []byte, revision uint64) {
	t.mu.Lock()
	revision = t.revision
	if n.removed {
		t.mu.Unlock()
		return nil, revision
	}
	var res mapResponse
	complete := !sent.started || sent.resends != t.resends
	if complete {
		*sent = sentMap{started: true, resends: t.resends, peers: sent.peers, filters: sent.filters}
		res.Domain = t.domain
		res.CollectServices = opt.True
		res.DERPMap = t.derpMap
	}
	res.Node = update(&sent.node, t.selfLocked(n))
	res.DNSConfig = update(&sent.dns, t.dnsConfigLocked(n))
	t.addPeersLocked(&res, n, sent, complete)
	t.addFiltersLocked(&res, n, sent, complete)
	t.addHealthLocked(&res, sent)
	if t.lock != nil {
		res.TKAInfo = update(&sent.lock, t.lock.info())
	}
	t.mu.Unlock()

	if res.empty() {
		return nil, revision
	}
	now := time.Now().UTC()
	res.ControlTime = &now
	return mustJSON(&res), revision
}

func (r *mapResponse) empty() bool {
	return r.Node == nil && r.DERPMap == nil && r.Peers == nil && r.PeersChanged == nil && r.PeersRemoved == nil &&
		r.DNSConfig == nil && r.PacketFilter == nil && r.PacketFilters == nil && r.UserProfiles == nil &&
		r.DisplayMessages == nil && r.TKAInfo == nil
}

// addPeersLocked adds the peers that are new, changed or gone, and the users
// that the reader has not heard of.
func (t *tailnet) addPeersLocked(res *mapResponse, n *node, sent *sentMap, complete bool) {
	now := make(map[tailcfg.NodeID]uint64, len(t.nodes))
	if sent.users == nil {
		sent.users = map[tailcfg.UserID]bool{}
	}
	introduce := func(of *node) {
		if u := t.ownerLocked(of); !sent.users[u.id] {
			sent.users[u.id] = true
			res.UserProfiles = append(res.UserProfiles, u.profile())
		}
	}
	introduce(n)
	sees := t.visibilityLocked(n)
	for _, p := range t.nodes {
		// A peer whose disco key is not known yet cannot be talked to, and to
		// learn of the key later is more work for a client than the whole peer.
		if p == n || p.disco.IsZero() || !p.authorized || !n.authorized || !sees(p) {
			continue
		}
		now[p.id] = p.revision
		if complete {
			res.Peers = append(res.Peers, t.seenByLocked(n, p))
		} else if was, known := sent.peers[p.id]; !known || was != p.revision {
			res.PeersChanged = append(res.PeersChanged, t.seenByLocked(n, p))
		}
		introduce(p)
	}
	// An empty list of peers means "unchanged": one must be told who has left.
	if len(res.Peers) == 0 {
		for id := range sent.peers {
			if _, stays := now[id]; !stays {
				res.PeersRemoved = append(res.PeersRemoved, id)
			}
		}
	}
	sent.peers = now
}

// addFiltersLocked adds the packet filters that are new, changed or gone.
func (t *tailnet) addFiltersLocked(res *mapResponse, n *node, sent *sentMap, complete bool) {
	now := make(map[string]json.RawMessage)
	for name, rules := range t.filtersLocked(n) {
		now[name] = mustJSON(rules)
	}
	changed := make(map[string]json.RawMessage)
	for name, rules := range now {
		if complete || !bytes.Equal(sent.filters[name], rules) {
			changed[name] = rules
		}
	}
	for name := range sent.filters {
		if now[name] == nil {
			changed[name] = nil
		}
	}
	if sent.filters == nil {
		changed["*"] = nil // there is nothing yet: that is news, even if it stays so
	}
	sent.filters = now
	if base := changed["base"]; t.policy.Single && base != nil && len(changed) == 1 {
		// The older form: one list, which is the filter named "base".
		res.PacketFilter = base
	} else if len(changed) > 0 {
		res.PacketFilters = changed
	}
}

// addHealthLocked adds control's view of the node's health, if it is news.
func (t *tailnet) addHealthLocked(res *mapResponse, sent *sentMap) {
	if len(t.settings.Health) == 0 && sent.health == nil {
		return
	}
	if update(&sent.health, t.settings.Health) == nil {
		return
	}
	res.DisplayMessages = map[string]json.RawMessage{"*": nil}
	for _, m := range t.settings.Health {
		res.DisplayMessages[m.ID] = mustJSON(m.display())
	}
}

// healthMessage is a problem that control shows to its nodes.
type healthMessage struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Text     string `json:"text"`
	Severity string `json:"severity"` // low, medium (default) or high
}

// UnmarshalJSON takes a bare string as well, for its text.
func (m *healthMessage) UnmarshalJSON(b []byte) error {
	type fields healthMessage
	if json.Unmarshal(b, &m.Text) != nil {
		if err := json.Unmarshal(b, (*fields)(m)); err != nil {
			return err
		}
	}
	if m.Title == "" {
		m.Title = m.Text
	}
	if m.ID == "" {
		m.ID = "localnet-" + m.Title
	}
	if m.Severity == "" {
		m.Severity = string(tailcfg.SeverityMedium)
	}
	return nil
}

func (m *healthMessage) display() tailcfg.DisplayMessage {
	return tailcfg.DisplayMessage{Title: m.Title, Text: m.Text, Severity: tailcfg.DisplayMessageSeverity(m.Severity)}
}
