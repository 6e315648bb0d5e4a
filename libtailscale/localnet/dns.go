package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/dnstype"
	"tailscale.com/types/key"
)

// dnsSettings is the tailnet's DNS, as PUT /dns changes it: the parts that a
// request names are replaced, the others stay.
type dnsSettings struct {
	MagicDNS     bool                `json:"magic_dns"`
	ExtraRecords []dnsRecord         `json:"extra_records"`
	Routes       map[string][]string `json:"routes"` // split DNS: suffix -> "IP" or "IP:port" of its resolvers
}

// dnsRecord is a name of the tailnet that is not a node's own.
type dnsRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"` // A or AAAA; empty: what fits the value
	Value string `json:"value"`
}

// setDNSRecord is a record that a node asked control to publish, for an ACME
// challenge.
type setDNSRecord struct {
	Name   string         `json:"name"`
	Type   string         `json:"type"`
	Value  string         `json:"value"`
	NodeID tailcfg.NodeID `json:"node_id"`
	TimeNS int64          `json:"time_ns"`
}

// validate says what is wrong with the settings.
func (d *dnsSettings) validate() error {
	for _, r := range d.ExtraRecords {
		if _, err := netip.ParseAddr(r.Value); err != nil {
			return fmt.Errorf("extra record %q: %q is not an IP address", r.Name, r.Value)
		}
	}
	for suffix, resolvers := range d.Routes {
		for _, addr := range resolvers {
			_, errAddr := netip.ParseAddr(addr)
			_, errPort := netip.ParseAddrPort(addr)
			if errAddr != nil && errPort != nil {
				return fmt.Errorf("route %q: %q is neither an IP address nor IP:port", suffix, addr)
			}
		}
	}
	return nil
}

// dnsConfigLocked is the DNS configuration of one node.
func (t *tailnet) dnsConfigLocked(n *node) *tailcfg.DNSConfig {
	cfg := &tailcfg.DNSConfig{
		Proxied:     t.dns.MagicDNS,
		CertDomains: t.certDomainsLocked(n),
	}
	if t.dns.MagicDNS {
		cfg.Domains = []string{t.suffix}
	}
	for _, r := range t.dns.ExtraRecords {
		cfg.ExtraRecords = append(cfg.ExtraRecords, tailcfg.DNSRecord{Name: r.Name, Type: r.Type, Value: r.Value})
	}
	for suffix, addrs := range t.dns.Routes {
		if cfg.Routes == nil {
			cfg.Routes = map[string][]*dnstype.Resolver{}
		}
		resolvers := []*dnstype.Resolver{}
		for _, a := range addrs {
			resolvers = append(resolvers, &dnstype.Resolver{Addr: a})
		}
		cfg.Routes[suffix] = resolvers
	}
	return cfg
}

// certDomainsLocked are the names for which n may get certificates.
func (t *tailnet) certDomainsLocked(n *node) []string {
	if !t.settings.HTTPS {
		return nil
	}
	return []string{n.fqdn}
}

// serveSetDNS answers POST /machine/set-dns, with which a node publishes the
// TXT record of an ACME challenge for its own name.
func (c *control) serveSetDNS(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var req tailcfg.SetDNSRequest
	if !readJSON(w, r, &req) {
		return
	}
	t := c.net
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[req.NodeKey]
	if n == nil || n.machine != machine {
		writeError(w, http.StatusForbidden, "unknown node key")
		return
	}
	base, isChallenge := strings.CutPrefix(req.Name, "_acme-challenge.")
	if req.Type != "TXT" || !isChallenge || !slices.Contains(t.certDomainsLocked(n), base) {
		writeError(w, http.StatusForbidden, "name is not an ACME challenge for a domain of this node")
		return
	}
	t.dnsChallenge = append(t.dnsChallenge, setDNSRecord{req.Name, req.Type, req.Value, n.id, time.Now().UnixNano()})
	t.journal.add("set-dns", n, req.Name)
	writeJSON(w, http.StatusOK, tailcfg.SetDNSResponse{})
}

// merge replaces the parts of d that the JSON names.
func (d *dnsSettings) merge(b []byte) error {
	next := *d
	// Decoding into a map adds to it; a request replaces it.
	next.Routes, next.ExtraRecords = nil, nil
	if err := json.Unmarshal(b, &next); err != nil {
		return err
	}
	if next.Routes == nil {
		next.Routes = d.Routes
	}
	if next.ExtraRecords == nil {
		next.ExtraRecords = d.ExtraRecords
	}
	if err := next.validate(); err != nil {
		return err
	}
	*d = next
	return nil
}
