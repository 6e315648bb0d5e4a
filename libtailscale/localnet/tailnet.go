package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/dnsname"
)

// taggedDevices is the pseudo-user that owns every tagged node, as in the real
// control server.
const taggedDevices = "tagged-devices"

// tailnet is the state of one tailnet: who is in it, what they may do, and who
// is listening for changes. All fields below mu are guarded by it; methods that
// end in Locked need it held.
type tailnet struct {
	domain  string // the organisation, e.g. "example.com"
	suffix  string // MagicDNS suffix, e.g. "tail1234.ts.net"
	derpMap json.RawMessage
	journal *journal

	mu           sync.Mutex
	nodes        []*node // ascending by id
	byKey        map[key.NodePublic]*node
	labels       map[string]*node // by first label of the MagicDNS name
	users        map[string]*user // by login
	keys         map[string]*authKey
	oauthClients map[string]*oauthClient // by secret
	oauthTokens  map[string]oauthToken
	logins       map[string]*login // by id, interactive logins that wait
	streams      map[*stream]struct{}
	settings     settings
	policy       policy
	cuts         []cut
	dns          dnsSettings
	dnsChallenge []setDNSRecord
	lock         *tailnetLock // nil until the first POST /lock
	lastID       tailcfg.NodeID
	lastAddr     netip.Addr
	lastUser     tailcfg.UserID
	revision     uint64        // of the newest change that a peer can see
	resends      uint64        // how often complete maps were asked for
	frozen       bool          // control is unreachable: nobody is removed for being away
	thawed       time.Time     // when it was reachable again
	shut         bool          // the port is shut
	reopened     time.Time     // just before it was opened again
	rearm        chan struct{} // wakes the reaper
	progress     chan struct{} // closed and replaced when a stream has written, see introduce
}

// settings is what PUT /settings changes at run time.
type settings struct {
	EphemeralTimeout time.Duration
	RequireApproval  bool
	KeyExpiry        time.Duration // of untagged nodes that join from now on
	HTTPS            bool
	RecheckKeys      bool
	BelieveStreams   bool
	Health           []healthMessage
}

// user owns nodes. Its login is an address like alice@example.com.
type user struct {
	id      tailcfg.UserID
	login   string
	display string
}

func newTailnet(domain, suffix string) *tailnet {
	t := &tailnet{
		domain:       domain,
		suffix:       suffix,
		journal:      newJournal(),
		byKey:        map[key.NodePublic]*node{},
		labels:       map[string]*node{},
		users:        map[string]*user{},
		keys:         map[string]*authKey{},
		oauthClients: map[string]*oauthClient{},
		oauthTokens:  map[string]oauthToken{},
		logins:       map[string]*login{},
		streams:      map[*stream]struct{}{},
		lastUser:     1000,
		lastAddr:     netip.MustParseAddr("100.64.0.0"),
		rearm:        make(chan struct{}, 1),
		progress:     make(chan struct{}),
		settings: settings{
			EphemeralTimeout: 3 * time.Second,
			KeyExpiry:        180 * 24 * time.Hour,
			HTTPS:            true,
			RecheckKeys:      true,
		},
		dns: dnsSettings{MagicDNS: true},
	}
	t.userLocked(taggedDevices)
	for _, name := range []string{"alice", "bob", "carol"} {
		t.userLocked(name + "@" + domain)
	}
	return t
}

// userLocked finds the user of a login, or makes one. The display name comes
// from the login: alice.smith@example.com is shown as "Alice Smith".
func (t *tailnet) userLocked(login string) *user {
	if u := t.users[login]; u != nil {
		return u
	}
	t.lastUser++
	u := &user{id: t.lastUser, login: login}
	local, _, _ := strings.Cut(login, "@")
	words := strings.FieldsFunc(local, func(r rune) bool { return r == '.' || r == '-' || r == '_' })
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	u.display = strings.Join(words, " ")
	t.users[login] = u
	return u
}

func (u *user) profile() tailcfg.UserProfile {
	return tailcfg.UserProfile{ID: u.id, LoginName: u.login, DisplayName: u.display}
}

