package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
)

// hostAddress is an address of this host's own beside loopback, and hostRoute
// the subnet route that leads to it.
var hostAddress, hostRoute = func() (netip.Addr, string) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr(), netip.PrefixFrom(p.Addr(), 32).String()
		}
	}
	return netip.Addr{}, ""
}()

func TestNoSettingOpensTheseAddresses(t *testing.T) {
	for what, list := range map[string]string{
		"loopback":              "127.0.0.1 127.0.0.53 127.255.255.254 ::1",
		"link-local":            "169.254.0.1 169.254.255.254 fe80::1 fe80::a9fe:a9fe febf::1",
		"AWS metadata":          "169.254.169.254 169.254.170.2 169.254.170.23 fd00:ec2::254 fd00:ec2::23",
		"Google metadata":       "169.254.169.254 fd20:ce::254",
		"Azure metadata":        "169.254.169.254 168.63.129.16",
		"Alibaba metadata":      "100.100.100.200",
		"Oracle metadata":       "169.254.169.254 192.0.0.192 fd00:c1::a9fe:a9fe",
		"Scaleway metadata":     "169.254.42.42 fd00:42::42",
		"Akamai metadata":       "169.254.169.254 fd00:a9fe:a9fe::1",
		"Tencent metadata":      "169.254.0.23",
		"multicast":             "224.0.0.1 239.255.255.250 ff02::1 ff05::1 ff0e::1",
		"unspecified":           "0.0.0.0 :: 0.1.2.3",
		"broadcast":             "255.255.255.255",
		"NAT64":                 "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe",
		"6to4":                  "2002:7f00:1::1 2002:a9fe:a9fe::1",
		"Teredo":                "2001:0:a9fe:a9fe::1",
		"IPv4-compatible":       "::7f00:1 ::a9fe:a9fe ::169.254.169.254",
		"IPv4-translated":       "::ffff:0:7f00:1 ::ffff:0:a9fe:a9fe",
		"Tailscale's addresses": "100.64.0.1 100.100.100.100 100.127.255.254 fd7a:115c:a1e0::53 fd7a:115c:a1e0:ab12::1",
		"this host's own":       hostAddress.String(),
	} {
		for text := range strings.FieldsSeq(list) {
			if why := neverByHost(netip.MustParseAddr(text)); why == "" {
				t.Errorf("%s: %s would be dialled", what, text)
			}
		}
	}
}

func TestEveryAddressOfAnInterfaceOfThisHostIsItsOwn(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil || len(own) < 2 {
		t.Fatalf("%v %v", own, err)
	}
	for _, a := range own {
		if ip := netip.MustParsePrefix(a.String()).Addr(); neverByHost(ip) == "" {
			t.Errorf("%s would be dialled", ip)
		}
	}
}

func TestOtherUnicastAddressesMayBeDialledByTheHostIfThatIsAllowed(t *testing.T) {
	for text := range strings.FieldsSeq("10.1.2.3 172.16.0.1 192.168.1.1 192.0.1.1 203.0.113.7 8.8.8.8 1.0.0.1 " +
		"100.63.255.255 100.128.0.1 168.63.129.17 169.253.1.1 2001:db8::1 2001:4860:4860::8888 fd00:1234::1 fc00::1 2000::1") {
		if why := neverByHost(netip.MustParseAddr(text)); why != "" {
			t.Errorf("%s is refused as %s", text, why)
		}
	}
}

