package main

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

func TestTwoNodesThatJoinWithAKeyTalkAndKnowEachOther(t *testing.T) {
	w := newWorld(t)
	web, caller := w.join("web"), w.join("caller")
	w.serveHello(web)
	got := w.mustFetch(caller, "http://web/")
	want := "Hello from web.tail1234.ts.net. You are caller.tail1234.ts.net (alice@example.com).\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	n := w.node("web")
	if !n.Online || !n.Ephemeral || !n.Authorized || n.Expired || n.User != "alice@example.com" || n.Name != "web.tail1234.ts.net" || n.OS != "linux" {
		t.Errorf("control lists %+v", n)
	}
	if left := time.Until(*n.KeyExpiry); left < 179*24*time.Hour || left > 180*24*time.Hour {
		t.Errorf("the key expires in %v, want 180 days", left)
	}
	w.eventually("control knows web's endpoint and relay", func() bool {
		n := w.node("web")
		return len(n.Endpoints) > 0 && n.HomeDERP > 0
	})
}

func TestALogoutRemovesANodeThatAskedToBeEphemeral(t *testing.T) {
	w := newWorld(t)
	watcher, leaver := w.join("watcher"), w.join("leaver")
	w.eventually("the watcher sees the leaver", func() bool { return w.peer(watcher, "leaver") != nil })
	leaver.leave()
	logout := w.event("logout", "leaver", 0)
	if removed := w.event("removed", "leaver", logout.Seq); removed.Detail != "logout" {
		t.Errorf("removed because of %q", removed.Detail)
	}
	if status := w.request("GET", "/nodes/leaver", nil, nil); status != http.StatusNotFound {
		t.Errorf("control still answers %d for it", status)
	}
	w.eventually("the watcher's last peer is gone", func() bool { return len(w.status(watcher).Peer) == 0 })
}

func TestANodeWithAnEphemeralKeyAloneIsExpiredByALogoutAndRemovedByTheTimeOut(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/settings", map[string]any{"ephemeral_timeout_ms": 500}, nil)
	f := w.flags("keyed")
	f.authKey = w.newKey(keySpec{Ephemeral: true, Preauthorized: true})
	f.ephemeral, f.dir = false, t.TempDir()
	n := w.joinAs(f)
	if !w.node("keyed").Ephemeral {
		t.Fatal("the key does not make the node ephemeral")
	}
	if err := n.lc.Logout(w.ctx); err != nil {
		t.Fatal(err)
	}
	expired := w.event("expired", "keyed", 0)
	removed := w.event("removed", "keyed", expired.Seq)
	if removed.Detail != "ephemeral and away" {
		t.Errorf("removed because of %q", removed.Detail)
	}
}

func TestAnEphemeralNodeThatVanishesIsRemovedAfterTheTimeOut(t *testing.T) {
	w := newWorld(t)
	f := w.flags("vanisher")
	f.authKey = w.newKey(keySpec{Ephemeral: true, Preauthorized: true})
	// tsnet logs a node out when it is closed if the node asked to be ephemeral.
	f.ephemeral, f.dir = false, t.TempDir()
	w.joinAs(f).Close()
	offline := w.event("offline", "vanisher", 0)
	removed := w.event("removed", "vanisher", offline.Seq)
	if away := time.Duration(removed.TimeNS - offline.TimeNS); away < 290*time.Millisecond || away > 5*time.Second {
		t.Errorf("removed after %v, want 300 ms", away)
	}
}

func TestANodeThatKeepsItsStateComesBackAsItself(t *testing.T) {
	w := newWorld(t)
	f := w.flags("keeper")
	f.ephemeral, f.dir = false, t.TempDir()
	f.authKey = w.newKey(keySpec{Preauthorized: true}) // single use
	first := w.joinAs(f)
	before := w.node("keeper")
	first.Close()
	offline := w.event("offline", "keeper", 0)
	w.joinAs(f)
	w.event("online", "keeper", offline.Seq)
	after := w.node("keeper")
	if after.ID != before.ID || after.Name != before.Name || !slices.Equal(after.Addresses, before.Addresses) {
		t.Errorf("was %+v, came back as %+v", before, after)
	}
	w.event("resumed", "keeper", offline.Seq)
}

func TestAGoodNodeKeyWithAnExpiredAuthKeyIsRefusedAsByTheRealServer(t *testing.T) {
	w := newWorld(t)
	f := w.flags("keeper")
	f.ephemeral, f.dir = false, t.TempDir()
	w.joinAs(f).Close()
	w.admin("POST", "/keys/expire", map[string]any{"key": f.authKey}, nil)
	if _, err := w.start(f); err == nil || !strings.Contains(err.Error(), "invalid key: API key expired") {
		t.Errorf("got %v", err)
	}
	f.authKey = ""
	w.joinAs(f)
}

