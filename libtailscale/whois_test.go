package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/tailcfg"
)

func whoisWithin(n *node, address string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.whois(ctx, address)
}

// whoHas is the answer about a device that n knows.
func whoHas(t testing.TB, n *node, address string) *apitype.WhoIsResponse {
	t.Helper()
	text, err := whoisWithin(n, address, waitLimit)
	if err != nil {
		t.Fatal(err)
	}
	var who *apitype.WhoIsResponse
	if err := json.Unmarshal([]byte(text), &who); err != nil || who == nil {
		t.Fatalf("%s: %q, %v", address, text, err)
	}
	return who
}

func TestWhoisAnswersAsLocalAPIDoes(t *testing.T) {
	n, p := probe(t), webPeer(t)
	awaitPeer(t, n, netip.MustParseAddr(p.IPs[0]))
	for _, address := range []string{p.IPs[0], p.IPs[1], p.v4(49152), p.v6(49152), ownIP(t, n).String()} {
		text, err := whoisWithin(n, address, waitLimit)
		if err != nil {
			t.Fatal(err)
		}
		over, err := n.api().WhoIs(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.MarshalIndent(over, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s:\n%s\nand not\n%s", address, text, want)
		}
	}
}

func TestWhoisOfNoAddressIsThisNode(t *testing.T) {
	n := probe(t)
	if who := whoHas(t, n, ""); who.Node.Addresses[0].Addr() != ownIP(t, n) {
		t.Errorf("it is %v", who.Node.Addresses)
	}
	fresh := made(t, configFor(t, "has-not-joined"))
	fresh.cfg.AuthKey = "" // it waits for a login
	if err := startWithin(fresh, waitLimit); err != nil {
		t.Fatal(err)
	}
	if text, err := whoisWithin(fresh, "", waitLimit); text != "null" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWhoisOfAnAddressThatNoDeviceHasIsNull(t *testing.T) {
	for _, address := range []string{"192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80", "127.0.0.1:80"} {
		if text, err := whoisWithin(probe(t), address, waitLimit); text != "null" || err != nil {
			t.Errorf("%s: %q, %v", address, text, err)
		}
	}
}

func TestWhoisTakesAddressesOnly(t *testing.T) {
	n := probe(t)
	key := strings.Repeat("0", 64)
	for _, address := range []string{"web", "web:80", "nodekey:" + key, "100.64.0.1:80&addr=100.64.0.2", "100.64.0.0/10", "100.64.0.1:"} {
		_, err := whoisWithin(n, address, waitLimit)
		wantFailure(t, err, codeInvalid, "not an IP address")
	}
}

func TestWhoisTellsARevokedGrantFromTheNextFilterOn(t *testing.T) {
	const capability = "example.com/cap/agent"
	w := onOwnTailnet(t)
	join := func(hostname string) *node {
		c := configFor(t, hostname)
		c.ControlURL, c.AuthKey = w.ControlURL, w.AuthKey
		return joined(t, c)
	}
	n, peer := join("granter"), join("granted")
	address := ownIP(t, peer).String()
	awaitPeer(t, n, ownIP(t, peer))
	granted := func() bool {
		_, has := whoHas(t, n, address).CapMap[tailcfg.PeerCapability(capability)]
		return has
	}
	grants := []any{map[string]any{
		"src": []string{"granted"}, "dst": []string{"granter"}, "app": map[string]any{capability: []any{}},
	}}
	// A response with the changed filter alone, in both of its forms, and a whole map.
	for _, how := range []map[string]any{{"mode": "filter"}, {"mode": "filter", "single": true}, {"mode": "full"}} {
		set := func(grants []any) {
			how["grants"] = grants
			w.admin(t, "PUT", "/policy", how, nil)
		}
		set(grants)
		eventually(t, "the grant shows", granted)
		set([]any{})
		eventually(t, "the grant is gone", func() bool { return !granted() })
	}
}

func TestWhoisEndsInTimeAndWithTheNode(t *testing.T) {
	n := joined(t, configFor(t, "asked"))
	own := ownIP(t, n).String()
	_, err := whoisWithin(n, own, -time.Second)
	wantFailure(t, err, codeTimeout, "did not say in time")
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	_, err = whoisWithin(n, own, waitLimit)
	wantFailure(t, err, codeClosed, "closed")
}

// A connection to LocalAPI that was dialled and not used would hold it up.
func TestManyQuestionsAtOnceAreAllAnsweredAndDoNotHoldTheCloseUp(t *testing.T) {
	n := joined(t, configFor(t, "popular-oracle"))
	own := ownIP(t, n).String()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 10 {
				text, err := whoisWithin(n, own, waitLimit)
				if err != nil || !strings.Contains(text, own) {
					t.Errorf("%q, %v", text, err)
					return
				}
			}
		})
		wg.Go(func() { whoisWithin(n, own, 20*time.Microsecond) }) // given up
	}
	wg.Wait()
	began := time.Now()
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the close took %v", took)
	}
	if left := goroutinesIn("askWhois"); len(left) > 0 {
		t.Errorf("questions go on:\n%s", strings.Join(slices.Compact(left), "\n"))
	}
}
