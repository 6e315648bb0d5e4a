package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// askKey asks control for its key, from outside of any node.
func (w *world) askKey(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, "GET", w.line.ControlURL+"/key?v=100", nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	return err
}

func TestAnOutageClosesThePortAndDeletesNobodyAndEndsOnTheSamePort(t *testing.T) {
	w := newWorld(t)
	web, caller := w.join("web"), w.join("caller")
	w.serveHello(web)
	w.mustFetch(caller, "http://web/")
	w.admin("PUT", "/faults", faultSet{Outage: true}, nil)
	if err := w.askKey(w.ctx); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("in an outage the port answers %v", err)
	}
	offline := w.event("offline", "web", 0)
	w.mustFetch(caller, "http://web/")
	w.admin("PUT", "/faults", nil, nil)
	if err := w.askKey(w.ctx); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	for i, name := range []string{"web", "caller"} {
		w.event("online", name, offline.Seq)
		if got := w.node(name).ID; int(got) != i+1 {
			t.Errorf("%s came back as node %d", name, got)
		}
	}
}

func TestAHangingControlAnswersOnceItIsLifted(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/faults", faultSet{Hang: true}, nil)
	short, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
	defer cancel()
	if err := w.askKey(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it hangs: %v", err)
	}
	done := w.joining(w.flags("patient"))
	select {
	case err := <-done:
		t.Fatalf("joined a control server that hangs: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	w.admin("PUT", "/faults", nil, nil)
	if err := w.outcome(done); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersOnNamedPathsAreLateAndOthersAreNot(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/faults", faultSet{DelayMS: 400, Paths: []string{"/machine/register"}}, nil)
	began := time.Now()
	if err := w.askKey(w.ctx); err != nil || time.Since(began) > 300*time.Millisecond {
		t.Errorf("/key took %v: %v", time.Since(began), err)
	}
	n := w.join("late")
	if n.joined < 400*time.Millisecond {
		t.Errorf("joined in %v although registration takes 400 ms", n.joined)
	}
}

func TestALateLogoutTakesEffectAtOnce(t *testing.T) {
	w := newWorld(t)
	n := w.join("leaver")
	w.admin("PUT", "/faults", faultSet{LogoutDelayMS: 700}, nil)
	began := time.Now()
	if err := n.lc.Logout(w.ctx); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	removed := time.Unix(0, w.event("removed", "leaver", 0).TimeNS)
	if gone := removed.Sub(began); gone > 400*time.Millisecond {
		t.Errorf("removed only after %v", gone)
	}
	if took < 700*time.Millisecond {
		t.Errorf("the answer came after %v, want 700 ms", took)
	}
}

func TestALogoutWhoseSenderIsKilledTakesEffect(t *testing.T) {
	w := newWorld(t)
	n := w.join("killed")
	w.admin("PUT", "/faults", faultSet{DelayMS: 5000}, nil)
	ctx, cancel := context.WithCancel(w.ctx)
	logout := make(chan error, 1)
	go func() { logout <- n.lc.Logout(ctx) }()
	w.event("logout", "killed", 0)
	cancel()
	w.event("removed", "killed", 0)
	n.Close()
	<-logout
}

func TestOAuthHasFaultsOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.admin("PUT", "/faults", faultSet{OAuthOutage: true}, nil)
	f := w.flags("unlucky")
	f.authKey, f.tags = w.line.ClientSecret, "tag:ci"
	if _, err := w.start(f); err == nil || !strings.Contains(err.Error(), "/api/v2/oauth/token") {
		t.Errorf("got %v", err)
	}
	w.join("lucky")
	w.admin("PUT", "/faults", faultSet{OAuthDelayMS: 300}, nil)
	f.hostname = "slow"
	if n := w.joinAs(f); n.joined < 300*time.Millisecond {
		t.Errorf("joined in %v although OAuth takes 300 ms", n.joined)
	}
}

// askRelay asks a relay for an answer, as netcheck does.
func (w *world) askRelay(port int) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	res, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/derp/probe", port))
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func TestRelaysHaveFaultsOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	caller := w.join("caller")
	m, err := caller.lc.CurrentDERPMap(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	ports := []int{m.Regions[1].Nodes[0].DERPPort, m.Regions[3].Nodes[0].DERPPort}
	w.admin("PUT", "/faults", faultSet{DERPOutage: true}, nil)
	for _, port := range ports {
		if err := w.askRelay(port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("in an outage a relay's port answers %v", err)
		}
	}
	if err := w.askKey(w.ctx); err != nil {
		t.Errorf("control, which has no outage: %v", err)
	}
	w.admin("PUT", "/faults", faultSet{DERPDelayMS: 300}, nil)
	for _, port := range ports {
		began := time.Now()
		if err := w.askRelay(port); err != nil || time.Since(began) < 300*time.Millisecond {
			t.Errorf("a late relay answers after %v: %v", time.Since(began), err)
		}
	}
}

func TestEventsArriveWhileOneWaitsForThem(t *testing.T) {
	w := newWorld(t)
	got := make(chan event, 1)
	go func() { got <- w.event("registered", "awaited", 0) }()
	w.join("awaited")
	select {
	case e := <-got:
		if e.NodeID != 1 || e.Name != "awaited.tail1234.ts.net" {
			t.Errorf("got %+v", e)
		}
	case <-time.After(waitLimit):
		t.Fatal("no event")
	}
	var none struct {
		Events []event
		Last   int64
	}
	w.admin("GET", "/events?after=1000000&wait_ms=10", nil, &none)
	if len(none.Events) != 0 || none.Last == 0 {
		t.Errorf("after the end there is %+v", none)
	}
}

func TestUnknownPathsAnswer404InJSON(t *testing.T) {
	w := newWorld(t)
	for _, base := range []string{w.line.ControlURL, w.line.AdminURL} {
		res, err := http.Get(base + "/no/such/path")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound || !strings.HasPrefix(string(b), `{"message":`) {
			t.Errorf("%s answers %s %s", base, res.Status, b)
		}
	}
}
