package main

import (
	"context"
	"net"
	"net/netip"

	"tailscale.com/net/tsaddr"
)

// The guard decides what a dial may reach. tsnet's own dialer sends what no
// peer owns out by the host's network, to 127.0.0.1 too; here it is refused.

// never are the addresses that no setting opens: services of clouds that hand
// out credentials to whoever can reach them, and wrappings of IPv4 addresses.
// Loopback, link-local (169.254.169.254 among them) and multicast are tested by
// property.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("100.64.0.0/10"),       // Tailscale's, and Alibaba's metadata 100.100.100.200
	netip.MustParsePrefix("168.63.129.16/32"),    // Azure's wire server
	netip.MustParsePrefix("192.0.0.0/24"),        // Oracle's 192.0.0.192, DS-Lite, NAT64 discovery
	netip.MustParsePrefix("fd00:ec2::/32"),       // AWS, over IPv6
	netip.MustParsePrefix("fd00:c1::/32"),        // Oracle, over IPv6
	netip.MustParsePrefix("fd00:42::/32"),        // Scaleway, over IPv6
	netip.MustParsePrefix("fd00:a9fe:a9fe::/48"), // Akamai, over IPv6
	netip.MustParsePrefix("fd20:ce::/32"),        // Google, over IPv6
	netip.MustParsePrefix("fd7a:115c:a1e0::/48"), // Tailscale's
	netip.MustParsePrefix("::/96"),               // unspecified, loopback, IPv4-compatible
	netip.MustParsePrefix("::ffff:0:0:0/96"),     // IPv4-translated (SIIT)
	netip.MustParsePrefix("64:ff9b::/96"),        // NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),      // NAT64, local
	netip.MustParsePrefix("2001::/32"),           // Teredo
	netip.MustParsePrefix("2002::/16"),           // 6to4
}

// destination is an address that the guard let pass, and how to get there.
type destination struct {
	netip.AddrPort
	byHost bool // by the host's network; only with allow_host_network
}

// guard checks address, "ip:port", for a dial. The error says why not.
func (n *node) guard(address string) (destination, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return destination{}, failf(codeInvalid, "%q is not an IP address with a port; names are resolved before a dial", address)
	}
	if ap.Port() == 0 {
		return destination{}, failf(codeInvalid, "port 0 cannot be dialled")
	}
	ip := ap.Addr().Unmap()
	if ip.Zone() != "" {
		return destination{}, failf(codeNotOnTailnet, "%s is link-local; the tailnet has no such addresses", ip)
	}
	ap = netip.AddrPortFrom(ip, ap.Port())
	if ip4, ip6 := n.server.TailscaleIPs(); ip == ip4 || ip == ip6 {
		return destination{}, failf(codeNotOnTailnet, "%s is this node itself", ip)
	}
	if n.server.Sys().Dialer.Get().UseNetstackForIP(ip) {
		return destination{AddrPort: ap}, nil
	}
	if !n.cfg.AllowHostNetwork {
		return destination{}, failf(codeNotOnTailnet, "no peer and no accepted route owns %s", ip)
	}
	if why := neverByHost(ip); why != "" {
		return destination{}, failf(codeNotOnTailnet, "%s is %s, which is never dialled", ip, why)
	}
	return destination{ap, true}, nil
}

// neverByHost says what keeps ip from being dialled by the host's network, or "".
func neverByHost(ip netip.Addr) string {
	switch {
	case ip.IsLoopback():
		return "a loopback address"
	case ip.IsLinkLocalUnicast():
		return "a link-local address (cloud metadata is there)"
	case ip.IsMulticast():
		return "a multicast address"
	case tsaddr.IsTailscaleIP(ip):
		return "a Tailscale address that no peer owns"
	}
	for _, p := range never {
		if p.Contains(ip) {
			return "an address of a reserved range or a cloud's metadata service"
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return "not known to be another host's: this host's addresses cannot be read"
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return "this host's own address"
		}
	}
	return ""
}

// dial connects to address, "ip:port", through the guard.
func (n *node) dial(ctx context.Context, address string) (net.Conn, error) {
	if err := n.running(); err != nil {
		return nil, err
	}
	to, err := n.guard(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	var c net.Conn
	if to.byHost {
		var d net.Dialer
		c, err = d.DialContext(ctx, "tcp", to.String())
	} else {
		c, err = n.dialPeer(ctx, to.AddrPort)
	}
	if err != nil && n.ctx.Err() != nil { // whatever it says: the node's stack went away below it
		return nil, errNodeClosed
	}
	if err != nil {
		return nil, dialFailure(to.String(), err)
	}
	return c, nil
}
