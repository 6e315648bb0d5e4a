package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
)

// shut waits until a URL does not answer any more. No event of the client
// announces that its packet filter changed.
func (w *world) shut(from *tsNode, target string) {
	w.t.Helper()
	w.eventually(target+" does not answer", func() bool {
		_, err := w.fetch(from, target, 200*time.Millisecond)
		return err != nil
	})
}

func TestTheAccessRulesChangeAtRunTime(t *testing.T) {
	for _, mode := range []string{"filter", "full"} {
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, single filter %v", mode, single), func(t *testing.T) {
				w := newWorld(t)
				web, caller := w.join("web"), w.join("caller")
				w.serveHello(web)
				w.mustFetch(caller, "http://web/")
				put := func(rules []rule) {
					w.admin("PUT", "/policy", policy{Rules: rules, Mode: mode, Single: single}, nil)
				}
				put([]rule{{Src: []string{"caller"}, Dst: []string{"web:8080"}}})
				w.shut(caller, "http://web/")
				w.mustFetch(caller, "http://web:8080/")
				if _, err := w.fetch(caller, "http://web/", 300*time.Millisecond); err == nil {
					t.Error("port 80 answers again")
				}
				put([]rule{{Src: []string{"alice@example.com"}, Dst: []string{"*:80"}}})
				w.mustFetch(caller, "http://web/")
			})
		}
	}
}

func TestAPolicyWithoutRulesClosesEverythingAndNoPolicyOpensIt(t *testing.T) {
	for _, single := range []bool{false, true} {
		w := newWorld(t)
		web, caller := w.join("web"), w.join("caller")
		w.serveHello(web)
		w.admin("PUT", "/policy", policy{Rules: []rule{}, Single: single}, nil)
		w.shut(caller, "http://web/")
		w.admin("PUT", "/policy", nil, nil)
		w.mustFetch(caller, "http://web/")
	}
}

