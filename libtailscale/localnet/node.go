package main

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/tkatype"
)

// node is a device of the tailnet. It is guarded by its tailnet's lock.
type node struct {
	id       tailcfg.NodeID
	stableID tailcfg.StableNodeID
	machine  key.MachinePublic
	key      key.NodePublic
	disco    key.DiscoPublic
	user     *user
	tags     []string
	addrs    []netip.Prefix // one IPv4 and one IPv6 address
	created  time.Time

	label, labelBase, fqdn string

	hostinfo   *tailcfg.Hostinfo
	endpoints  []netip.AddrPort
	homeDERP   int
	capVersion tailcfg.CapabilityVersion
	approved   []netip.Prefix // routes that the admin approved

	authorized       bool
	ephemeral        bool // the key or the register request said so
	ephemeralRequest bool // the register request said so: gone at logout
	keyExpiry        time.Time
	expired          bool
	signature        tkatype.MarshaledSignature

	streams      int       // open map streams
	answering    int       // register answers that are still on their way
	offlineSince time.Time // when the last of both ended
	fake         bool
	fakeOnline   bool
	removed      bool

	revision uint64          // of the last change that others can see
	wire     json.RawMessage // how others see it, at that revision; nil if not encoded yet
}

func (n *node) hostname() string { return n.hostinfo.Hostname }

func (n *node) online() bool { return n.streams > 0 || n.fakeOnline }

func (n *node) advertised() []netip.Prefix { return n.hostinfo.RoutableIPs }

// routes are the subnets that n may route: advertised by it and approved.
func (n *node) routes() []netip.Prefix {
	var both []netip.Prefix
	for _, r := range n.advertised() {
		if slices.Contains(n.approved, r) {
			both = append(both, r)
		}
	}
	return both
}

// ownerLocked is the user whom others see: tagged nodes belong to nobody.
func (t *tailnet) ownerLocked(n *node) *user {
	if len(n.tags) > 0 {
		return t.users[taggedDevices]
	}
	return n.user
}

// tailcfgLocked is n in the form of the protocol, with what is true of it for
// everybody.
func (t *tailnet) tailcfgLocked(n *node) *tailcfg.Node {
	online := n.online()
	tn := &tailcfg.Node{
		ID:                n.id,
		StableID:          n.stableID,
		Name:              n.fqdn + ".",
		User:              t.ownerLocked(n).id,
		Key:               n.key,
		KeyExpiry:         n.keyExpiry,
		KeySignature:      n.signature,
		Machine:           n.machine,
		DiscoKey:          n.disco,
		Addresses:         n.addrs,
		AllowedIPs:        slices.Concat(n.addrs, n.routes()),
		PrimaryRoutes:     n.routes(),
		Endpoints:         n.endpoints,
		HomeDERP:          n.homeDERP,
		Created:           n.created.UTC(),
		Cap:               n.capVersion,
		Tags:              n.tags,
		Online:            &online,
		MachineAuthorized: n.authorized,
		Expired:           n.expired,
	}
	if !online && !n.offlineSince.IsZero() {
		seen := n.offlineSince.UTC().Truncate(time.Second)
		tn.LastSeen = &seen
	}
	return tn
}

// peerWireLocked is n as others see it, encoded. The encoding is kept until n
// changes: with thousands of peers it is what a map response costs.
func (t *tailnet) peerWireLocked(n *node) json.RawMessage {
	if n.wire == nil {
		tn := t.tailcfgLocked(n)
		tn.Hostinfo = publicInfo(n)
		n.wire = mustJSON(tn)
	}
	return n.wire
}

// publicInfo is the part of a Hostinfo that peers get, as from the real server.
func publicInfo(n *node) tailcfg.HostinfoView {
	return (&tailcfg.Hostinfo{
		OS:        n.hostinfo.OS,
		OSVersion: n.hostinfo.OSVersion,
		Hostname:  n.hostinfo.Hostname,
		App:       n.hostinfo.App,
		Services:  n.hostinfo.Services,
	}).View()
}

// selfLocked is n as it sees itself.
func (t *tailnet) selfLocked(n *node) *tailcfg.Node {
	tn := t.tailcfgLocked(n)
	tn.Hostinfo = n.hostinfo.View()
	tn.CapMap = tailcfg.NodeCapMap{tailcfg.NodeAttrDisableUPnP: nil}
	if t.settings.HTTPS {
		tn.CapMap[tailcfg.CapabilityHTTPS] = nil
	}
	if t.lock != nil {
		tn.CapMap[tailcfg.CapabilityTailnetLock] = nil
	}
	return tn
}

// mustJSON encodes a value of a type that always encodes.
func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