func TestANodeThatLoggedOutButWasNotEphemeralStaysExpired(t *testing.T) {
	w := newWorld(t)
	f := w.flags("stayer")
	f.ephemeral, f.dir = false, t.TempDir()
	n := w.joinAs(f)
	if err := n.lc.Logout(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event("expired", "stayer", 0)
	if got := w.node("stayer"); !got.Expired || got.Ephemeral {
		t.Errorf("control lists %+v", got)
	}
}

func TestADeletedNodeBelievesThatItIsRunningButIsOutOfTheMapPoll(t *testing.T) {
	w := newWorld(t)
	n := w.join("deleted")
	w.admin("DELETE", "/nodes/deleted", nil, nil)
	if why := w.event("removed", "deleted", 0).Detail; why != "admin" {
		t.Errorf("removed because of %q", why)
	}
	w.eventually("the node notices that it is not online", func() bool { return !w.status(n).Self.Online })
	if state := w.status(n).BackendState; state != ipn.Running.String() {
		t.Errorf("state is %s", state)
	}
}

func TestAnExpiredNodeNeedsALoginAtOnceAndIsTheSameDeviceAfterIt(t *testing.T) {
	w := newWorld(t)
	n := w.join("expiring")
	before := w.node("expiring")
	w.admin("POST", "/nodes/expiring/expire", map[string]any{"in_seconds": 0}, nil)
	w.awaitState(n, ipn.NeedsLogin)
	if err := n.lc.StartLoginInteractive(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.event("rotated", "expiring", 0)
	w.awaitState(n, ipn.Running)
	after := w.node("expiring")
	if after.ID != before.ID || after.NodeKey == before.NodeKey || after.Expired {
		t.Errorf("was %+v, is %+v", before, after)
	}
}

// loginAgain does what "tailscale up --force-reauth --auth-key" does.
func (w *world) loginAgain(n *tsNode, authKey string) {
	w.t.Helper()
	if err := n.lc.Start(w.ctx, ipn.Options{AuthKey: authKey}); err != nil {
		w.t.Fatal(err)
	}
	if err := n.lc.StartLoginInteractive(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

func TestAnExpiredNodeIsRenewedByAKeyWhichIsUsedUpByThat(t *testing.T) {
	w := newWorld(t)
	n := w.join("expiring")
	before := w.node("expiring")
	single := w.newKey(keySpec{Preauthorized: true})
	for _, ending := range []string{"rotated", "refused"} {
		w.admin("POST", "/nodes/expiring/expire", nil, nil)
		w.awaitState(n, ipn.NeedsLogin)
		expired := w.event("expired", "expiring", 0)
		w.loginAgain(n, single)
		w.event(ending, "expiring", expired.Seq)
		after := w.node("expiring")
		if after.ID != before.ID || after.Name != before.Name || !slices.Equal(after.Addresses, before.Addresses) || after.Ephemeral != before.Ephemeral {
			t.Errorf("%s: was %+v, is %+v", ending, before, after)
		}
		if ending == "refused" {
			if !after.Expired {
				t.Error("a key that is used up has renewed it")
			}
			break
		}
		w.awaitState(n, ipn.Running)
		if left := time.Until(*after.KeyExpiry); after.Expired || left < 179*24*time.Hour {
			t.Errorf("the key expires in %v", left)
		}
	}
	if got := w.request("GET", "/nodes/expiring-1", nil, nil); got != http.StatusNotFound {
		t.Errorf("there is a second device: %d", got)
	}
}

func TestAKeyThatDoesNotExistRenewsNothing(t *testing.T) {
	w := newWorld(t)
	n := w.join("expiring")
	w.admin("POST", "/nodes/expiring/expire", nil, nil)
	w.awaitState(n, ipn.NeedsLogin)
	w.loginAgain(n, "tskey-auth-nosuch")
	if why := w.event("refused", "expiring", 0).Detail; why != "invalid key: API key does not exist" {
		t.Errorf("refused because of %q", why)
	}
	if !w.node("expiring").Expired {
		t.Error("it is renewed all the same")
	}
}

func TestANodeKeyOfAnotherMachineRenewsNothing(t *testing.T) {
	w := newWorld(t)
	w.join("victim")
	before := w.node("victim")
	w.c.net.mu.Lock()
	old := w.c.net.findLocked("victim").key
	w.c.net.mu.Unlock()
	res, n := w.c.net.register("", key.NewMachine().Public(), &tailcfg.RegisterRequest{
		NodeKey: key.NewNode().Public(), OldNodeKey: old, Hostinfo: &tailcfg.Hostinfo{Hostname: "thief"},
		Auth: &tailcfg.RegisterResponseAuth{AuthKey: w.newKey(keySpec{User: "bob@example.com"})},
	}, nil)
	if res.Error != "" || n == nil || n.id == before.ID {
		t.Errorf("got %+v, %+v", res, n)
	}
	if after := w.node("victim"); after.NodeKey != before.NodeKey || after.User != before.User {
		t.Errorf("was %+v, is %+v", before, after)
	}
}

func TestAKeyThatExpiresInAWhileExpiresThen(t *testing.T) {
	w := newWorld(t)
	n := w.join("expiring")
	w.admin("POST", "/nodes/expiring/expire", map[string]any{"in_seconds": 0.3}, nil)
	if w.node("expiring").Expired {
		t.Error("expired at once")
	}
	w.event("expired", "expiring", 0)
	w.awaitState(n, ipn.NeedsLogin)
}

func TestADeviceOfTheSameNameGetsANumber(t *testing.T) {
	w := newWorld(t)
	w.join("twin")
	second := w.join("twin")
	me, err := second.self(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if me.Name != "twin-1.tail1234.ts.net" {
		t.Errorf("the second is called %s", me.Name)
	}
}

func TestKeysAreRefusedInTheWordsOfTheRealServer(t *testing.T) {
	w := newWorld(t)
	single := w.newKey(keySpec{Preauthorized: true})
	f := w.flags("first")
	f.authKey = single
	w.joinAs(f)
	for _, tt := range []struct{ name, key, want string }{
		{"used", single, "not valid"},
		{"unknown", "tskey-auth-nosuch", "invalid key: API key does not exist"},
		{"expired", w.newKey(keySpec{Expired: true}), "invalid key: API key expired"},
	} {
		f := w.flags(tt.name)
		f.authKey = tt.key
		if _, err := w.start(f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s key: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestAKeyMayBeAnyTextAndBelongsToItsUser(t *testing.T) {
	w := newWorld(t)
	f := w.flags("bobs")
	f.authKey = w.newKey(keySpec{User: "bob@example.com", Key: "5fd0b7c4a1headscale", Preauthorized: true})
	n := w.joinAs(f)
	st := w.status(n)
	if login := st.User[st.Self.UserID].LoginName; login != "bob@example.com" {
		t.Errorf("the node belongs to %q", login)
	}
}

func TestATaggedNodeBelongsToNobodyAndDoesNotExpire(t *testing.T) {
	w := newWorld(t)
	f := w.flags("tagged")
	f.authKey = w.newKey(keySpec{Tags: []string{"tag:ci"}, Preauthorized: true})
	n := w.joinAs(f)
	got := w.node("tagged")
	if got.User != taggedDevices || !slices.Equal(got.Tags, []string{"tag:ci"}) || got.KeyExpiry != nil {
		t.Errorf("control lists %+v", got)
	}
	st := w.status(n)
	if login := st.User[st.Self.UserID].LoginName; login != taggedDevices {
		t.Errorf("the node takes itself for %q's", login)
	}
}

func TestTagsThatThePolicyDoesNotGiveAreRefused(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/policy", map[string]any{"tag_owners": map[string][]string{"tag:mine": {"alice@example.com"}}}, nil)
	f := w.flags("greedy")
	f.tags = "tag:theirs"
	if _, err := w.start(f); err == nil || !strings.Contains(err.Error(), "requested tags [tag:theirs] are invalid or not permitted") {
		t.Errorf("got %v", err)
	}
	f = w.flags("modest")
	f.tags = "tag:mine"
	w.joinAs(f)
	if got := w.node("modest"); !slices.Equal(got.Tags, []string{"tag:mine"}) {
		t.Errorf("control lists %+v", got)
	}
}

func TestAnOAuthSecretMakesKeysWithItsTags(t *testing.T) {
	w := newWorld(t)
	var made struct {
		Secret string `json:"client_secret"`
	}
	w.admin("POST", "/oauth-clients", map[string]any{"tags": []string{"tag:ci"}}, &made)
	f := w.flags("by-oauth")
	f.authKey, f.tags = made.Secret, "tag:ci"
	w.joinAs(f)
	if got := w.node("by-oauth"); !slices.Equal(got.Tags, []string{"tag:ci"}) || !got.Ephemeral {
		t.Errorf("control lists %+v", got)
	}
	for _, tt := range []struct{ secret, tags, want string }{
		{made.Secret, "tag:other", "requested tags [tag:other] are invalid or not permitted"},
		{strings.Replace(made.Secret, "tskey-client-", "tskey-client-x", 1), "tag:ci", "API token invalid"},
	} {
		f := w.flags("refused")
		f.authKey, f.tags = tt.secret, tt.tags
		if _, err := w.start(f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestAPersonWhoLogsInLetsANodeIn(t *testing.T) {
	w := newWorld(t)
	f := w.flags("interactive")
	f.authKey = ""
	done := w.joining(f)
	link := w.event("login-started", "interactive", 0).Detail
	page, err := http.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	if page.StatusCode != http.StatusOK {
		t.Errorf("the login page answers %s", page.Status)
	}
	w.admin("POST", "/logins/complete", map[string]any{"url": link, "user": "carol@example.com"}, nil)
	if err := w.outcome(done); err != nil {
		t.Fatal(err)
	}
	if got := w.node("interactive"); got.User != "carol@example.com" || !got.Ephemeral {
		t.Errorf("control lists %+v", got)
	}
}

func TestALoginPageWithAUserCompletesTheLogin(t *testing.T) {
	w := newWorld(t)
	f := w.flags("interactive")
	f.authKey = ""
	done := w.joining(f)
	link := w.event("login-started", "interactive", 0).Detail
	page, err := http.Get(link + "?user=alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	if err := w.outcome(done); err != nil {
		t.Fatal(err)
	}
}

func TestANodeWhosePersonIsTurnedAwayHearsWhy(t *testing.T) {
	w := newWorld(t)
	f := w.flags("interactive")
	f.authKey = ""
	done := w.joining(f)
	link := w.event("login-started", "interactive", 0).Detail
	w.admin("POST", "/logins/complete", map[string]any{"url": link, "error": "user is suspended"}, nil)
	if err := w.outcome(done); err == nil || !strings.Contains(err.Error(), "user is suspended") {
		t.Errorf("got %v", err)
	}
}

func TestADeviceWaitsForApprovalUnlessItsKeyIsPreauthorized(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/settings", map[string]any{"require_approval": true}, nil)
	watcher := w.join("watcher")
	f := w.flags("waiting")
	f.authKey = w.newKey(keySpec{})
	done := w.joining(f)
	online := w.event("online", "waiting", 0)
	if w.node("waiting").Authorized {
		t.Error("the device is approved already")
	}
	if w.peer(watcher, "waiting") != nil {
		t.Error("others see the device before it is approved")
	}
	w.admin("POST", "/nodes/waiting/authorize", nil, nil)
	w.event("authorized", "waiting", online.Seq)
	if err := w.outcome(done); err != nil {
		t.Fatal(err)
	}
	w.eventually("the watcher sees it", func() bool { return w.peer(watcher, "waiting") != nil })
}

func TestAnUnapprovedNodeSaysWhatItWaitsFor(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/settings", map[string]any{"require_approval": true}, nil)
	f := w.flags("waiting")
	f.authKey = w.newKey(keySpec{})
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
	defer cancel()
	n, err := startNode(ctx, f)
	if err == nil {
		n.Close()
		os.RemoveAll(n.tempDir)
		t.Fatal("it is running")
	}
	if !strings.Contains(err.Error(), "approved") {
		t.Errorf("got %v", err)
	}
}

func TestANodeWithoutASignatureIsLockedOutUntilItIsSigned(t *testing.T) {
	w := newWorld(t)
	web, friend := w.join("web"), w.join("friend")
	w.serveHello(web)
	w.mustFetch(friend, "http://web/")
	w.admin("POST", "/lock", nil, nil)
	w.eventually("web enforces the lock", func() bool {
		st, err := web.lc.TailnetLockStatus(w.ctx)
		return err == nil && st.Enabled
	})
	outsider := w.join("outsider")
	w.eventually("web filters the outsider", func() bool {
		st, err := web.lc.TailnetLockStatus(w.ctx)
		return err == nil && len(st.FilteredPeers) == 1
	})
	if st, err := outsider.lc.TailnetLockStatus(w.ctx); err != nil || st.NodeKeySigned {
		t.Errorf("the outsider takes itself for signed: %+v, %v", st, err)
	}
	if _, err := w.fetch(outsider, "http://web/", 500*time.Millisecond); err == nil {
		t.Error("the outsider reaches web")
	}
	w.mustFetch(friend, "http://web/")
	w.admin("POST", "/nodes/outsider/sign", nil, nil)
	w.mustFetch(outsider, "http://web/")
	w.admin("POST", "/lock", map[string]any{"enabled": false}, nil)
	w.eventually("web lets the lock go", func() bool {
		st, err := web.lc.TailnetLockStatus(w.ctx)
		return err == nil && !st.Enabled
	})
}