func TestALateFilterReachesTheDataPathThoughTheClientsDebugViewOfItIsStale(t *testing.T) {
	w := newWorld(t)
	web, caller := w.join("web"), w.join("caller")
	w.serveHello(web)
	view := func() string {
		rules, err := web.lc.DebugPacketFilterRules(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(mustJSON(rules))
	}
	before := view()
	w.admin("PUT", "/policy", policy{Rules: []rule{}, Mode: "filter"}, nil)
	w.shut(caller, "http://web/")
	if view() != before {
		t.Error("tailscale.com has mended debug-packet-filter-rules: tell the readers of it")
	}
	w.admin("PUT", "/policy", policy{Rules: []rule{}, Mode: "full"}, nil)
	w.eventually("a complete map refreshes the view", func() bool { return view() != before })
}

func TestWhoIsShowsTheCapabilitiesThatAGrantGives(t *testing.T) {
	w := newWorld(t)
	web := w.join("web")
	f := w.flags("caller")
	f.tags = "tag:ci"
	caller := w.joinAs(f)
	from := netip.AddrPortFrom(w.status(caller).TailscaleIPs[0], 1).String()
	const name = "example.com/cap/team"
	w.eventually("web knows the caller", func() bool {
		_, err := web.lc.WhoIs(w.ctx, from)
		return err == nil
	})
	caps := func() tailcfg.PeerCapMap {
		who, err := web.lc.WhoIs(w.ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		return who.CapMap
	}
	if len(caps()[name]) != 0 {
		t.Fatal("the capability is there before its grant")
	}
	g := map[string]any{"src": []string{"tag:ci"}, "dst": []string{"web"}, "app": map[string]any{name: []any{map[string]any{"role": "lead"}}}}
	w.admin("PUT", "/policy", map[string]any{"grants": []any{g}}, nil)
	w.eventually("WhoIs shows the capability", func() bool { return len(caps()[name]) == 1 })
	var value struct{ Role string }
	if err := json.Unmarshal([]byte(caps()[name][0]), &value); err != nil || value.Role != "lead" {
		t.Errorf("its value is %s", caps()[name][0])
	}
	w.admin("PUT", "/policy", map[string]any{"grants": []any{}}, nil)
	w.eventually("WhoIs shows it no more", func() bool { return len(caps()[name]) == 0 })
}

func TestWithVisibilityACLANodeSeesOnlyWhomARuleConnectsItWith(t *testing.T) {
	w := newWorld(t)
	a, _, _ := w.join("a"), w.join("b"), w.join("c")
	w.eventually("a sees both", func() bool { return len(w.status(a).Peer) == 2 })
	w.admin("PUT", "/policy", policy{Rules: []rule{{Src: []string{"b"}, Dst: []string{"a:*"}}}, Visibility: "acl"}, nil)
	w.eventually("a sees b alone", func() bool { return len(w.status(a).Peer) == 1 && w.peer(a, "b") != nil })
}

func TestARouteThatIsApprovedReachesThePeers(t *testing.T) {
	w := newWorld(t)
	router, other := w.join("router"), w.join("other")
	if err := router.advertise(w.ctx, "10.1.0.0/24"); err != nil {
		t.Fatal(err)
	}
	w.eventually("control sees the offer", func() bool { return slices.Equal(w.node("router").Advertised, []string{"10.1.0.0/24"}) })
	if p := w.peer(other, "router"); p.PrimaryRoutes != nil {
		t.Error("the route is used before it is approved")
	}
	w.admin("POST", "/nodes/router/routes", map[string]any{"approve": []string{"10.1.0.0/24"}}, nil)
	w.eventually("the peer has the route", func() bool {
		p := w.peer(other, "router")
		return p.PrimaryRoutes != nil && p.PrimaryRoutes.Len() == 1 && p.PrimaryRoutes.At(0).String() == "10.1.0.0/24"
	})
	if _, err := other.lc.EditPrefs(w.ctx, &ipn.MaskedPrefs{RouteAllSet: true, Prefs: ipn.Prefs{RouteAll: true}}); err != nil {
		t.Fatal(err)
	}
	if got, want := w.mustFetch(other, "http://10.1.0.1/"), "Hello from 10.1.0.1, behind a router.\n"; got != want {
		t.Errorf("the host behind the router says %q, want %q", got, want)
	}
}

// lookup asks a node's own DNS for the address of a name; empty if there is none.
func (w *world) lookup(n *tsNode, name string) string {
	w.t.Helper()
	b, _, err := n.lc.QueryDNS(w.ctx, name, "A")
	if err != nil {
		return ""
	}
	var msg dnsmessage.Message
	if err := msg.Unpack(b); err != nil {
		w.t.Fatal(err)
	}
	for _, answer := range msg.Answers {
		if a, ok := answer.Body.(*dnsmessage.AResource); ok {
			return netip.AddrFrom4(a.A).String()
		}
	}
	return ""
}

func TestExtraRecordsAndNewPeersResolve(t *testing.T) {
	w := newWorld(t)
	n := w.join("asker")
	w.admin("PUT", "/dns", map[string]any{"extra_records": []any{
		map[string]any{"name": "wiki.corp.example", "value": "100.64.7.7"},
		map[string]any{"name": "db.tail1234.ts.net", "type": "A", "value": "100.64.7.8"},
	}}, nil)
	w.eventually("an extra record resolves", func() bool { return w.lookup(n, "wiki.corp.example.") == "100.64.7.7" })
	if got := w.lookup(n, "db.tail1234.ts.net."); got != "100.64.7.8" {
		t.Errorf("the record below the suffix is %q", got)
	}
	w.join("later")
	want := w.node("later").Addresses[0]
	w.eventually("a peer that joined later resolves", func() bool { return w.lookup(n, "later.tail1234.ts.net.") == want })
	if got := w.lookup(n, "nobody.tail1234.ts.net."); got != "" {
		t.Errorf("a name that nobody has is %s", got)
	}
}

func TestANameOfASplitDNSRouteIsAskedOfItsResolver(t *testing.T) {
	w := newWorld(t)
	resolver, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	go answerEverythingWith(resolver, netip.MustParseAddr("100.64.9.9"))
	n := w.join("asker")
	w.admin("PUT", "/dns", map[string]any{"routes": map[string][]string{"corp.example": {resolver.LocalAddr().String()}}}, nil)
	w.eventually("the resolver's answer arrives", func() bool { return w.lookup(n, "intranet.corp.example.") == "100.64.9.9" })
	if got := w.lookup(n, "elsewhere.example."); got != "" {
		t.Errorf("a name outside of the route is %s", got)
	}
}

// answerEverythingWith is a DNS server that knows one address.
func answerEverythingWith(conn net.PacketConn, ip netip.Addr) {
	buf := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var msg dnsmessage.Message
		if msg.Unpack(buf[:size]) != nil || len(msg.Questions) == 0 {
			continue
		}
		q := msg.Questions[0]
		msg.Response, msg.Additionals = true, nil
		if q.Type == dnsmessage.TypeA {
			msg.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: ip.As4()},
			}}
		}
		if answer, err := msg.Pack(); err == nil {
			conn.WriteTo(answer, from)
		}
	}
}

