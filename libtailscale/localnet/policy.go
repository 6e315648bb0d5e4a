package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tailscale.com/tailcfg"
)

// policy is who may reach whom, as PUT /policy sets it.
//
// Sources and targets are "*", a login, "tag:x", an IP address, a CIDR, or a
// node's hostname or MagicDNS name; what is not known now may be later. A
// rule's destination is a target and its ports: "tag:db:5432", "web:80-90,443",
// "100.64.0.1:*", "fd7a::1:22".
type policy struct {
	Rules      []rule              `json:"rules"` // absent: everything is allowed; []: nothing
	Grants     []grant             `json:"grants"`
	TagOwners  map[string][]string `json:"tag_owners"` // tag -> logins and tags; absent: everybody may have any tag
	Visibility string              `json:"visibility"` // "all" (default), or "acl": see only whom a rule connects you with
	Single     bool                `json:"single"`     // send one PacketFilter instead of named PacketFilters
	Mode       string              `json:"mode"`       // "filter" (default): send what changed; "full": send complete maps
}

// rule lets sources reach destinations.
type rule struct {
	Src   []string `json:"src"`
	Dst   []string `json:"dst"`
	Proto []int    `json:"proto"` // IP protocol numbers; absent: TCP, UDP and ICMP
}

// grant gives sources app capabilities on targets, and with IP ("*", "80",
// "tcp:443") network access as well.
type grant struct {
	Src []string           `json:"src"`
	Dst []string           `json:"dst"`
	IP  []string           `json:"ip"`
	App tailcfg.PeerCapMap `json:"app"`
}