// changedLocked makes a change of n visible to the others and wakes every
// stream. A nil n means that something changed which is not one node's own.
func (t *tailnet) changedLocked(n *node) {
	t.revision++
	if n != nil {
		n.revision = t.revision
		n.wire = nil
	}
	for s := range t.streams {
		s.poke()
	}
}

// rearmReaper makes the reaper look at its deadlines again.
func (t *tailnet) rearmReaper() {
	select {
	case t.rearm <- struct{}{}:
	default:
	}
}

// addNodeLocked makes a node with an identity and addresses of its own.
// Neither is ever used again, so that no test mistakes a new node for an old
// one.
func (t *tailnet) addNodeLocked(hi *tailcfg.Hostinfo) (*node, error) {
	addrs, err := t.nextAddressesLocked()
	if err != nil {
		return nil, err
	}
	t.lastID++
	n := &node{
		id:       t.lastID,
		stableID: tailcfg.StableNodeID(fmt.Sprintf("n%06xLOCAL", int64(t.lastID))),
		addrs:    addrs,
		created:  time.Now(),
		hostinfo: hi,
	}
	n.offlineSince = n.created
	t.nodes = append(t.nodes, n)
	t.renameLocked(n)
	return n, nil
}

// nextAddressesLocked allocates the next IPv4 address of 100.64.0.0/10 and the
// IPv6 address that belongs to it, skipping what Tailscale keeps for itself.
func (t *tailnet) nextAddressesLocked() ([]netip.Prefix, error) {
	for {
		t.lastAddr = t.lastAddr.Next()
		switch {
		case !tsaddr.CGNATRange().Contains(t.lastAddr):
			return nil, fmt.Errorf("no address of %v is left", tsaddr.CGNATRange())
		case !tsaddr.IsTailscaleIPv4(t.lastAddr), isServiceAddr(t.lastAddr):
			continue
		}
		v6 := tsaddr.Tailscale4To6(t.lastAddr)
		return []netip.Prefix{netip.PrefixFrom(t.lastAddr, 32), netip.PrefixFrom(v6, 128)}, nil
	}
}

// isServiceAddr reports whether ip lies in 100.100.0.0/24 or 100.100.100.0/24,
// where Tailscale's own services live.
func isServiceAddr(ip netip.Addr) bool {
	b := ip.As4()
	return b[1] == 100 && (b[2] == 0 || b[2] == 100)
}

// renameLocked gives n the MagicDNS name of its hostname, or with -1, -2, …
// where another node has it already, as the real control server does.
func (t *tailnet) renameLocked(n *node) {
	base := dnsname.SanitizeHostname(n.hostname())
	if base == "" {
		base = "node"
	}
	if n.label != "" && n.labelBase == base {
		return
	}
	delete(t.labels, n.label)
	label := base
	for i := 1; t.labels[label] != nil; i++ {
		label = fmt.Sprintf("%s-%d", base, i)
	}
	t.labels[label] = n
	n.labelBase, n.label, n.fqdn = base, label, label+"."+t.suffix
}

// removeLocked takes n out of the tailnet. Its streams end, and its node key is
// unknown from now on.
func (t *tailnet) removeLocked(n *node, why string) {
	t.nodes = slices.DeleteFunc(t.nodes, func(o *node) bool { return o == n })
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	delete(t.labels, n.label)
	n.removed = true
	for s := range t.streams {
		if s.node == n {
			s.end()
		}
	}
	t.journal.add("removed", n, why)
	t.changedLocked(nil)
}

// expireLocked makes n's key expired from now on.
func (t *tailnet) expireLocked(n *node, why string) {
	if now := time.Now(); n.keyExpiry.IsZero() || n.keyExpiry.After(now) {
		n.keyExpiry = now.Add(-time.Second)
	}
	n.expired = true
	t.journal.add("expired", n, why)
	t.changedLocked(n)
}

// findLocked finds a node by its numeric id, stable id, MagicDNS name (long or
// short) or hostname; among several with one hostname the newest.
func (t *tailnet) findLocked(ref string) *node {
	ref = strings.TrimSuffix(ref, ".")
	var byHostname *node
	for _, n := range t.nodes {
		if fmt.Sprint(int64(n.id)) == ref || string(n.stableID) == ref || n.fqdn == ref || n.label == ref {
			return n
		}
		if n.hostname() == ref {
			byHostname = n
		}
	}
	return byHostname
}