func TestANodePublishesACMEChallengesForItsOwnNameOnly(t *testing.T) {
	w := newWorld(t)
	n := w.join("web")
	if err := n.lc.SetDNS(w.ctx, "_acme-challenge.web.tail1234.ts.net", "token"); err != nil {
		t.Fatal(err)
	}
	var got struct{ Challenges []setDNSRecord }
	w.admin("GET", "/dns/challenges", nil, &got)
	if len(got.Challenges) != 1 || got.Challenges[0].Value != "token" || got.Challenges[0].NodeID != 1 {
		t.Errorf("control has %+v", got.Challenges)
	}
	if err := n.lc.SetDNS(w.ctx, "_acme-challenge.other.tail1234.ts.net", "token"); err == nil {
		t.Error("it may publish for another name")
	}
}

func TestHealthMessagesReachTheNodesAndGoAway(t *testing.T) {
	w := newWorld(t)
	n := w.join("patient")
	health := func() string { return strings.Join(w.status(n).Health, "; ") }
	w.admin("PUT", "/settings", map[string]any{"health": []string{"The relay has a cold."}}, nil)
	w.eventually("the node shows the message", func() bool { return strings.Contains(health(), "The relay has a cold.") })
	w.admin("PUT", "/settings", map[string]any{"health": []string{}}, nil)
	w.eventually("the message is gone", func() bool { return !strings.Contains(health(), "The relay has a cold.") })
}

func TestFiveThousandPeersReachANodeAndLeaveIt(t *testing.T) {
	w := newWorld(t)
	n := w.join("popular")
	w.admin("POST", "/fake-peers", map[string]any{"count": 5000}, nil)
	w.eventually("they are all there", func() bool { return len(w.status(n).Peer) == 5000 })
	w.admin("DELETE", "/fake-peers", nil, nil)
	w.eventually("they are all gone", func() bool { return len(w.status(n).Peer) == 0 })
}

func TestPoliciesThatCannotBeMeantAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, p := range []policy{
		{Rules: []rule{{Src: []string{"*"}, Dst: []string{"web"}}}},
		{Rules: []rule{{Src: []string{"*"}, Dst: []string{"web:99999"}}}},
		{Rules: []rule{{Src: []string{"*"}, Dst: []string{"web:90-80"}}}},
		{Grants: []grant{{Src: []string{"*"}, Dst: []string{"web"}, IP: []string{"sctp:1"}}}},
		{Mode: "gently"},
		{Visibility: "some"},
	} {
		var answer struct{ Message string }
		if status := w.request("PUT", "/policy", p, &answer); status != 400 || answer.Message == "" {
			t.Errorf("%+v: %d %q", p, status, answer.Message)
		}
	}
}
