package main

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"time"

	"tailscale.com/net/netcheck"
	"tailscale.com/net/portmapper/portmappertype"
	"tailscale.com/tailcfg"
	"tailscale.com/types/logger"
	"tailscale.com/types/opt"
	"tailscale.com/util/eventbus"
)

// netReport is the document of tailscale_netcheck; tailscale.h describes it.
// What was not found out is null.
type netReport struct {
	UDP           bool           `json:"udp"`
	IPv4          bool           `json:"ipv4"`
	IPv6          bool           `json:"ipv6"`
	IPv6OnHost    bool           `json:"ipv6_on_host"`
	MappedIPv4    string         `json:"mapped_ipv4"`
	MappedIPv6    string         `json:"mapped_ipv6"`
	MappedIsOwn   bool           `json:"mapped_is_own"`
	MappingVaries *bool          `json:"mapping_varies"`
	UPnP          *bool          `json:"upnp"`
	PMP           *bool          `json:"nat_pmp"`
	PCP           *bool          `json:"pcp"`
	CaptivePortal *bool          `json:"captive_portal"`
	Preferred     int            `json:"preferred_region"`
	Regions       []regionReport `json:"regions"`
}

// regionReport is one DERP region: the quickest answer of any of its servers.
type regionReport struct {
	ID        int      `json:"id"`
	Code      string   `json:"code"`
	Name      string   `json:"name"`
	LatencyMS *float64 `json:"latency_ms"`
}

// netcheck asks the DERP regions of the node's own map what the network around
// this host is like. It uses sockets of its own, of the host's network, as the
// node does for the same questions.
func (n *node) netcheck(ctx context.Context) (*netReport, error) {
	if err := n.running(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	regions, err := n.api().CurrentDERPMap(ctx)
	if err == nil && (regions == nil || len(regions.Regions) == 0) {
		return nil, failf(codeUnreachable, "control has named no DERP region yet")
	}
	var report *netcheck.Report
	if err == nil {
		report, err = n.measure(ctx, regions)
	}
	switch {
	case n.ctx.Err() != nil:
		return nil, errNodeClosed
	case ctx.Err() != nil:
		return nil, failf(codeTimeout, "the network check did not end in time")
	case err != nil:
		return nil, failf(codeInternal, "netcheck: %v", err)
	}
	return netReportOf(report, regions), nil
}

func (n *node) measure(ctx context.Context, regions *tailcfg.DERPMap) (*netcheck.Report, error) {
	// A bus of its own: on the node's, the node would take this port mapper's
	// mappings for its own one's.
	bus := eventbus.New()
	defer bus.Close()
	netMon := n.server.Sys().NetMon.Get()
	check := &netcheck.Client{NetMon: netMon, Logf: logger.Discard}
	if newPortMapper, ok := portmappertype.HookNewPortMapper.GetOk(); ok {
		mapper := newPortMapper(logger.Discard, bus, netMon, nil, nil)
		defer mapper.Close()
		check.PortMapper = mapper
	}
	if err := check.Standalone(ctx, ""); err != nil {
		// No UDP socket: the check goes on over TCP, and says that UDP is blocked.
		check.SendPacket = func([]byte, netip.AddrPort) (int, error) { return 0, err }
	}
	return check.GetReport(ctx, regions, nil)
}

func netReportOf(r *netcheck.Report, regions *tailcfg.DERPMap) *netReport {
	out := &netReport{
		UDP: r.UDP, IPv4: r.IPv4, IPv6: r.IPv6, IPv6OnHost: r.OSHasIPv6,
		MappedIsOwn:   ownAddress(r.GlobalV4.Addr()),
		MappingVaries: known3(r.MappingVariesByDestIP),
		UPnP:          known3(r.UPnP), PMP: known3(r.PMP), PCP: known3(r.PCP),
		CaptivePortal: known3(r.CaptivePortal),
		Preferred:     r.PreferredDERP,
		Regions:       []regionReport{},
	}
	if r.GlobalV4.IsValid() {
		out.MappedIPv4 = r.GlobalV4.String()
	}
	if r.GlobalV6.IsValid() {
		out.MappedIPv6 = r.GlobalV6.String()
	}
	for id, region := range regions.Regions {
		one := regionReport{ID: id, Code: region.RegionCode, Name: region.RegionName}
		if d, measured := r.RegionLatency[id]; measured {
			ms := float64(d) / float64(time.Millisecond)
			one.LatencyMS = &ms
		}
		out.Regions = append(out.Regions, one)
	}
	slices.SortFunc(out.Regions, byLatency)
	return out
}

// byLatency puts the quickest first, and those without an answer last.
func byLatency(a, b regionReport) int {
	switch {
	case a.LatencyMS != nil && b.LatencyMS != nil:
		return cmp.Or(cmp.Compare(*a.LatencyMS, *b.LatencyMS), cmp.Compare(a.ID, b.ID))
	case a.LatencyMS != nil:
		return -1
	case b.LatencyMS != nil:
		return 1
	}
	return cmp.Compare(a.ID, b.ID)
}

// known3 turns a value that may not be known into a pointer that may be nil.
func known3(b opt.Bool) *bool {
	if v, ok := b.Get(); ok {
		return &v
	}
	return nil
}

// ownAddress reports whether ip is one of this host's: there is no NAT then.
func ownAddress(ip netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip.Unmap()
	})
}

// netcheckJSON is the report as a document.
func (n *node) netcheckJSON(ctx context.Context) (string, error) {
	report, err := n.netcheck(ctx)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(report)
	return string(text), err
}