// closedTo makes listeners on addresses of this host and checks afterwards that
// nobody has connected.
func closedTo(t *testing.T, ips ...string) (addresses []string, nobodyCame func()) {
	t.Helper()
	var lns []*net.TCPListener
	for _, ip := range ips {
		ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		lns = append(lns, ln.(*net.TCPListener))
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses, func() {
		t.Helper()
		for _, ln := range lns {
			ln.SetDeadline(time.Now().Add(50 * time.Millisecond))
			if c, err := ln.Accept(); err == nil {
				t.Errorf("%s was connected to from %s", ln.Addr(), c.RemoteAddr())
				c.Close()
			}
		}
	}
}

func TestTheGuardRefusesWhatIsNoPeersWhateverTheSetting(t *testing.T) {
	open := configFor(t, "open")
	open.AllowHostNetwork = true
	for name, n := range map[string]*node{"tailnet only": probe(t), "host network allowed": joined(t, open)} {
		t.Run(name, func(t *testing.T) {
			local, nobodyCame := closedTo(t, "127.0.0.1", "::1", hostAddress.String())
			ports := netip.MustParseAddrPort(local[0]).Port()
			forms := append(local,
				fmt.Sprintf("[::ffff:127.0.0.1]:%d", ports),
				fmt.Sprintf("[::ffff:%s]:%d", hostAddress, netip.MustParseAddrPort(local[2]).Port()),
				fmt.Sprintf("0.0.0.0:%d", ports), fmt.Sprintf("[::]:%d", ports),
				fmt.Sprintf("127.0.0.2:%d", ports), fmt.Sprintf("[::127.0.0.1]:%d", ports),
				fmt.Sprintf("[64:ff9b::7f00:1]:%d", ports),
				fmt.Sprintf("%s:%d", ownIP(t, n), ports), // the node itself
				"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fd00:ec2::254]:80",
				"100.100.100.100:53", "100.100.100.200:80", "[fd7a:115c:a1e0::53]:53",
				"100.99.98.97:80", "[fd7a:115c:a1e0::dead]:80", // Tailscale's, but nobody's
				"[fe80::1%lo]:80", "[fe80::1%25lo]:80", "224.0.0.1:80",
			)
			for _, address := range forms {
				c, err := dialWithin(n, address, waitLimit)
				if err == nil {
					c.Close()
					t.Errorf("%s was dialled", address)
				} else if codeOf(err) != codeNotOnTailnet {
					t.Errorf("%s: code %d, %v", address, codeOf(err), err)
				}
			}
			nobodyCame()
		})
	}
}

func TestWithoutTheHostsNetworkAPublicAddressIsRefused(t *testing.T) {
	for _, address := range []string{"203.0.113.7:80", "10.1.2.3:22", "[2001:db8::1]:443"} {
		_, err := dialWithin(probe(t), address, waitLimit)
		wantFailure(t, err, codeNotOnTailnet, "no peer and no accepted route owns")
	}
}

func TestTheNodeItselfIsNotDialled(t *testing.T) {
	n := probe(t)
	ip4, ip6 := n.server.TailscaleIPs()
	for _, ip := range []netip.Addr{ip4, ip6, netip.AddrFrom16(ip4.As16())} {
		_, err := dialWithin(n, netip.AddrPortFrom(ip, 80).String(), waitLimit)
		wantFailure(t, err, codeNotOnTailnet, "is this node itself")
	}
}

func TestWhatIsNoAddressWithAPortIsRefused(t *testing.T) {
	for _, address := range []string{
		"web:80", "web.tail1234.ts.net:80", "localhost:80", "", "100.64.0.1", "100.64.0.1:", ":80", "100.64.0.1:http",
		"100.64.0.1:65536", "100.64.0.1:-1", "[100.64.0.1]:80", "2130706433:80", "0177.0.0.1:80", "127.1:80", "0x7f.1:80",
		"100.64.0.1:80 ", "100.64.0.1:0", "[fd7a:115c:a1e0::1]:0",
	} {
		_, err := dialWithin(probe(t), address, waitLimit)
		wantFailure(t, err, codeInvalid)
	}
}

func TestOnlyTCPIsDialled(t *testing.T) {
	p := webPeer(t)
	for _, network := range []string{"", "udp", "tcp4", "unix"} {
		fd, err := probe(t).dialFD(t.Context(), network, p.v4(echoPort))
		wantFailure(t, err, codeInvalid, `must be "tcp"`)
		if fd != -1 {
			t.Errorf("a descriptor %d", fd)
		}
	}
}

func TestAPeerIsReachedByEachFormOfItsAddress(t *testing.T) {
	n, p := probe(t), webPeer(t)
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	mapped := netip.AddrFrom16(netip.MustParseAddr(p.IPs[0]).As16())
	for _, address := range []string{p.v4(echoPort), p.v6(echoPort), netip.AddrPortFrom(mapped, echoPort).String()} {
		c := opened(t, n, address)
		send(t, c, "through "+address)
		c.CloseWrite()
		if got := readAll(t, c); got != "through "+address {
			t.Errorf("%q", got)
		}
	}
}

func TestAPortThatNobodyListensOnIsRefusedByThePeer(t *testing.T) {
	n, p := probe(t), webPeer(t)
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	for _, address := range []string{p.v4(closedPort), p.v6(closedPort)} {
		_, err := dialWithin(n, address, waitLimit)
		wantFailure(t, err, codeRefused, "refused the connection")
	}
}

func TestAPeerThatDoesNotAnswerIsATimeout(t *testing.T) {
	n := probe(t)
	began := time.Now()
	_, err := dialWithin(n, silentPeer(t, n), 200*time.Millisecond)
	wantFailure(t, err, codeTimeout, "no answer from")
	if took := time.Since(began); took > 200*time.Millisecond+soon {
		t.Errorf("it took %v", took)
	}
}

func TestARouteIsReachedOnlyIfItIsAcceptedAndApproved(t *testing.T) {
	w := onTailnet(t)
	router := joined(t, configFor(t, "router"))
	c := configFor(t, "route-user")
	c.AcceptRoutes = true
	accepting, declining := joined(t, c), probe(t)
	// The route leads to what is this host's own address as well.
	local, nobodyCame := closedTo(t, hostAddress.String())
	address := local[0]
	offer(t, router, address, "behind the router")

	_, err := dialWithin(accepting, address, waitLimit)
	wantFailure(t, err, codeNotOnTailnet, "no accepted route")

	w.admin(t, "POST", "/nodes/router/routes", map[string]any{"approve": []string{hostRoute}}, nil)
	awaitPeer(t, accepting, hostAddress)
	acquainted(t, accepting, router)
	through := opened(t, accepting, address)
	if got := readAll(t, through); got != "behind the router" {
		t.Errorf("%q", got)
	}
	through.Close()
	eventually(t, "the declining node knows of the route", func() bool {
		st, err := declining.api().Status(t.Context())
		if err != nil {
			return false
		}
		for _, peer := range st.Peer {
			if peer.PrimaryRoutes != nil && peer.PrimaryRoutes.Len() == 1 {
				return true
			}
		}
		return false
	})
	_, err = dialWithin(declining, address, waitLimit)
	wantFailure(t, err, codeNotOnTailnet, "no accepted route")

	w.admin(t, "POST", "/nodes/router/routes", map[string]any{"approve": []string{}}, nil)
	eventually(t, "the accepting node knows that the route is taken back", func() bool {
		return !accepting.server.Sys().Dialer.Get().UseNetstackForIP(hostAddress)
	})
	_, err = dialWithin(accepting, address, waitLimit)
	wantFailure(t, err, codeNotOnTailnet, "no accepted route")
	nobodyCame()
}

// offer makes n offer the route to the host's address, and answer there with a
// text.
func offer(t *testing.T, n *node, address, text string) {
	t.Helper()
	if _, err := n.api().EditPrefs(t.Context(), &ipn.MaskedPrefs{
		Prefs:              ipn.Prefs{AdvertiseRoutes: []netip.Prefix{netip.MustParsePrefix(hostRoute)}},
		AdvertiseRoutesSet: true,
	}); err != nil {
		t.Fatal(err)
	}
	// Not a listener: tsnet drops a route's address once a listener has the connection.
	here := netip.MustParseAddrPort(address)
	t.Cleanup(n.server.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
		return func(c net.Conn) {
			io.WriteString(c, text)
			c.(stream).CloseWrite()
			io.Copy(io.Discard, c) // until the other side has it all and goes
			c.Close()
		}, dst == here
	}))
}
