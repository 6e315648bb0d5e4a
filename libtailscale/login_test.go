package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
)

// newKey makes an auth key.
func (w *localTailnet) newKey(t testing.TB, spec map[string]any) string {
	t.Helper()
	var k struct{ Key string }
	w.admin(t, "POST", "/keys", spec, &k)
	return k.Key
}

// expired is a node whose key control has expired, and the device as it was.
func expired(t testing.TB, c config) (*node, *device) {
	t.Helper()
	w := onTailnet(t)
	n := joined(t, c)
	before := w.device(t, c.Hostname)
	w.admin(t, "POST", "/nodes/"+c.Hostname+"/expire", map[string]any{}, nil)
	if err := awaitState(n, ipn.NeedsLogin); err != nil {
		t.Fatal(err)
	}
	return n, before
}

// wantRenewed says what is wrong unless the device is the one that it was, with
// another key.
func wantRenewed(t testing.TB, n *node, before *device) {
	t.Helper()
	if err := awaitState(n, ipn.Running); err != nil {
		t.Fatal(err)
	}
	after := onTailnet(t).device(t, before.Hostname)
	if after == nil || after.ID != before.ID || after.Name != before.Name || after.Ephemeral != before.Ephemeral ||
		!slices.Equal(after.Addresses, before.Addresses) || after.Expired || after.NodeKey == before.NodeKey {
		t.Errorf("was %+v, is %+v", before, after)
	}
	if ip := ownIP(t, n); ip.String() != before.Addresses[0] {
		t.Errorf("the node has %v, control says %v", ip, before.Addresses)
	}
}

func TestALoginWithAKeyRenewsTheDeviceWhoseKeyHasExpired(t *testing.T) {
	for _, ephemeral := range []bool{true, false} {
		t.Run(fmt.Sprintf("ephemeral=%v", ephemeral), func(t *testing.T) {
			c := configFor(t, fmt.Sprintf("renewed-%v", ephemeral))
			c.Ephemeral = ephemeral
			n, before := expired(t, c)
			peer := webPeer(t)
			if err := loginWithin(n, c.AuthKey, waitLimit); err != nil {
				t.Fatal(err)
			}
			wantRenewed(t, n, before)
			conn, err := dialWithin(n, peer.v4(7), waitLimit)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			send(t, conn, "hello")
			receive(t, conn, "hello")
		})
	}
}

func TestALoginUsesTheKeyThatItIsGivenAndNotTheOneOfTheStart(t *testing.T) {
	w := onTailnet(t)
	c := configFor(t, "other-key")
	c.AuthKey = w.newKey(t, nil) // single-use
	n, before := expired(t, c)
	if err := loginWithin(n, c.AuthKey, waitLimit); err != nil {
		t.Fatal(err)
	}
	if why := awaitRefusal(t, n); !strings.Contains(why, "not valid") {
		t.Errorf("it says %q", why)
	}
	if err := loginWithin(n, w.newKey(t, nil), waitLimit); err != nil {
		t.Fatal(err)
	}
	wantRenewed(t, n, before)
}

func TestALoginWithoutAKeyAsksForALinkAndIsTheSameDeviceAfterIt(t *testing.T) {
	w := onTailnet(t)
	n, before := expired(t, configFor(t, "by-link"))
	var link string
	asked := inBackground(func() error {
		return awaitNotice(n, func(msg ipn.Notify) bool {
			if msg.BrowseToURL != nil {
				link = *msg.BrowseToURL
			}
			return link != ""
		})
	})
	if err := loginWithin(n, "", waitLimit); err != nil {
		t.Fatal(err)
	}
	if err := outcome(t, "the link comes", waitLimit, asked); err != nil {
		t.Fatal(err)
	}
	w.admin(t, "POST", "/logins/complete", map[string]any{"url": link}, nil)
	wantRenewed(t, n, before)
}

func TestAStateWhoseKeyHasExpiredIsRenewedByALogin(t *testing.T) {
	w := onTailnet(t)
	c := configFor(t, "returning")
	c.Ephemeral = false
	key := c.AuthKey
	n, before := expired(t, c)
	if err := closeWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	c.AuthKey = ""
	n = made(t, c)
	if err := startWithin(n, waitLimit); err != nil {
		t.Fatal(err)
	}
	w.event(t, "login-started", "returning")
	if err := loginWithin(n, key, waitLimit); err != nil {
		t.Fatal(err)
	}
	wantRenewed(t, n, before)
}

func TestLoginsAtTheSameTimeAreOne(t *testing.T) {
	w := onTailnet(t)
	c := configFor(t, "once")
	n, before := expired(t, c)
	begun := make(chan struct{})
	hold := make(chan struct{})
	n.beginningLogin(func() error { close(begun); <-hold; return failf(codeKey, "refused") })
	outcome(t, "the first begins", soon, begun)
	wantFailure(t, loginWithin(n, w.AuthKey, 50*time.Millisecond), codeTimeout)
	second := inBackground(func() error { return loginWithin(n, w.AuthKey, waitLimit) })
	eventually(t, "the second waits", func() bool { return len(goroutinesIn("(*node).login(")) > 0 })
	close(hold)
	wantFailure(t, outcome(t, "the second ends with the first", waitLimit, second), codeKey, "refused")
	if err := loginWithin(n, w.AuthKey, waitLimit); err != nil {
		t.Fatal(err)
	}
	wantRenewed(t, n, before)
}

func TestACloseDuringALoginLeavesNothing(t *testing.T) {
	onTailnet(t)
	leavesNothing(t, func() {
		for i := range 10 {
			n, err := startRunning(configFor(t, fmt.Sprintf("hasty-login-%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			logging := inBackground(func() error { return loginWithin(n, onTailnet(t).AuthKey, waitLimit) })
			time.Sleep(time.Duration(i) * 300 * time.Microsecond)
			if err := closeWithin(n, waitLimit); err != nil {
				t.Fatal(err)
			}
			if err := outcome(t, "the login ends", soon, logging); err != nil {
				wantFailure(t, err, codeClosed)
			}
			if err := loginWithin(n, "", soon); err == nil || codeOf(err) != codeClosed {
				t.Errorf("after the close: %v", err)
			}
		}
	})
}