// validate says what is wrong with a policy.
func (p *policy) validate() error {
	if p.Mode != "" && p.Mode != "full" && p.Mode != "filter" {
		return fmt.Errorf(`mode %q is neither "full" nor "filter"`, p.Mode)
	}
	if p.Visibility != "" && p.Visibility != "all" && p.Visibility != "acl" {
		return fmt.Errorf(`visibility %q is neither "all" nor "acl"`, p.Visibility)
	}
	for _, r := range p.Rules {
		for _, d := range r.Dst {
			if _, _, err := splitPorts(d); err != nil {
				return err
			}
		}
	}
	for _, g := range p.Grants {
		for _, s := range g.IP {
			if _, _, err := parseGrantIP(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitPorts splits "target:80-90,443" into its target and its ports.
func splitPorts(dst string) (target string, ports []tailcfg.PortRange, err error) {
	i := strings.LastIndexByte(dst, ':')
	if i <= 0 {
		return "", nil, fmt.Errorf("destination %q has no ports; write %q for all", dst, dst+":*")
	}
	for part := range strings.SplitSeq(dst[i+1:], ",") {
		r, err := parsePorts(part)
		if err != nil {
			return "", nil, fmt.Errorf("destination %q: %w", dst, err)
		}
		ports = append(ports, r)
	}
	return dst[:i], ports, nil
}

func parsePorts(s string) (tailcfg.PortRange, error) {
	if s == "*" {
		return tailcfg.PortRangeAny, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || b < a {
		return tailcfg.PortRange{}, fmt.Errorf("%q is not a port, a range of ports or *", s)
	}
	return tailcfg.PortRange{First: uint16(a), Last: uint16(b)}, nil
}

// parseGrantIP reads the ip part of a grant: "*", "80-90" or "tcp:443".
func parseGrantIP(s string) (proto []int, ports tailcfg.PortRange, err error) {
	if name, rest, ok := strings.Cut(s, ":"); ok {
		number, known := map[string]int{"tcp": 6, "udp": 17, "icmp": 1}[name]
		if !known {
			return nil, ports, fmt.Errorf("%q: the protocol is none of tcp, udp, icmp", s)
		}
		proto, s = []int{number}, rest
	}
	ports, err = parsePorts(s)
	return proto, ports, err
}

// matchesLocked reports whether a source or target names n.
func (t *tailnet) matchesLocked(spec string, n *node) bool {
	if spec == "*" {
		return true
	}
	if strings.HasPrefix(spec, "tag:") {
		return slices.Contains(n.tags, spec)
	}
	if strings.Contains(spec, "@") {
		return len(n.tags) == 0 && n.user.login == spec
	}
	if pfx, ok := parsePrefix(spec); ok {
		return slices.ContainsFunc(n.addrs, pfx.Overlaps) || slices.ContainsFunc(n.routes(), pfx.Overlaps)
	}
	return n.label == spec || n.fqdn == spec || n.hostname() == spec
}

func parsePrefix(spec string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(spec); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	pfx, err := netip.ParsePrefix(spec)
	return pfx.Masked(), err == nil
}

func (t *tailnet) matchesAnyLocked(specs []string, n *node) bool {
	return slices.ContainsFunc(specs, func(s string) bool { return t.matchesLocked(s, n) })
}

// sourcesLocked turns sources into the addresses of a filter rule.
func (t *tailnet) sourcesLocked(specs []string) []string {
	var ips []string
	for _, spec := range specs {
		if spec == "*" {
			return []string{"*"}
		}
		if pfx, ok := parsePrefix(spec); ok {
			ips = append(ips, pfx.String())
			continue
		}
		for _, n := range t.nodes {
			if t.matchesLocked(spec, n) {
				for _, a := range n.addrs {
					ips = append(ips, a.Addr().String())
				}
			}
		}
	}
	return ips
}

// targetsLocked turns one target into those of its addresses that n answers
// for: none, if it does not name n.
func (t *tailnet) targetsLocked(spec string, n *node) []string {
	if !t.matchesLocked(spec, n) {
		return nil
	}
	if spec == "*" {
		return []string{"*"}
	}
	if pfx, ok := parsePrefix(spec); ok {
		return []string{pfx.String()}
	}
	return []string{n.addrs[0].String(), n.addrs[1].String()}
}

// filtersLocked compiles the policy into the packet filters of one node, by
// name: a rule of the policy is a filter, so that a change of it is a small one
// on the wire.
func (t *tailnet) filtersLocked(n *node) map[string][]tailcfg.FilterRule {
	filters := make(map[string][]tailcfg.FilterRule)
	put := func(name string, rules ...tailcfg.FilterRule) {
		if t.policy.Single {
			name = "base"
		}
		filters[name] = append(filters[name], rules...)
	}
	if t.policy.Single {
		filters["base"] = []tailcfg.FilterRule{} // "no rule" has to be said
	}
	if !n.authorized {
		return filters
	}
	if t.policy.Rules == nil {
		put("allow-all", tailcfg.FilterAllowAll...)
	}
	for i, r := range t.policy.Rules {
		if fr, ok := t.compileRuleLocked(r, n); ok {
			put(fmt.Sprintf("rule-%03d", i), fr)
		}
	}
	for i, g := range t.policy.Grants {
		if rules := t.compileGrantLocked(g, n); len(rules) > 0 {
			put(fmt.Sprintf("grant-%03d", i), rules...)
		}
	}
	return filters
}

// compileRuleLocked compiles a rule for the node n, if it concerns it.
func (t *tailnet) compileRuleLocked(r rule, n *node) (tailcfg.FilterRule, bool) {
	fr := tailcfg.FilterRule{SrcIPs: t.sourcesLocked(r.Src), IPProto: r.Proto}
	for _, dst := range r.Dst {
		target, ports, err := splitPorts(dst)
		if err != nil {
			continue // refused by validate
		}
		for _, ip := range t.targetsLocked(target, n) {
			for _, p := range ports {
				fr.DstPorts = append(fr.DstPorts, tailcfg.NetPortRange{IP: ip, Ports: p})
			}
		}
	}
	return fr, len(fr.SrcIPs) > 0 && len(fr.DstPorts) > 0
}

// compileGrantLocked compiles a grant for the node n; the result is empty if it
// does not concern it.
func (t *tailnet) compileGrantLocked(g grant, n *node) (rules []tailcfg.FilterRule) {
	src := t.sourcesLocked(g.Src)
	if len(src) == 0 || !t.matchesAnyLocked(g.Dst, n) {
		return nil
	}
	if len(g.App) > 0 {
		rules = append(rules, tailcfg.FilterRule{
			SrcIPs:   src,
			CapGrant: []tailcfg.CapGrant{{Dsts: n.addrs, CapMap: g.App}},
		})
	}
	for _, s := range g.IP {
		proto, ports, err := parseGrantIP(s)
		if err != nil {
			continue // refused by validate
		}
		fr := tailcfg.FilterRule{SrcIPs: src, IPProto: proto}
		for _, target := range g.Dst {
			for _, ip := range t.targetsLocked(target, n) {
				fr.DstPorts = append(fr.DstPorts, tailcfg.NetPortRange{IP: ip, Ports: ports})
			}
		}
		rules = append(rules, fr)
	}
	return rules
}

// visibilityLocked returns which peers n may know of: all of them, or under
// visibility "acl" those that a rule or grant connects it with either way.
func (t *tailnet) visibilityLocked(n *node) func(*node) bool {
	if t.policy.Visibility != "acl" || t.policy.Rules == nil {
		return func(*node) bool { return true }
	}
	var to, from [][]string // what n may reach, and who may reach n
	consider := func(src, dst []string) {
		if t.matchesAnyLocked(src, n) {
			to = append(to, dst)
		}
		if t.matchesAnyLocked(dst, n) {
			from = append(from, src)
		}
	}
	for _, r := range t.policy.Rules {
		var targets []string
		for _, dst := range r.Dst {
			if target, _, err := splitPorts(dst); err == nil {
				targets = append(targets, target)
			}
		}
		consider(r.Src, targets)
	}
	for _, g := range t.policy.Grants {
		consider(g.Src, g.Dst)
	}
	return func(p *node) bool {
		connected := func(specs []string) bool { return t.matchesAnyLocked(specs, p) }
		return slices.ContainsFunc(to, connected) || slices.ContainsFunc(from, connected)
	}
}
